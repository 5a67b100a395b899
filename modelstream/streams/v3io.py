"""Streams in V3IO, through v3io-py.

(MLRun's stream pushers are not used: they turn bytes into text and drop failed records.)

A stream is a V3IO stream at `path/NAME`. Its item `modelstream-state` holds its epoch, the acknowledgements of groups
of readers, and the offsets up to which messages were trimmed. Trimmed messages are hidden; V3IO deletes them after the
stream's retention. Offsets are V3IO's sequence numbers, which count from 1.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from modelstream.base.names import PLAIN_NAME
from modelstream.clients.v3io import Container, V3ioAddress, condition_failed, item_of, rises
from modelstream.errors import ConfigurationError
from modelstream.messages.identity import BUCKETS
from modelstream.streams.contract import Message, StreamInfo, Streams
from modelstream.streams.v3io_records import V3ioReader, append

STATE = "modelstream-state"

FIRST_SECONDS = 5.0
"""How long, in seconds, a shard's first offset is remembered: it rises when V3IO deletes old messages, and asking for
it transfers the first message."""

IDLE_ASKS, IDLE_SECONDS = 20, 0.05
"""After this many checks that found no new messages, check at most this often: each check costs one request per shard,
and workers check every 10 ms. Without this, four idle workers took a whole core."""

_GROUP = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class _Described(msgspec.Struct):
    ShardCount: int


@dataclass
class _Version:
    """What a stream's version was, and how often it was the same when it was asked for."""

    number: int = -1
    unchanged: int = 0
    asked_at: float = 0.0


class V3ioStreams(Streams):
    """The streams below a path of a container.

    An example would need V3IO: `tests/contract/test_v3io_streams.py` runs on a stand-in for it.
    """

    first_offset: ClassVar[int] = 1
    all_or_none: ClassVar[bool] = False

    def __init__(self, url: str) -> None:
        self._container = Container(V3ioAddress.of(url))
        self._infos: dict[str, StreamInfo] = {}
        self._trimmed: dict[str, dict[int, int]] = {}
        self._readers: dict[tuple[str, int], V3ioReader] = {}
        self._firsts: dict[tuple[str, int], tuple[int, float]] = {}
        self._versions: dict[str, _Version] = {}

    def create(self, name: str, shards: int, epoch: int = 0) -> StreamInfo:
        if not PLAIN_NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} can't be the name of a stream", remedy="use letters, digits, - and _")
        if not 1 <= shards <= BUCKETS:
            raise ConfigurationError(f"a stream can't have {shards} shards", remedy=f"give 1 to {BUCKETS}")
        response = self._container.call(
            "stream",
            "create",
            also=[400, 409],
            stream_path=self._path(name),
            shard_count=shards,
            retention_period_hours=self._container.address.retention_hours,
        )
        if response.status_code == 400 and b"ResourceInUse" not in response.body:
            raise ConfigurationError(
                f"V3IO can't make the stream {self._where(name)}: {response.body[:300]!r}",
                remedy="give another path or number of shards",
            )
        # Whoever makes the stream, or is the first of ours to meet it, says which epoch it is of.
        self._write_state(name, {"epoch": epoch}, "not(exists(epoch))")
        self._infos.pop(name, None)
        info = self.describe(name)
        if (info.shards, info.epoch) != (shards, epoch):
            raise ConfigurationError(
                f"stream {self._where(name)} has {info.shards} shards and epoch {info.epoch}, not {shards} and {epoch}",
                remedy="give the same number of shards as before, or start over at another path",
            )
        return info

    def describe(self, name: str) -> StreamInfo:
        info = self._infos.get(name)
        if info is None:
            shards = None
            if PLAIN_NAME.fullmatch(name):
                (shards,) = self._count_shards([name])
            if shards is None:
                raise ConfigurationError(
                    f"no stream {self._where(name)}; there are: {', '.join(self.names()) or 'none'}",
                    remedy="run `python pipeline.py run` first, or give the right URL",
                )
            state = self._state(name)
            self._trimmed[name] = _numbers_of(state, "first", shards)
            info = self._infos[name] = StreamInfo(name, shards, state.get("epoch", 0))
        return info

    def names(self) -> list[str]:
        possible = [name for name in self._container.folders() if PLAIN_NAME.fullmatch(name)]
        counts = self._count_shards(possible)
        return [name for name, shards in zip(possible, counts, strict=True) if shards is not None]

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
        info = self.describe(name)
        for shard, _ in records:
            info.check(shard)
        numbers = append(self._container, self._path(name), records)
        self._versions.pop(name, None)  # what we appended ourselves is to be seen at once
        return numbers

    def read(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        return self._read(self._reader(name, shard), name, shard, offset, limit_messages, limit_bytes)

    def read_once(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        # By a reader of its own: `version` asks for the shards that are read, and would look at this one alone.
        once = V3ioReader(self._container, self._path(name), shard)
        return self._read(once, name, shard, offset, limit_messages, limit_bytes)

    def _read(
        self, reader: V3ioReader, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int
    ) -> list[Message]:
        self.describe(name).check(shard)
        offset = max(offset, self._trimmed[name].get(shard, self.first_offset))
        return reader.read(offset, limit_messages, limit_bytes)

    def range(self, name: str, shard: int) -> tuple[int, int]:
        self.describe(name).check(shard)
        return self._ranges(name, [shard])[shard]

    def ranges(self, name: str) -> dict[int, tuple[int, int]]:
        return self._ranges(name, range(self.describe(name).shards))

    def ack(self, group: str, name: str, offsets: Mapping[int, int]) -> None:
        info = self.describe(name)
        for shard in offsets:
            info.check(shard)
        for shard, offset in offsets.items():  # a condition holds for all attributes of a request, or for none
            attribute = f"{_attribute(group)}_{shard}"
            self._write_state(name, {attribute: offset}, rises(attribute, offset))

    def acked(self, group: str, name: str) -> dict[int, int]:
        info = self.describe(name)
        none = dict.fromkeys(range(info.shards), self.first_offset - 1)
        ours = _numbers_of(self._state(name), _attribute(group), info.shards)
        return none | (ours or self._acked_by_nuclio(group, info))

    def version(self, name: str) -> int:
        known = self._versions.setdefault(name, _Version())
        now = time.monotonic()
        if known.unchanged < IDLE_ASKS or now - known.asked_at >= IDLE_SECONDS:
            info = self.describe(name)
            read = [shard for stream, shard in self._readers if stream == name]
            number = sum(self._last_numbers(name, read or range(info.shards)).values())
            known.unchanged = known.unchanged + 1 if number == known.number else 0
            known.number, known.asked_at = number, now
        return known.number

    def trim(self, name: str, groups: Sequence[str], older_than_us: int) -> int:
        acked = [self.acked(group, name) for group in groups]
        if not acked:
            return 0
        trimmed = 0
        for shard, (first, end) in self.ranges(name).items():
            keep = min(end, min(offsets[shard] for offsets in acked) + 1)
            if keep > first:
                keep = min(keep, self._reader(name, shard).first_since(older_than_us, end))
            if keep > first and self._write_state(name, {f"first_{shard}": keep}, rises(f"first_{shard}", keep)):
                self._trimmed[name][shard] = keep
                trimmed += keep - first
        return trimmed

    def remove(self, name: str) -> None:
        if not PLAIN_NAME.fullmatch(name) or self._count_shards([name]) == [None]:
            return
        self._container.remove_folder(name)
        self._readers = {key: reader for key, reader in self._readers.items() if key[0] != name}
        self._firsts = {key: first for key, first in self._firsts.items() if key[0] != name}
        self._infos.pop(name, None)

    def close(self) -> None:
        self._container.close()

    def _path(self, name: str) -> str:
        return self._container.path(name)

    def _where(self, name: str) -> str:
        return f"{name!r} in v3io://{self._container.address.container}/{self._container.address.path}"

    def _count_shards(self, names: Sequence[str]) -> list[int | None]:
        """Return the number of shards of each name, None if it is not a stream."""
        calls = [("stream", "describe", {"stream_path": self._path(name)}) for name in names]
        return [
            None if response.status_code >= 400 else msgspec.json.decode(response.body, type=_Described).ShardCount
            for response in self._container.many(calls, also=[400, 404])
        ]

    def _state(self, name: str) -> dict[str, int]:
        response = self._container.call("kv", "get", also=[404], table_path=self._path(name), key=STATE)
        return {attribute: int(value["N"]) for attribute, value in (item_of(response) or {}).items() if "N" in value}

    def _write_state(self, name: str, attributes: Mapping[str, int], condition: str) -> bool:
        """Write attributes of the state if a condition holds; return whether it did."""
        response = self._container.call(
            "kv",
            "update",
            also=[400],
            table_path=self._path(name),
            key=STATE,
            attributes=attributes,
            condition=condition,
        )
        return not condition_failed(response)

    def _reader(self, name: str, shard: int) -> V3ioReader:
        return self._readers.setdefault((name, shard), V3ioReader(self._container, self._path(name), shard))

    def _last_numbers(self, name: str, shards: Iterable[int]) -> dict[int, int]:
        """Return the offset of the last message of shards, 0 for none."""
        return self._shard_attributes(name, shards, "__last_sequence_num")

    def _acked_by_nuclio(self, group: str, info: StreamInfo) -> dict[int, int]:
        """Return what Nuclio's trigger has committed for a consumer group: on a cluster it reads the stream."""
        attribute = f"__{group.replace('-', '_')}_committed_sequence_number"
        found = self._shard_attributes(info.name, range(info.shards), attribute)
        return {shard: number for shard, number in found.items() if number}

    def _shard_attributes(self, name: str, shards: Iterable[int], attribute: str) -> dict[int, int]:
        """Return a numeric attribute of each shard, 0 for a shard without one: a shard exists only once it has a
        message."""
        wanted = list(shards)
        calls = [
            ("kv", "get", {"table_path": self._path(name), "key": str(shard), "attribute_names": [attribute]})
            for shard in wanted
        ]
        items = [item_of(response) or {} for response in self._container.many(calls, also=[404])]
        return {
            shard: int(item[attribute]["N"]) if attribute in item else 0
            for shard, item in zip(wanted, items, strict=True)
        }

    def _ranges(self, name: str, shards: Iterable[int]) -> dict[int, tuple[int, int]]:
        result = {}
        for shard, last in self._last_numbers(name, shards).items():
            first = self._trimmed[name].get(shard, self.first_offset)
            if last >= first:
                first = max(first, self._first_stored(name, shard, last + 1))
            result[shard] = min(first, last + 1), last + 1
        return result

    def _first_stored(self, name: str, shard: int, end: int) -> int:
        first, known_at = self._firsts.get((name, shard), (0, -FIRST_SECONDS))
        if time.monotonic() - known_at >= FIRST_SECONDS:
            first = self._reader(name, shard).first_since(None, end)
            self._firsts[name, shard] = first, time.monotonic()
        return first


def _attribute(group: str) -> str:
    """Return the beginning of the attributes for a group's acknowledgements.

    >>> _attribute("event-handler")
    'acked_event_handler'
    """
    if not _GROUP.fullmatch(group):
        raise ConfigurationError(
            f"{group!r} can't be the name of a group of readers", remedy="use letters, digits, - and _"
        )
    return f"acked_{group.replace('-', '_')}"


def _numbers_of(state: Mapping[str, int], attribute: str, shards: int) -> dict[int, int]:
    """Return {shard: number} of the attributes `ATTRIBUTE_SHARD`."""
    return {shard: state[f"{attribute}_{shard}"] for shard in range(shards) if f"{attribute}_{shard}" in state}
