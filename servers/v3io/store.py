"""Part of a test tool (see README.md): the containers in memory, and the journal that brings them back.

Every change is one entry of the journal, written before the response is sent. So what a client was told survives a kill
of this process (but not a power failure: nothing is synced). An incomplete entry is dropped.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from .errors import ApiError, no_such_file
from .values import Attributes, Time

FILE, SHARD = 1, 3
_FRAME = struct.Struct("<II")
_HOUR = 3600 * 10**9


@dataclass(slots=True)
class Record:
    """A record of a shard."""

    number: int
    arrived: int
    data: bytes
    client_info: bytes | None = None
    partition_key: str | None = None


@dataclass(slots=True)
class File:
    """An item, an object or a shard: all are files with attributes."""

    created: int
    inode: int
    modified: int = 0
    attributes: Attributes = field(default_factory=dict)
    body: bytes = b""
    records: list[Record] | None = None
    last_number: int = 0

    @property
    def first_number(self) -> int:
        """The sequence number of a shard's first record that is left."""
        return self.last_number + 1 - len(self.records or ())


@dataclass(slots=True)
class Stream:
    """What a folder that is a stream has."""

    shards: int
    hours: int
    next_shard: int = 0


class Folder:
    """A directory, a table or a stream."""

    def __init__(self) -> None:
        self.entries: dict[str, File | Folder] = {}
        self.stream: Stream | None = None
        self.made = time.time()
        self._slices: list[list[str]] | None = None

    def slices(self) -> list[list[str]]:
        """Return the names of the files, by the slice that their sharding key is on, sorted in each."""
        if self._slices is None:
            self._slices = [[] for _ in range(4)]
            for name, entry in self.entries.items():
                if isinstance(entry, File):
                    self._slices[slice_of(name, 4)].append(name)
            for names in self._slices:
                names.sort()
        return self._slices

    def put(self, name: str, entry: File | Folder) -> None:
        if name not in self.entries:
            self._slices = None
        self.entries[name] = entry

    def pop(self, name: str) -> None:
        del self.entries[name]
        self._slices = None


class Store:
    """The containers, and the journal's file."""

    def __init__(self, containers: Iterable[str], path: Path) -> None:
        self.containers = {name: Folder() for name in containers}
        self._clock_ahead = 0
        self._last_time = 0
        self._inodes = 0
        path.touch()
        end = 0
        for entry, after in _entries(path.read_bytes()):
            self._apply(entry)
            end = after
        self._journal = path.open("r+b", buffering=0)
        self._journal.seek(end)
        self._journal.truncate()

    def now(self) -> int:
        """Return nanoseconds since 1970, more at every call."""
        self._last_time = max(self._last_time + 1, time.time_ns() + self._clock_ahead)
        return self._last_time

    def set_clock_ahead(self, nanoseconds: int) -> None:
        """Put the clock ahead, or back to what it is."""
        if nanoseconds != self._clock_ahead:
            self._clock_ahead, self._last_time = nanoseconds, 0

    def find(self, container: str, path: str) -> File | Folder | None:
        """Return what is at a path of a container, None for nothing."""
        if container not in self.containers:
            raise ApiError(404, -2, "Container not found")
        entry: File | Folder | None = self.containers[container]
        for part in split(path):
            entry = entry.entries.get(part) if isinstance(entry, Folder) else None
        return entry

    def folder(self, container: str, path: str) -> Folder:
        """Return the folder at a path; 404 if there is none."""
        found = self.find(container, path)
        if not isinstance(found, Folder):
            raise no_such_file(path)
        return found

    def change_file(self, container: str, path: str, attributes: Attributes, body: bytes) -> File:
        """Give a file its attributes and body; make it and its folders if they aren't there."""
        self.find(container, "")
        times = {name: tuple(value) for name, value in attributes.items() if isinstance(value, Time)}
        plain = {name: value for name, value in attributes.items() if name not in times}
        self._do(["file", container, path, plain, times, body, self.now()])
        found = self.find(container, path)
        assert isinstance(found, File)
        return found

    def make_folder(self, container: str, path: str) -> None:
        self.find(container, "")
        self._do(["folder", container, path])

    def make_stream(self, container: str, path: str, shards: int, hours: int) -> None:
        self.find(container, "")
        self._do(["stream", container, path, shards, hours])

    def delete(self, container: str, path: str) -> None:
        self._do(["delete", container, path])

    def append(self, container: str, path: str, records: list[tuple[int, bytes, bytes | None, str | None]]) -> None:
        """Append (shard, data, client info, partition key) to a stream's shards, and drop what is too old."""
        self._do(["records", container, path, self.now(), records])

    def _do(self, entry: list[Any]) -> None:
        self._apply(entry)
        payload = msgspec.msgpack.encode(entry)
        self._journal.write(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)

    def _apply(self, entry: list[Any]) -> None:
        kind, container, path, *rest = entry
        parts = split(path)
        parent = self.containers.setdefault(container, Folder())
        for part in parts[:-1] if kind in ("file", "delete") else parts:
            folder = parent.entries.get(part)
            if not isinstance(folder, Folder):
                folder = Folder()
                parent.put(part, folder)
            parent = folder
        if kind == "file":
            attributes, times, body, moment = rest
            file = parent.entries.get(parts[-1])
            if not isinstance(file, File):
                file = self._new_file(moment)
                parent.put(parts[-1], file)
            file.attributes = attributes | {name: Time(value) for name, value in times.items()}
            file.body, file.modified = body, moment
        elif kind == "delete":
            parent.pop(parts[-1])
        elif kind == "stream":
            shards, hours = rest
            parent.stream = Stream(shards, hours, parent.stream.next_shard if parent.stream else 0)
        elif kind == "records":
            self._append(parent, *rest)

    def _append(self, folder: Folder, moment: int, records: list[Any]) -> None:
        assert folder.stream is not None
        for shard, data, client_info, key in records:
            file = folder.entries.get(str(shard))
            if not isinstance(file, File):
                file = self._new_file(moment)
                file.records = []
                folder.put(str(shard), file)
            assert file.records is not None
            file.last_number += 1
            file.modified = moment
            file.records.append(Record(file.last_number, moment, data, client_info, key))
            oldest = moment - folder.stream.hours * _HOUR
            if file.records[0].arrived < oldest:
                file.records = [record for record in file.records if record.arrived >= oldest]

    def _new_file(self, moment: int) -> File:
        self._inodes += 1
        return File(moment, self._inodes)


def split(path: str) -> list[str]:
    """Return the parts of a path; doubled, leading and trailing slashes mean nothing."""
    return [part for part in path.split("/") if part]


def slice_of(name: str, slices: int) -> int:
    """Return the slice of a file: that of its sharding key, which is what stands before the first period."""
    return zlib.crc32(name.partition(".")[0].encode()) % slices


def _entries(journal: bytes) -> Iterator[tuple[list[Any], int]]:
    """Yield the whole entries of a journal, and where each ends."""
    at = 0
    while at + _FRAME.size <= len(journal):
        size, crc = _FRAME.unpack_from(journal, at)
        payload = journal[at + _FRAME.size : at + _FRAME.size + size]
        if len(payload) < size or zlib.crc32(payload) != crc:
            return
        at += _FRAME.size + size
        yield msgspec.msgpack.decode(payload), at
