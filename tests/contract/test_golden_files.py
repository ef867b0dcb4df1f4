"""The Python side reads the contract's own examples: schema, golden files and tables."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from referencing import Registry, Resource

from orchestration.domain.errors import ERROR_ROWS
from orchestration.fanout.client import ContractViolation
from orchestration.fanout.go import StreamReader
from orchestration.fanout.target_state import decode_targets
from orchestration.fanout.upstream_errors import event_kind, refusal_kind
from orchestration.fanout.wire import (
    DEFAULT_TIMEOUTS_MS,
    CacheUse,
    CallRequest,
    Fallback,
    FanoutRequest,
    Hedge,
    ImagePart,
    Message,
    Params,
    Retry,
    TextPart,
    Timeouts,
    WireError,
    check_request,
    decode_line,
    decode_refusal,
    decode_request,
    encode,
)

SERVICE = Path(__file__).resolve().parents[2] / "go/fanout-service"
API = SERVICE / "api"


def read(path: str) -> Any:
    return json.loads((API / path).read_text())


def files(pattern: str) -> list[Any]:
    found = sorted(API.glob(pattern))
    assert found, pattern
    return [pytest.param(path, id=path.stem) for path in found]


def by_schema(name: str) -> jsonschema.Draft202012Validator:
    line = Resource.from_contents(read("schema/line.schema.json"))  # others refer to it by its id
    known: Registry[Any] = Registry().with_resource(line.id() or "", line)
    return jsonschema.Draft202012Validator(read(f"schema/{name}.schema.json"), registry=known)


@pytest.mark.parametrize("path", files("golden/requests/valid/*.json"))
def test_a_valid_request_is_read_and_written_back_as_it_was(path: Path) -> None:
    written = encode(decode_request(path.read_bytes()))
    assert json.loads(written) == json.loads(path.read_bytes())
    by_schema("request").validate(json.loads(written))


# Python only writes requests, and always with a version; which providers there are is no form, and
# how deep the service reads is its own limit.
NOT_READ_HERE = {
    "missing-version",
    "wrong-version-behind-its-fields",
    "nested-too-deeply",
    "unknown-provider",
    "unknown-fallback-provider",
    "unknown-hedge-provider",
}


@pytest.mark.parametrize("path", files("golden/requests/invalid/*.json"))
def test_an_invalid_request_is_refused_at_the_same_field(path: Path) -> None:
    row = json.loads(path.read_text())
    assert by_schema("request").is_valid(row["request"]) is not row["by_schema"]
    if path.stem in NOT_READ_HERE:
        return
    with pytest.raises(WireError) as refused:
        decode_request(json.dumps(row["request"]).encode())
    # Half of a surrogate pair is no JSON here, so that no field is named.
    unread = "half-a-surrogate-pair" in path.stem
    assert refused.value.field == (None if unread else row["field"])


IMAGES = (
    TextPart("What is this?"),
    ImagePart(media_type="image/webp", data="AAAA"),
    ImagePart(url="https://example.org/a.png"),
)


def test_every_request_the_types_can_write_fits_the_schema() -> None:
    request = FanoutRequest(
        id="run-1",
        request_id="req-1",
        workspace="ws:1",
        stream=False,
        deadline_ms=1,
        coalesce_ms=0,
        calls=(
            CallRequest("A", "local", "m", (Message("user", ""),)),
            CallRequest(
                "B",
                "openai",
                "org/model:free",
                (Message("system", "s"), Message("assistant", "é🌍")),
                Params(1, 2.0, 1.0, 0, ["x"], {"type": "json_object"}),
                Timeouts(1, 2, 3, 4),
                whole=True,
                thoughts=True,
                retry=Retry(3, restart=True),
                fallbacks=(Fallback("local", "m"),),
                hedge=Hedge(1, "local", "m"),
                cache=CacheUse("0" * 64, "read_write"),
            ),
            CallRequest("C", "local", "m", (Message("user", IMAGES),), hedge=Hedge(3_600_000)),
        ),
    )
    check_request(request)
    by_schema("request").validate(json.loads(encode(request)))


@pytest.mark.parametrize("path", files("golden/streams/valid/*.ndjson"))
def test_a_valid_stream_is_read_to_its_end(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    calls = {event.call for line in lines for event in decode_line(line).ev}
    reader = StreamReader(calls)
    for line in lines:
        by_schema("line").validate(json.loads(line))
        assert json.loads(encode(decode_line(line))) == json.loads(line)
        reader.read(line)
    reader.close()


@pytest.mark.parametrize("path", files("golden/streams/invalid/*.ndjson"))
def test_an_invalid_stream_is_a_contract_violation(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    assert not all(by_schema("line").is_valid(json.loads(line)) for line in lines)
    reader = StreamReader({"A", "B"})
    with pytest.raises(ContractViolation):
        for line in lines:
            reader.read(line)


@pytest.mark.parametrize("path", files("golden/wholes/*/*.json"))
def test_the_schema_tells_whole_answers_apart(path: Path) -> None:
    is_valid = by_schema("whole").is_valid(json.loads(path.read_bytes()))
    assert is_valid is (path.parent.name == "valid")


def test_a_refusal_is_read() -> None:
    body = b'{"error":{"kind":"invalid_request","message":"No.","field":"calls[0].model"}}'
    by_schema("error").validate(json.loads(body))
    assert decode_refusal(body).field == "calls[0].model"


def test_the_kinds_of_the_seam_are_in_the_taxonomy_and_agree_on_what_may_be_tried_again() -> None:
    for row in read("kinds.json")["kinds"]:
        assert ERROR_ROWS[row["kind"]].retryable is row["retryable"], row["kind"]


def test_the_default_timeouts_are_the_contracts() -> None:
    contract = (SERVICE / "CONTRACT.md").read_text()
    for name, default_ms in DEFAULT_TIMEOUTS_MS.items():
        assert f"| `{name}` | {f'{default_ms:,}'.replace(',', ' ')} |" in contract


@pytest.mark.parametrize(
    "row", read("golden/upstream_errors.json")["rows"], ids=lambda r: r["name"]
)
def test_an_upstream_refusal_has_the_kind_the_table_gives(row: dict[str, Any]) -> None:
    assert refusal_kind(row["status"], row["body"].encode()) == row["kind"]


@pytest.mark.parametrize(
    "row", read("golden/upstream_error_events.json")["rows"], ids=lambda r: r["name"]
)
def test_an_error_in_the_stream_has_the_kind_the_table_gives(row: dict[str, Any]) -> None:
    assert event_kind(row["data"]["error"]) == row["kind"]


@pytest.mark.parametrize("path", files("golden/targets/valid/*.json"))
def test_a_state_of_targets_is_read_as_it_was_written(path: Path) -> None:
    by_schema("targets").validate(json.loads(path.read_bytes()))
    read_back = msgspec.json.encode(decode_targets(path.read_bytes()))
    assert json.loads(read_back) == json.loads(path.read_bytes())


@pytest.mark.parametrize("path", files("golden/targets/invalid/*.json"))
def test_a_state_of_targets_that_breaks_the_contract_is_refused(path: Path) -> None:
    assert not by_schema("targets").is_valid(json.loads(path.read_bytes()))
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's own, and all of its kinds
        decode_targets(path.read_bytes())
