"""Doorbells: a ring is heard from any thread, and a loop that waits for one can be ended."""

import asyncio
import threading

import pytest

from orchestration.publish import Bell, Doorbells


async def test_a_ring_from_another_thread_is_heard_at_once() -> None:
    doorbells = Doorbells()
    with doorbells.listen("topic") as bell:
        threading.Thread(target=doorbells.ring, args=("topic",)).start()
        assert await bell.wait(timeout_s=10)


async def test_a_ring_before_the_wait_is_not_lost_and_counts_once() -> None:
    doorbells = Doorbells()
    with doorbells.listen("topic") as bell:
        doorbells.ring("topic")
        doorbells.ring("topic")
        await asyncio.sleep(0.01)
        assert await bell.wait(timeout_s=10)
        assert not await bell.wait(timeout_s=0.01)


async def test_every_listener_of_a_topic_is_rung_and_no_other() -> None:
    doorbells = Doorbells()
    with doorbells.listen("a") as one, doorbells.listen("a") as two, doorbells.listen("b") as other:
        doorbells.ring("a")
        assert await one.wait(timeout_s=10)
        assert await two.wait(timeout_s=10)
        assert not await other.wait(timeout_s=0.01)


async def test_ringing_where_nobody_listens_any_more_is_nothing() -> None:
    doorbells = Doorbells()
    with doorbells.listen("topic"):
        pass
    doorbells.ring("topic")
    assert not doorbells._bells


def test_a_bell_whose_loop_is_gone_wakes_nobody_and_hurts_nobody() -> None:
    async def make() -> Bell:
        return Bell()

    asyncio.run(make()).ring()


@pytest.mark.parametrize("ticks", range(6))
async def test_a_loop_that_is_cancelled_as_it_is_rung_still_ends(ticks: int) -> None:
    doorbells = Doorbells()

    async def listen_for_ever() -> None:
        with doorbells.listen("topic") as bell:
            while True:
                await bell.wait(timeout_s=10)

    loop = asyncio.create_task(listen_for_ever())
    await asyncio.sleep(0.01)
    doorbells.ring("topic")
    for _ in range(ticks):
        await asyncio.sleep(0)
    loop.cancel()
    done, _ = await asyncio.wait({loop}, timeout=2)
    loop.cancel()
    assert done, "the cancellation was swallowed"
