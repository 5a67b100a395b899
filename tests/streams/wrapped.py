"""Streams that pass every call on to others: a test overrides what it wants to see or to spoil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelstream.streams import Message, StreamInfo, Streams


class WrappedStreams(Streams):
    """See the module."""

    def __init__(self, streams: Streams) -> None:
        self.wrapped = streams

    def create(self, name: str, shards: int, epoch: int = 0) -> StreamInfo:
        return self.wrapped.create(name, shards, epoch)

    def describe(self, name: str) -> StreamInfo:
        return self.wrapped.describe(name)

    def names(self) -> list[str]:
        return self.wrapped.names()

    def expect_appends(self) -> None:
        self.wrapped.expect_appends()

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
        return self.wrapped.append(name, records)

    def read(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        return self.wrapped.read(name, shard, offset, limit_messages, limit_bytes)

    def range(self, name: str, shard: int) -> tuple[int, int]:
        return self.wrapped.range(name, shard)

    def ranges(self, name: str) -> dict[int, tuple[int, int]]:
        return self.wrapped.ranges(name)

    def rows(self, name: str, parts: Mapping[int, tuple[int, int]]) -> int:
        return self.wrapped.rows(name, parts)

    def ack(self, group: str, name: str, offsets: Mapping[int, int]) -> None:
        self.wrapped.ack(group, name, offsets)

    def acked(self, group: str, name: str) -> dict[int, int]:
        return self.wrapped.acked(group, name)

    def version(self, name: str) -> int:
        return self.wrapped.version(name)

    def trim(self, name: str, groups: Sequence[str], older_than_us: int) -> int:
        return self.wrapped.trim(name, groups, older_than_us)

    def remove(self, name: str) -> None:
        self.wrapped.remove(name)

    def close(self) -> None:
        self.wrapped.close()
