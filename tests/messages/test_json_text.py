"""A body is taken apart as JSON reads it, a key is found as parsing finds it, and no bytes end in a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelstream.messages.codec import UnreadableError
from modelstream.messages.json_text import key_of, split_body


@given(st.lists(st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(max_size=5)), max_size=3)))
def test_a_body_is_an_object_an_array_or_ndjson(events: list[dict[str, Any]]) -> None:
    ndjson = "\n\n".join(json.dumps(event) for event in events).encode() + b"\r\n"
    array = json.dumps(events, indent=1).encode()
    assert [json.loads(part) for part in split_body(ndjson)] == events
    assert [json.loads(part) for part in split_body(b" \n" + array + b"\n")] == events
    for event in events:
        assert [json.loads(part) for part in split_body(json.dumps(event).encode())] == [event]
        assert [json.loads(part) for part in split_body(json.dumps(event, indent=2).encode())] == [event]


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"", []),
        (b" \r\n\t\n", []),
        (b"[]", []),
        (b'{"a": 1}\r\n{"a"\n{"a": 3}', [b'{"a": 1}', b'{"a"', b'{"a": 3}']),
        (b'{"a":\n1}', [b'{"a":\n1}']),
        (b'{"a":\n1', [b'{"a":', b"1"]),
        (b'[{"a": 1}, 5, "x", [2]]', [b'{"a": 1}', b"5", b'"x"', b"[2]"]),
        (b"\xff\xfe\n{}", [b"\xff\xfe", b"{}"]),
        (b'"x"\n[1]', [b'"x"', b"[1]"]),
    ],
)
def test_the_parts_of_a_body(body: bytes, parts: list[bytes]) -> None:
    assert split_body(body) == parts


@pytest.mark.parametrize("body", [b"[", b'[{"a": 1},]', b'[{"a": 1}', b"[1]2", b"[" * 100_000, b'["\xff"]x'])
def test_a_broken_array_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableError, match="a broken JSON array"):
        split_body(body)


@given(st.binary())
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000 + b"\n")
def test_any_body_is_taken_apart_or_unreadable(body: bytes) -> None:
    try:
        parts = split_body(body)
    except UnreadableError:
        return
    assert b"".join(parts) in (body.strip(), b"".join(body.split()), b"".join(parts))
    assert all(part.strip() == part and part for part in parts)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"user_id": "u1"}', "u1"),
        (rb'{"user_\u0069d": "\u00fc"}', "ü"),
        (b'{"user_id": 123}', "123"),
        (b'{"user_id": -0}', "0"),
        (b'{"user_id": 123456789012345678901234567890}', "123456789012345678901234567890"),
        (b'{"user_id": "a", "user_id": "b"}', "b"),
        (b'{"x": {"user_id": "a"}}', ""),
        (b'{"user_id": ""}', ""),
        (b'{"user_id": null}', ""),
        (b'{"user_id": 1.0}', "1"),
        (b'{"user_id": 1e2}', "100"),
        (b'{"user_id": -0.0}', "0"),
        (b'{"user_id": 1.5}', ""),
        (b'{"user_id": 9007199254740992.0}', "9007199254740992"),
        (b'{"user_id": 9007199254740994.0}', ""),
        (rb'{"user_id": "\ud800"}', ""),
        (b'{"user_id": true}', ""),
        (b'{"user_id": ["a"]}', ""),
        (b'{"user_id": ' + b"9" * 5000 + b"}", ""),
        (b'{"user_id": "\xff"}', ""),
        (b'{"user_id": "a"', ""),
        (b'["user_id"]', ""),
        (b"", ""),
        (b'{"a":' * 100_000, ""),
    ],
)
def test_key(line: bytes, key: str) -> None:
    assert key_of(line, "user_id") == key
