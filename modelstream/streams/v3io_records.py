"""Writes records to the shards of a V3IO stream, and reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import msgspec

from modelstream.clients.v3io import Container
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.streams.contract import Message

MAX_RECORD = 1 << 20
"""Largest record in bytes: V3IO's documentation says 1 MB, the client's says 2 MB."""

MAX_RECORDS = 1000
"""Most records in a PutRecords, and in one read."""

MAX_REQUEST = 7_000_000
"""Bytes of records in a PutRecords: as base64 with their names they stay below the 10 MB that a body may have."""

PAUSES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Pauses, in seconds, before a failed record is sent again. After the last one the append fails; the stage then holds
the shard, shows the reason, and repeats the append."""

_REFUSED = ("InvalidArgument", "OutOfRange", "ermission")


class _Put(msgspec.Struct):
    SequenceNumber: int | None = None
    ErrorCode: int | None = None
    ErrorMessage: str = ""


class _Puts(msgspec.Struct):
    FailedRecordCount: int
    Records: list[_Put]


class _Record(msgspec.Struct):
    SequenceNumber: int
    ArrivalTimeSec: int
    ArrivalTimeNSec: int
    Data: bytes


class _Records(msgspec.Struct):
    NextLocation: str
    Records: list[_Record]
    RecordsBehindLatest: int = 0


class _Location(msgspec.Struct):
    Location: str


def append(container: Container, path: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
    """Append (shard, body) records to a stream and return their sequence numbers.

    A request has one record per shard: records of one request fail independently, and a record must not be stored
    before an earlier one of its shard (docs/delivery.md, 3).

    Raises ConfigurationError for a message that is too large or refused, UnavailableError where V3IO doesn't take it.
    An example would need V3IO: `tests/contract/test_v3io_streams.py` runs on a stand-in for it.
    """
    largest = max((len(body) for _, body in records), default=0)
    if largest > MAX_RECORD:
        raise ConfigurationError(
            f"a message of {largest} bytes for {path} is too large: V3IO takes up to {MAX_RECORD} bytes per record",
            remedy="send smaller messages",
        )
    numbers = [0] * len(records)
    for indices in _requests(records):
        put = _put(container, path, [records[index] for index in indices])
        for index, number in zip(indices, put, strict=True):
            numbers[index] = number
    return numbers


def _requests(records: Sequence[tuple[int, bytes]]) -> Iterator[list[int]]:
    """Yield the indices of the records of each request: the first of every shard, the second of every shard, …

    >>> list(_requests([(0, b"a"), (0, b"b"), (1, b"c")]))
    [[0, 2], [1]]
    """
    rounds: list[list[int]] = []
    depth: dict[int, int] = {}
    for index, (shard, _) in enumerate(records):
        depth[shard] = depth.get(shard, 0) + 1
        if depth[shard] > len(rounds):
            rounds.append([])
        rounds[depth[shard] - 1].append(index)
    for round_ in rounds:
        request: list[int] = []
        size = 0
        for index in round_:
            size += len(records[index][1])
            if request and (size > MAX_REQUEST or len(request) == MAX_RECORDS):
                yield request
                request, size = [], len(records[index][1])
            request.append(index)
        yield request


def _put(container: Container, path: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
    """Put one record for each of several shards; those that fail are sent again, alone."""
    numbers: dict[int, int] = {}
    for pause in (*PAUSES, None):
        left = [index for index in range(len(records)) if index not in numbers]
        body = [{"shard_id": records[index][0], "data": records[index][1]} for index in left]
        response = container.call("stream", "put_records", stream_path=path, records=body)
        answer = msgspec.json.decode(response.body, type=_Puts)
        if len(answer.Records) != len(left):
            raise UnavailableError(
                f"V3IO answered for {len(answer.Records)} of {len(left)} records of {path}",
                remedy="if it is temporary, nothing: the pipeline continues by itself",
            )
        failed = ""
        for index, put in zip(left, answer.Records, strict=True):
            if put.ErrorCode or put.SequenceNumber is None:
                failed = f"{put.ErrorCode} {put.ErrorMessage}"
                if any(word in put.ErrorMessage for word in _REFUSED):
                    raise ConfigurationError(
                        f"V3IO refused a record for shard {records[index][0]} of {path}: {failed}",
                        remedy="check the number of shards of the stream, and the rights of the access key",
                    )
            else:
                numbers[index] = put.SequenceNumber
        if not failed:
            break
        if pause is None:
            raise UnavailableError(
                f"V3IO does not take records for {path}: {failed}",
                remedy="nothing to do if it passes; the pipeline goes on by itself",
            )
        time.sleep(pause)
    return [numbers[index] for index in range(len(records))]


class V3ioReader:
    """Reads a shard, and remembers its location: reading on takes one request, starting elsewhere one more.

    Raises as `Container.call` does. An example would need V3IO: `tests/contract/test_v3io_streams.py` runs on a
    stand-in for it.
    """

    def __init__(self, container: Container, path: str, shard: int) -> None:
        self._container = container
        self._where = {"stream_path": path, "shard_id": shard}
        self._shard = shard
        self._offset = -1
        self._location = ""
        self._left: list[Message] = []

    def read(self, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        """Return messages from an offset on: see `Streams.read`."""
        if not (self._left and self._left[0].offset == offset):
            self._left = self._fetch(offset, limit_messages)
        taken, size = 0, 0
        for message in self._left[:limit_messages]:
            size += len(message.body)
            if taken and size > limit_bytes:
                break
            taken += 1
        found, self._left = self._left[:taken], self._left[taken:]
        return found

    def first_since(self, moment_us: int | None, end: int) -> int:
        """Return the offset of the first message that is left and not older than a time (None: any), or `end`."""
        if moment_us is None:
            location = self._seek("EARLIEST")
        elif moment_us > (time.time() + 86_400) * 1e6:
            return end  # V3IO's clock is not a day ahead, and it takes no time beyond its calendar.
        else:
            seconds, micros = divmod(max(moment_us, 0), 1_000_000)
            location = self._seek("TIME", timestamp_sec=seconds, timestamp_nsec=micros * 1000)
        answer = self._get(location, 1) if location else None
        return answer.Records[0].SequenceNumber if answer and answer.Records else end

    def _fetch(self, offset: int, limit: int) -> list[Message]:
        """Return what follows an offset, and note where to go on. Nothing at the end, or before the first message."""
        location: str | None = self._location
        if offset != self._offset:
            location = self._seek("SEQUENCE", starting_sequence_number=offset)
            if location is None:
                location = self._earliest_after(offset)
        answer = self._get(location, limit) if location else None
        if location and answer is None:  # the place was deleted, being too old
            location = self._earliest_after(offset)
            answer = self._get(location, limit) if location else None
        self._offset = -1
        if answer is None:
            return []
        messages = [
            Message(
                self._shard,
                record.SequenceNumber,
                record.Data,
                record.ArrivalTimeSec * 1_000_000 + record.ArrivalTimeNSec // 1000,
            )
            for record in answer.Records
        ]
        self._location = answer.NextLocation
        self._offset = messages[-1].offset + 1 if messages else offset
        return [message for message in messages if message.offset >= offset]

    def _earliest_after(self, offset: int) -> str | None:
        """Return the location of the first message that is left, if an offset is before it; None if beyond the end."""
        location = self._seek("EARLIEST")
        answer = self._get(location, 1) if location else None
        return location if answer and answer.Records and answer.Records[0].SequenceNumber > offset else None

    def _seek(self, kind: str, **arguments: int) -> str | None:
        """Return a location, None if there is no such place."""
        response = self._container.call("stream", "seek", also=[400, 404], seek_type=kind, **arguments, **self._where)
        if response.status_code >= 400:
            return None
        return msgspec.json.decode(response.body, type=_Location).Location

    def _get(self, location: str, limit: int) -> _Records | None:
        """Return what is at a location, None if there is no such place. V3IO may answer with nothing before the end."""
        while True:
            response = self._container.call(
                "stream",
                "get_records",
                also=[400, 404],
                location=location,
                limit=min(limit, MAX_RECORDS),
                **self._where,
            )
            if response.status_code >= 400:
                return None
            answer = msgspec.json.decode(response.body, type=_Records)
            if answer.Records or not answer.RecordsBehindLatest or answer.NextLocation == location:
                return answer
            location = answer.NextLocation
