"""Accepts events that clients send: a body is checked as a whole, its events go to their shards, and one append serves
all clients that wait.

A body is taken whole or not at all, so a client that got no 202 sends the same body again. The only check here is that
each event is a JSON object, which is needed to tell one event from the next. An event that lacks something (a key, a
time, a value) is found by the event-handler and becomes a dead letter, as with every other source.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from modelstream.errors import ModelstreamError, UnavailableError
from modelstream.messages.codec import MAX_MESSAGE_BYTES, MAX_MESSAGE_EVENTS, UnreadableError
from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import (
    BYTE_ORDER_MARK,
    MAX_LINE,
    key_of,
    split_body,
    utf_16,
    why_not_json,
    without_half_pairs,
)
from modelstream.source.formats import ARRAY, FIRST_BYTES, wrong_format
from modelstream.streams import Streams

MAX_BODY = 16 << 20
"""Bytes of the largest body: some 120,000 events, a second of work for a machine with two cores."""
SMALL_BODY = 64 << 10
"""A body of up to this many bytes is split in the event loop: that takes less than 1 ms, which delays others less than
a thread would."""
UNKNOWN_SECONDS = 60.0
"""Seconds for which an append with an unknown outcome is repeated (`Streams.all_or_none`): a client that is told of it
can only send the same again, and some events may then count twice."""
FIRST_BACKOFF = 0.1

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
    modelstream.http.intake.RefusedError: line 3 is not JSON: Input data was truncated
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
    events = []
    for index, text in enumerate(texts):
        wrong = _what_is_wrong(text)
        if wrong:
            status = 413 if len(text) > MAX_LINE else 400
            raise RefusedError(f"{_place(body, index)} {wrong}", status)
        # Line breaks are only blanks in JSON, and a message has one event a line.
        # Half a surrogate pair is no reason to refuse the events around it: the event-handler tells of it.
        events.append((bucket_of(key_of(text, key_field)), text.replace(b"\n", b" ")))
    return events


def _what_is_wrong(text: bytes) -> str:
    """Return why a text is no event, or nothing."""
    if len(text) > MAX_LINE:
        return f"is longer than {MAX_LINE:,} bytes: {len(text):,}"
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


class Intake:
    """Takes bodies and appends their events to a stream. Bodies that arrive during an append share the next one.

    Use it in one event loop. The streams are used in a thread of their own, since an append waits for the disk.
    """

    def __init__(self, open_streams: Callable[[], Streams], stream: str, key_field: str) -> None:
        self.events = 0
        """Events that are durable."""
        self.appends = 0
        self._open_streams = open_streams
        self._stream = stream
        self._key_field = key_field
        self._shards = 0
        self._streams: Streams
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._waiting: list[tuple[list[Event], asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._closing = False
        self._collector: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the stream and wait for bodies."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._open)
        self._collector = loop.create_task(self._collect())

    async def take(self, body: bytes) -> int:
        """Return the number of a body's events, once they are durable. Raises RefusedError and UnavailableError."""
        if len(body) <= SMALL_BODY:
            events = read_events(body, self._key_field)
        else:
            events = await asyncio.to_thread(read_events, body, self._key_field)
        if events:
            durable = asyncio.get_running_loop().create_future()
            self._waiting.append((events, durable))
            self._arrived.set()
            await durable
        return len(events)

    async def close(self) -> None:
        """Append what waits, and close the stream."""
        self._closing = True
        self._arrived.set()
        if self._collector is not None:
            await self._collector
            await asyncio.get_running_loop().run_in_executor(self._thread, self._streams.close)
        self._thread.shutdown()

    def _open(self) -> None:
        self._streams = self._open_streams()
        self._shards = self._streams.describe(self._stream).shards

    async def _collect(self) -> None:
        """Append, again and again, whatever arrived during the previous append."""
        loop = asyncio.get_running_loop()
        while self._waiting or not self._closing:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._waiting = self._waiting, []
            if not group:
                continue
            failure: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._append, [events for events, _ in group])
            except Exception as error:  # whatever it is, those who wait must hear of it
                failure = error
            else:
                self.appends += 1
                self.events += sum(len(events) for events, _ in group)
            for _, durable in group:
                if durable.done():  # the client has gone
                    continue
                if failure is None:
                    durable.set_result(None)
                else:
                    durable.set_exception(failure)

    def _append(self, group: list[list[Event]]) -> None:
        records = messages((event for events in group for event in events), self._shards)
        deadline = time.monotonic() + UNKNOWN_SECONDS
        while True:
            try:
                self._streams.append(self._stream, records)
                return
            except UnavailableError as error:
                if self._streams.all_or_none:
                    raise
                if self._closing or time.monotonic() > deadline:
                    raise UnavailableError(
                        f"{error}; it is unknown whether these events were taken: if you send them again, "
                        "they may count twice",
                        remedy=error.remedy,
                    ) from None
                time.sleep(FIRST_BACKOFF)
