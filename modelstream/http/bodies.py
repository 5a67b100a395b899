"""Bodies of events that clients send: checked as a whole, taken apart into events, and packed into messages.

The only check here is that each event is a JSON object, which is needed to tell one event from the next. An event that
lacks something (a key, a time, a value) is found by the event-handler and becomes a dead letter, as with every other
source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import msgspec

from modelstream.errors import ModelstreamError
from modelstream.messages.codec import MAX_MESSAGE_BYTES, MAX_MESSAGE_EVENTS, UnreadableError
from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import (
    BYTE_ORDER_MARK,
    MAX_LINE,
    identifier_text,
    key_of,
    split_body,
    utf_16,
    why_not_json,
    without_half_pairs,
)
from modelstream.source.formats import ARRAY, FIRST_BYTES, wrong_format

MAX_BODY = 16 << 20
"""Bytes of the largest body: some 120,000 events, a second of work for a machine with two cores."""

Event = tuple[int, bytes]
"""An event's bucket, and its JSON text on one line."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class RefusedError(ModelstreamError):
    """A body that is refused; `status` is the HTTP status. Nothing of it was taken."""

    def __init__(self, message: str, status: int = 400, how: str = "fix it and send all of it again") -> None:
        super().__init__(message, remedy=f"nothing of this body was taken: {how}")
        self.status = status


def read_events(body: bytes, key_field: str) -> list[Event]:
    r"""Return the events of a body: a JSON object, an array of objects, or NDJSON. Raises RefusedError.

    >>> [line for _, line in read_events(b'[{"house": 1},\n {"house":\n 2}]', "house")]
    [b'{"house": 1}', b'{"house":  2}']
    >>> read_events(b'{"house": 1}\n\n{"house"', "house")
    Traceback (most recent call last):
    modelstream.http.bodies.RefusedError: line 3 is not JSON: Input data was truncated
    """
    body = body.removeprefix(BYTE_ORDER_MARK)
    try:
        return _events(body, key_field)
    except RefusedError as error:
        found = wrong_format(body[:FIRST_BYTES])
        if found in (None, ARRAY) or error.status != 400:
            raise
        assert found is not None
        how = found.way_out("", "curl --data-binary @- URL/events (-d would take out the line breaks)")
        raise RefusedError(f"the body is {found.name}, not JSON lines: {error}", how=how) from None


def _events(body: bytes, key_field: str) -> list[Event]:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise RefusedError(f"the body is not UTF-8 text (byte {error.start}, in line {line}){utf_16(body)}") from None
    if not body.strip():
        raise RefusedError("the body is empty: send a JSON object, an array of objects, or one object a line")
    try:
        texts = split_body(body)
    except UnreadableError as error:
        raise RefusedError(str(error)) from None
    bucket = _quick_bucket(key_field)
    events = []
    for index, text in enumerate(texts):
        if len(text) > MAX_LINE:
            size = f"is longer than {MAX_LINE:,} bytes: {len(text):,}"
            raise RefusedError(f"{_place(body, index)} {size}", 413)
        try:
            found = bucket(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UnreadableError):
            if wrong := _what_is_wrong(text):
                raise RefusedError(f"{_place(body, index)} {wrong}") from None
            # Half a surrogate pair is no reason to refuse the events around it: the event-handler tells of it.
            found = bucket_of(key_of(text, key_field))
        # Line breaks are only blanks in JSON, and a message has one event a line.
        events.append((found, text.replace(b"\n", b" ")))
    return events


@cache
def _quick_bucket(key_field: str) -> Callable[[bytes], int]:
    """Return a function that returns the bucket of an event's key, or raises what the decoder does.

    It reads an event once, and only its key into an object: 0.4 us in place of 3. Where it raises, the event may be
    right all the same. A key in an envelope is left to the slow way.
    """
    if "." in key_field:
        return lambda text: bucket_of(key_of(_checked(text), key_field))
    keyed: Any = msgspec.defstruct("Keyed", [("key", str | int | float | None, None)], rename={"key": key_field})
    decode = msgspec.json.Decoder(keyed).decode

    def bucket(text: bytes) -> int:
        key = decode(text).key
        return bucket_of(key if type(key) is str else "" if key is None else identifier_text(key))

    return bucket


def _checked(text: bytes) -> bytes:
    _OBJECT.decode(text)
    return text


def _what_is_wrong(text: bytes) -> str:
    """Return why a text is no event, or nothing."""
    try:
        _OBJECT.decode(without_half_pairs(text))
    except msgspec.ValidationError:
        return "is not a JSON object"
    except RecursionError:
        return "is nested too deeply"
    except msgspec.DecodeError as error:
        return f"is {why_not_json(text, error)}"
    return ""


def _place(body: bytes, index: int) -> str:
    """Return where the event `index` stands in a body, as a person counts."""
    if body.lstrip().startswith(b"["):
        return f"element {index} (from 0)"
    filled = (number for number, line in enumerate(body.split(b"\n"), 1) if line.strip())
    return f"line {next(number for i, number in enumerate(filled) if i == index)}"


def messages(events: Iterable[Event], shards: int) -> list[tuple[int, bytes]]:
    r"""Return (shard, NDJSON body) messages of at most 10,000 events and 1 MB, keeping the order within a shard.

    >>> messages([(0, b"{}"), (9, b"[]"), (8, b"{ }")], shards=8)
    [(0, b'{}\n{ }'), (1, b'[]')]
    """
    packed: list[tuple[int, list[bytes]]] = []
    open_: dict[int, tuple[list[bytes], int]] = {}
    for bucket, line in events:
        shard = bucket % shards
        lines, size = open_.get(shard, ([], 0))
        if not lines or len(lines) == MAX_MESSAGE_EVENTS or size + len(line) >= MAX_MESSAGE_BYTES:
            lines, size = [], 0
            packed.append((shard, lines))
        lines.append(line)
        open_[shard] = (lines, size + len(line) + 1)
    return [(shard, b"\n".join(lines)) for shard, lines in packed]
