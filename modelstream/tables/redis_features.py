"""The table of features in Redis. A commit is one script, so it is stored completely or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import redis

from modelstream.errors import ConfigurationError, LostStateError
from modelstream.messages.identity import Checkpoint
from modelstream.tables import redis_scripts as scripts
from modelstream.tables.contract import FEATURES, FeatureTable
from modelstream.tables.redis_client import PAIRS, Server
from modelstream.tables.redis_rows import WIDTH, batch_of, check_types, fixed, position_of, stamped, values_of

ROWS_A_COMMIT = 10_000
"""Most rows in one script, which keeps other clients waiting for about 70 ms. Further rows go first, in scripts of
their own."""

_pack = msgspec.msgpack.Encoder().encode


def features_name(server: Server) -> str:
    """Return what the table of features is called on a server.

    Raises as `Server.call` does. An example would need a server: `tests/contract/test_redis_tables.py` has one.
    """
    found: bytes | None = server.call(lambda client: client.hget(server.key("about"), FEATURES))
    return found.decode() if found else FEATURES


class RedisFeatureTable(FeatureTable):
    """Rows and checkpoints in hashes, written by one script. See `FeatureTable`.

    An example would need a server: `tests/contract/test_redis_tables.py` has one.
    """

    def __init__(self, server: Server, name: str, schema: pa.Schema, epoch: int) -> None:
        check_types(schema)
        self.server = server
        self.schema = schema
        self.epoch = epoch
        self._rows, self._keys, self._shards = (
            server.key(name),
            server.key(name, "keys"),
            server.key("shards"),
        )
        self._check(name)
        # What this instance knows to be stored, by shard: only the rest has to be written.
        self._stored: dict[int, set[tuple[str, int, int]]] = {}
        self._offsets: dict[int, bytes] = {}

    def get_many(self, keys: Sequence[str]) -> pa.RecordBatch:
        wanted = list(dict.fromkeys(keys))
        parts = [wanted[first : first + PAIRS] for first in range(0, len(wanted), PAIRS)]
        with self.server.client.pipeline(transaction=False) as pipeline:
            for part in parts:
                pipeline.hmget(self._rows, part)
            answers = self.server.call(lambda _: pipeline.execute()) if parts else []
        values = [value for answer in answers for value in answer]
        found = [(key, value) for key, value in zip(wanted, values, strict=True) if value is not None]
        return self._batch([key for key, _ in found], [value for _, value in found])

    def get(self, key: str) -> pa.RecordBatch:
        return self.get_many([key])

    def checkpoint(self, shard: int) -> Checkpoint:
        self._stored.pop(shard, None)
        self._offsets.pop(shard, None)
        with self.server.client.pipeline(transaction=True) as pipeline:
            pipeline.hget(self._shards, f"{self.epoch}:{shard}")
            pipeline.hgetall(self._watermarks(self.epoch, shard))
            pipeline.hkeys(self._shards)
            row, marks, shards = self.server.call(lambda _: pipeline.execute())
        result = Checkpoint()
        if row is None:
            self._inherit(result, shards)
            return result
        try:
            result.counters = msgspec.json.decode(row[WIDTH + 1 :], type=dict[str, int])
            result.offset = position_of(row)
            self._add(result, marks)
        except ValueError as error:
            raise self.server.broken(f"what is stored of shard {shard}", error) from None
        self._offsets[shard] = fixed(result.offset)
        self._stored[shard] = set(result.watermarks.items())
        return result

    def commit(self, shard: int, rows: pa.RecordBatch, checkpoint: Checkpoint) -> bool:
        marks = set(checkpoint.watermarks.items())
        risen = marks - self._stored.pop(shard, set())
        offset, expected = fixed(checkpoint.offset), self._offsets.get(shard, b"")
        values = list(values_of(rows.select(self.schema.names)).items())
        while len(values) > ROWS_A_COMMIT:
            self._run(shard, expected, b"", values[:ROWS_A_COMMIT], [])
            del values[:ROWS_A_COMMIT]
        written = [(f"{bucket} {origin}", fixed(position)) for origin, bucket, position in risen]
        done = self._run(shard, expected, stamped(checkpoint.offset, checkpoint.counters), values, written)
        if done > 0:
            self._stored[shard], self._offsets[shard] = marks, offset
        return done > 0

    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        begin = b"(" + after.encode() if after else b"-"
        while True:
            keys, values = self.server.run(scripts.SCAN, [self._rows, self._keys], begin, batch_size)
            if keys:
                yield self._batch([key.decode() for key in keys], values)
            if len(keys) < batch_size:
                return
            begin = b"(" + keys[-1]

    def count(self) -> int:
        return int(self.server.call(lambda client: client.hlen(self._rows)))

    def _run(
        self, shard: int, expected: bytes, after: bytes, rows: list[tuple[str, bytes]], marks: list[tuple[str, bytes]]
    ) -> int:
        keys = [self._rows, self._keys, self._watermarks(self.epoch, shard), self._shards]
        # The client would send an argument for each in pieces of 6 KB: 33 for 250 rows, and a third of a flush's CPU.
        # Text, since Redis' reader of MessagePack doesn't know its type for bytes.
        packed = [_pack([text for key, value in pairs for text in (key, value.decode())]) for pairs in (rows, marks)]
        done: int = self.server.run(scripts.COMMIT, keys, f"{self.epoch}:{shard}", expected, after, *packed)
        if done < 0:
            raise LostStateError(
                f"{self.server.address} has lost data that it had confirmed: "
                f"offset {int(expected)} of shard {shard} is gone",
                remedy="restore the server's data up to that offset, and the shard continues; or restore "
                "streams, tables and logs from the same moment. A server with `appendonly yes` and "
                "`appendfsync always` keeps what it confirms",
            )
        return done

    def _watermarks(self, epoch: int, shard: int) -> str:
        return self.server.key("watermarks", epoch, shard)

    def _inherit(self, result: Checkpoint, shards: Iterable[bytes]) -> None:
        places = [tuple(map(int, name.split(b":"))) for name in shards]
        earlier = [place for place in places if place[0] < self.epoch]
        with self.server.client.pipeline(transaction=True) as pipeline:
            for epoch, shard in earlier:
                pipeline.hgetall(self._watermarks(epoch, shard))
            found = self.server.call(lambda _: pipeline.execute()) if earlier else []
        for marks in found:
            self._add(result, marks)

    @staticmethod
    def _add(result: Checkpoint, marks: dict[bytes, bytes]) -> None:
        for name, value in marks.items():
            bucket, _, origin = name.decode().partition(" ")
            position = position_of(value)
            if position > result.watermarks.get(origin, int(bucket)):
                result.watermarks.set(origin, int(bucket), position)

    def _batch(self, keys: Sequence[str], values: Sequence[bytes]) -> pa.RecordBatch:
        try:
            return batch_of(keys, values, self.schema)
        except ValueError as error:
            raise self.server.broken("a row of the features", error) from None

    def _check(self, name: str) -> None:
        columns = msgspec.json.encode([[field.name, str(field.type)] for field in self.schema])
        about = self.server.key("about")

        def ask(client: redis.Redis) -> Any:
            if name != FEATURES and not client.hexists(about, "columns"):
                client.hsetnx(about, FEATURES, name)
            client.hsetnx(about, "columns", columns)
            return client.hget(about, "columns")

        stored = self.server.call(ask)
        if (kept := features_name(self.server)) != name:
            raise ConfigurationError(
                f"{self.server.address} has its features in the table {kept!r}, not in {name!r}",
                remedy=f"name it {kept} in project.yaml again, or start over with another prefix",
            )
        if stored != columns:
            found, expected = (list(map(tuple, msgspec.json.decode(text))) for text in (stored, columns))
            differing = sorted({name for name, _ in set(found) ^ set(expected)}) or ["their order"]
            raise ConfigurationError(
                f"{self.server.address} was made for another use case (differing columns: {', '.join(differing)})",
                remedy="go back to the use case that it was made for, or start over with another prefix",
            )
