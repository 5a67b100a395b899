"""Part of a test tool (see README.md): the calls of V3IO's streaming API."""

from __future__ import annotations

import base64
import binascii
import bisect
import json
import zlib
from collections.abc import Callable
from typing import Any

from .errors import ApiError, invalid, no_such_resource
from .store import File, Folder, Record, Store, Stream, split

MAX_BODY = 10_000_000
MAX_RECORDS = 1000
MAX_RECORD = 1 << 20
MAX_ANSWER = 10_000_000


def create_stream(store: Store, container: str, path: str, request: dict[str, Any]) -> None:
    """CreateStream: refused where a folder is, be it a stream or not."""
    shards, hours = request.get("ShardCount", 1), request.get("RetentionPeriodHours", 24)
    if not (isinstance(shards, int) and isinstance(hours, int) and shards >= 1 and hours >= 1 and split(path)):
        raise invalid("ShardCount, RetentionPeriodHours or path")
    if store.find(container, path) is not None:
        raise ApiError(409, -17, f"ResourceInUseException: {path}")
    store.make_stream(container, path, shards, hours)


def update_stream(store: Store, container: str, path: str, request: dict[str, Any]) -> None:
    """UpdateStream: more shards, never fewer."""
    stream = _stream(store, container, path)[1]
    if request.get("ShardCount", 0) < stream.shards:
        raise invalid("ShardCount can only grow")
    store.make_stream(container, path, request["ShardCount"], stream.hours)


def describe_stream(store: Store, container: str, path: str) -> dict[str, Any]:
    """DescribeStream."""
    stream = _stream(store, container, path)[1]
    return {"ShardCount": stream.shards, "RetentionPeriodHours": stream.hours}


def put_records(
    store: Store, container: str, path: str, body: bytes, request: dict[str, Any], refuses: Callable[[], bool]
) -> dict[str, Any]:
    """PutRecords: a bad record fails alone, so do those that `refuses` chooses."""
    folder, stream = _stream(store, container, path)
    records = request.get("Records")
    if not isinstance(records, list) or not 1 <= len(records) <= MAX_RECORDS or len(body) > MAX_BODY:
        raise invalid(f"a request has 1 to {MAX_RECORDS} records and at most {MAX_BODY} bytes")
    accepted: list[tuple[int, bytes, bytes | None, str | None]] = []
    answers: list[dict[str, Any]] = []
    last: dict[int, int] = {}
    for record in records:
        try:
            taken = _read_record(record, stream)
            if refuses():
                raise ApiError(200, -11, "ProvisionedThroughputExceededException: told so by the test")
        except ApiError as error:
            answers.append(error.body)
            continue
        shard = taken[0]
        if shard not in last:
            file = folder.entries.get(str(shard))
            last[shard] = file.last_number if isinstance(file, File) else 0
        last[shard] += 1
        accepted.append(taken)
        answers.append({"SequenceNumber": last[shard], "ShardId": shard})
    if accepted:
        store.append(container, path, accepted)
    return {"FailedRecordCount": len(records) - len(accepted), "Records": answers}


def seek(store: Store, container: str, path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Seek (also called SeekShard)."""
    file = _shard(store, container, path)
    assert file.records is not None
    kind, end = request.get("Type"), file.last_number + 1
    if kind == "EARLIEST":
        number = file.first_number
    elif kind == "LATEST":
        number = end
    elif kind == "SEQUENCE":
        asked = request.get("StartingSequenceNumber")
        if not isinstance(asked, int) or not file.first_number <= asked <= end:
            raise invalid(f"no record {asked} in {path}")
        number = asked
    elif kind == "TIME":
        seconds, nanoseconds = request.get("TimestampSec"), request.get("TimestampNSec")
        if seconds is None or nanoseconds is None:
            raise invalid("TimestampSec or TimestampNSec")
        since = seconds * 10**9 + nanoseconds
        number = file.first_number + bisect.bisect_left(file.records, since, key=lambda record: record.arrived)
    else:
        raise invalid(f"Type {kind!r}")
    return {"Location": _location(file, number)}


def get_records(store: Store, container: str, path: str, request: dict[str, Any]) -> dict[str, Any]:
    """GetRecords, from a location that Seek or GetRecords gave for this shard."""
    file = _shard(store, container, path)
    records = file.records or []
    try:
        inode, number = json.loads(base64.b64decode(request.get("Location", ""), validate=True))
    except (ValueError, TypeError, binascii.Error) as error:
        raise ApiError(400, -22, "IllegalLocationException: not a location") from error
    if inode != file.inode or not file.first_number <= number <= file.last_number + 1:
        raise ApiError(400, -22, f"IllegalLocationException: {number} of {path}")
    limit = request.get("Limit", MAX_RECORDS)
    if not isinstance(limit, int) or limit < 1:
        raise invalid(f"Limit {limit}")
    found: list[dict[str, Any]] = []
    size = 0
    for record in records[number - file.first_number :][:limit]:
        size += len(record.data) * 4 // 3 + 200
        if found and size > MAX_ANSWER:
            break
        found.append(_answer(record))
    number += len(found)
    behind = file.last_number + 1 - number
    waited = (store.now() - records[-behind].arrived) // 10**6 if behind else 0
    return {
        "NextLocation": _location(file, number),
        "MSecBehindLatest": max(waited, 0),
        "RecordsBehindLatest": behind,
        "Records": found,
    }


def _answer(record: Record) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "SequenceNumber": record.number,
        "ArrivalTimeSec": record.arrived // 10**9,
        "ArrivalTimeNSec": record.arrived % 10**9,
        "Data": base64.b64encode(record.data).decode(),
    }
    if record.client_info is not None:
        answer["ClientInfo"] = base64.b64encode(record.client_info).decode()
    if record.partition_key is not None:
        answer["PartitionKey"] = record.partition_key
    return answer


def _read_record(record: Any, stream: Stream) -> tuple[int, bytes, bytes | None, str | None]:
    try:
        data = base64.b64decode(record["Data"], validate=True)
        info = record.get("ClientInfo")
        client_info = None if info is None else base64.b64decode(info, validate=True)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise invalid(f"Data or ClientInfo: {error}") from error
    if len(data) > MAX_RECORD:
        raise invalid(f"a record of {len(data)} bytes")
    shard, key = record.get("ShardId"), record.get("PartitionKey")
    if shard is None and key is not None:
        shard = zlib.crc32(key.encode()) % stream.shards
    elif shard is None:
        shard, stream.next_shard = stream.next_shard % stream.shards, stream.next_shard + 1
    if not isinstance(shard, int) or not 0 <= shard < stream.shards:
        raise ApiError(200, -22, f"ShardIDOutOfRangeException: {shard}")
    return shard, data, client_info, key


def _stream(store: Store, container: str, path: str) -> tuple[Folder, Stream]:
    folder = store.find(container, path)
    if not isinstance(folder, Folder) or folder.stream is None:
        raise no_such_resource(path)
    return folder, folder.stream


def _shard(store: Store, container: str, path: str) -> File:
    *parents, name = split(path) or [""]
    _, stream = _stream(store, container, "/".join(parents))
    if not name.isdecimal() or int(name) >= stream.shards:
        raise ApiError(400, -22, f"ShardIDOutOfRangeException: {name}")
    file = store.find(container, path)
    if not isinstance(file, File):
        raise no_such_resource(path)
    return file


def _location(file: File, number: int) -> str:
    return base64.b64encode(json.dumps([file.inode, number]).encode()).decode()
