"""Small servers on loopback for tests that need one to say something particular."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Send = Callable[[bytes], Awaitable[None]]


@dataclass
class Server:
    """Answers every request alike; ``requests`` are the raw heads and bodies it got."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def serving(answer: Callable[[Send], Awaitable[None]]) -> AsyncIterator[Server]:
    """``answer`` writes the whole response, head and all; the connection closes after it."""
    server = Server()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            server.requests.append(head + await reader.readexactly(length[0] if length else 0))

            async def send(data: bytes) -> None:
                writer.write(data)
                await writer.drain()

            await answer(send)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left, which some tests are about
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


def saying(
    *parts: bytes, content_type: str, status: str = "200 OK"
) -> Callable[[Send], Awaitable[None]]:
    """An answer whose body is ``parts``, ended by closing the connection."""

    async def answer(send: Send) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n"
        await send(head.encode())
        for part in parts:
            await send(part)

    return answer
