"""Every way to send events gives the same events; a body that can't be read is refused whole, with the place."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.http import bodies as module
from modelstream.http.bodies import RefusedError, messages, read_events
from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import key_of
from tests.http.serving import PRETTY, SHARDS, Client

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(st.dictionaries(st.text() | st.just("user_id"), JSON, max_size=4), min_size=1, max_size=6)


@given(EVENTS, st.sampled_from(["array", "pretty array", "ndjson", "ndjson with blank lines"]))
def test_every_way_to_send_events_gives_the_same_events(events: list[dict[str, Any]], way: str) -> None:
    texts = [json.dumps(event) for event in events]
    body = {
        "array": json.dumps(events),
        "pretty array": json.dumps(events, indent=2),
        "ndjson": "\n".join(texts),
        "ndjson with blank lines": "\n\n \t\n" + "\r\n\n".join(texts) + "\n",
    }[way]
    read = read_events(body.encode(), "user_id")
    assert [json.loads(line) for _, line in read] == [json.loads(text) for text in texts]
    assert all(b"\n" not in line for _, line in read)
    assert [bucket for bucket, _ in read] == [bucket_of(key_of(text.encode(), "user_id")) for text in texts]


@given(st.lists(st.tuples(st.integers(0, 63), st.binary(max_size=30).map(bytes.hex).map(str.encode))))
def test_messages_keep_the_order_within_a_shard_and_their_limits(events: list[tuple[int, bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_MESSAGE_EVENTS", 3)
        patch.setattr(module, "MAX_MESSAGE_BYTES", 100)
        packed = messages(events, SHARDS)
    for shard in range(SHARDS):
        expected = [line for bucket, line in events if bucket % SHARDS == shard]
        assert [line for to, body in packed if to == shard for line in body.split(b"\n")] == expected
    assert all(body.count(b"\n") < 3 and len(body) <= 100 for _, body in packed)


def test_a_pretty_printed_object_is_one_event() -> None:
    assert [json.loads(line) for _, line in read_events(PRETTY, "user_id")] == [{"user_id": "u1"}]


def test_a_byte_order_mark_is_no_part_of_the_event() -> None:
    assert read_events(b"\xef\xbb\xbf{}", "user_id") == [(0, b"{}")]


HALF = rb'{"user_id": "u2", "x": "\ud83d"}'


@pytest.mark.parametrize(
    "body",
    [b'{"user_id": "u1"}\n' + HALF + b'\n{"user_id": "u3"}', b'[{"user_id": "u1"}, ' + HALF + b', {"user_id": "u3"}]'],
)
def test_half_a_surrogate_pair_harms_no_neighbour(body: bytes) -> None:
    """JavaScript writes it when it cuts a text within an emoji. The event-handler makes a dead letter of the event."""
    read = read_events(body, "user_id")
    assert [line for _, line in read] == [b'{"user_id": "u1"}', HALF, b'{"user_id": "u3"}']
    assert [bucket for bucket, _ in read] == [bucket_of(key) for key in ("u1", "", "u3")]


def test_a_key_in_an_envelope_decides_the_shard() -> None:
    assert read_events(b'{"user_id": "no", "after": {"user_id": 7.0}}', "after.user_id")[0][0] == bucket_of("7")


DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LONG = b'{"a": "' + b"x" * 1_000_000 + b'"}'
REFUSED = {
    "empty": (b"", 400, "empty"),
    "blank": (b" \n\n", 400, "empty"),
    "cut": (b'{"user_id": "u1"', 400, "line 1 is not JSON"),
    "third line": (b'{"user_id": 1}\n\n{"user_id": }\n{}', 400, "line 3 is not JSON"),
    "an element": (b'[{"user_id": 1}, 7]', 400, "element 1 (from 0) is not a JSON object"),
    "a broken array": (b'[{"user_id": 1}, {]', 400, "a broken JSON array"),
    "a number": (b"7", 400, "line 1 is not a JSON object"),
    "NaN": (b'{"amount": NaN}', 400, "line 1 is not JSON"),
    "gzip": (gzip.compress(b"{}"), 400, "the body is gzip, not JSON lines"),
    "CSV": (b"user_id,amount\nu1,2\n", 400, "the body is CSV, not JSON lines: line 1"),
    "UTF-16": ('{"user_id": 1}'.encode("utf-16"), 400, "the body is text in UTF-16"),
    "curl -d": (b'{"user_id": 1}{"user_id": 2}', 400, "without line breaks in between"),
    "UTF-16 without a mark": (
        '{"user_id": 1}'.encode("utf-16-le"),
        400,
        "line 1 is not UTF-8 text; it looks like UTF-16",
    ),
    "half a pair and broken": (rb'{"user_id": "\ud83d"', 400, "line 1 is not JSON"),
    "not UTF-8": (b'{"user_id": "\xff"}', 400, "not UTF-8"),
    "nested": (DEEP, 400, "line 1 is nested too deeply"),
    "a long event": (b"{}\n" + LONG, 413, "line 2 is longer than 1,000,000 bytes: 1,000,009"),
    "form": (b"user_id=u1&event_type=bet", 400, "line 1 is not JSON"),
}


def test_a_refusal_is_an_error_of_the_library() -> None:
    with pytest.raises(RefusedError, match="line 1 is not JSON"):
        read_events(b"{", "user_id")


@pytest.mark.parametrize("name", REFUSED)
def test_a_body_that_cannot_be_read_is_refused_whole_with_the_place(client: Client, name: str) -> None:
    body, status, reason = REFUSED[name]
    found, answer = client.ask("POST", "/events", body)
    assert found == status
    assert reason in answer["error"]
    assert "nothing of this body was taken" in answer["remedy"]
    assert client.stored() == []
