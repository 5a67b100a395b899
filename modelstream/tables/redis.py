"""Tables in Redis. What a person sees in `redis-cli`, after the prefix of the URL:

| key | type | content |
|---|---|---|
| `about` | hash | `version`, `epoch`; of the features `columns`, `definition`, and `features`, the table's other name |
| `lookup:NAME` | hash | a lookup table: value by key, empty for null |
| `features` | hash | the users' rows by key: position, then JSON (see `redis_rows`); or the table's other name |
| `features:keys` | sorted set | their keys in order |
| `shards` | hash | by `EPOCH:SHARD` the offset, then the counters as JSON |
| `watermarks:EPOCH:SHARD` | hash | by `BUCKET ORIGIN` the position |
| `inputs`, `inputs:progress` | hash | by origin what it is, and how many lines were sent, then the rest |
| `inputs:order` | list | their origins as they came |

A commit is one script, so it is stored completely or not at all. It reports when the server has lost something that it
had confirmed. Whether a commit survives a crash of the server depends on the server's settings: `appendonly yes` and
`appendfsync always` (docs/delivery.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import redis

from modelstream.base.names import PLAIN_NAME
from modelstream.errors import ConfigurationError
from modelstream.messages.identity import MAX_EPOCH
from modelstream.tables import redis_scripts as scripts
from modelstream.tables.contract import (
    FEATURES,
    FeatureTable,
    Input,
    InputTable,
    LookupTable,
    Tables,
    check_table_name,
)
from modelstream.tables.lookup_cache import CachedLookup
from modelstream.tables.redis_client import PAIRS, RedisAddress, Server
from modelstream.tables.redis_features import RedisFeatureTable, features_name
from modelstream.tables.redis_rows import WIDTH, position_of, stamped

OWN_KEYS = ("about", "inputs", "lookup", "registry", "shards", "watermarks")
"""Beginnings of our keys, besides the name of the table of features, and a name that other stores refuse. Tables can't
have these names."""
_KEYS = (("about",), ("shards",), ("inputs",), ("inputs", "order"), ("inputs", "progress"))
_SHARD = re.compile(r"\d+:\d+")
_LOOKUP_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), ("value", pa.float64())])


class RedisLookupTable(LookupTable):
    """Values by key in a hash. See `LookupTable`.

    An example would need a server: `tests/contract/test_redis_tables.py` has one.
    """

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.key = server.key("lookup", name)

    def load(self, batches: Iterable[pa.RecordBatch]) -> int:
        count = 0
        # One transaction, sent and carried out as a whole: 90,000 rows keep others waiting for a tenth of a second.
        with self.server.client.pipeline(transaction=True) as pipeline:
            for batch in batches:
                keys, values = batch[0].to_pylist(), batch[1].to_pylist()
                for first in range(0, len(keys), PAIRS):
                    part = zip(keys[first : first + PAIRS], values[first : first + PAIRS], strict=True)
                    found = {key: "" if value is None else repr(value) for key, value in part}
                    pipeline.hset(self.key, mapping=found)
                count += batch.num_rows
            self.server.call(lambda _: pipeline.execute())
        return count

    def get_many(self, keys: Sequence[str]) -> list[float | None]:
        if not keys:
            return []
        values = self.server.call(lambda client: client.hmget(self.key, list(keys)))
        return [self._number(value) for value in values]

    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        found = self.server.call(lambda client: dict(client.hscan_iter(self.key, count=PAIRS)))
        keys = sorted(key for key in found if key > after.encode())
        for first in range(0, len(keys), batch_size):
            part = keys[first : first + batch_size]
            values = [self._number(found[key]) for key in part]
            yield pa.RecordBatch.from_arrays(
                [pa.array([key.decode() for key in part], pa.string()), pa.array(values, pa.float64())],
                schema=_LOOKUP_SCHEMA,
            )

    def count(self) -> int:
        return int(self.server.call(lambda client: client.hlen(self.key)))

    def _number(self, value: bytes | None) -> float | None:
        try:
            return float(value) if value else None
        except ValueError as error:
            raise self.server.broken(f"a value of {self.key}", error) from None


class RedisInputTable(InputTable):
    """Inputs by origin, in two hashes and a list. See `InputTable`.

    An example would need a server: `tests/contract/test_redis_tables.py` has one.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._inputs, self._order, self._progress = (
            server.key("inputs"),
            server.key("inputs", "order"),
            server.key("inputs", "progress"),
        )

    def register(self, origin: str, record: Input) -> Input:
        described = msgspec.json.encode({"kind": record.kind, "path": record.path, "options": record.options})
        keys = [self._inputs, self._order, self._progress]
        progress = _progress(record.lines, record.bytes, record.digest, record.finished)
        return self._input(origin, *self.server.run(scripts.REGISTER, keys, origin, described, progress))

    def get(self, origin: str) -> Input | None:
        return next(iter(self._found([origin])), None)

    def save_progress(self, origin: str, lines: int, bytes: int, digest: str, finished: bool) -> None:
        progress = _progress(lines, bytes, digest, finished)
        if not self.server.run(scripts.PROGRESS, [self._progress], origin, progress):
            raise ConfigurationError(f"there is no input {origin!r}", remedy="register it first")

    def all(self) -> list[Input]:
        origins = self.server.call(lambda client: client.lrange(self._order, 0, -1))
        return self._found([origin.decode() for origin in origins])

    def _found(self, origins: list[str]) -> list[Input]:
        if not origins:
            return []
        with self.server.client.pipeline(transaction=True) as pipeline:
            pipeline.hmget(self._inputs, origins)
            pipeline.hmget(self._progress, origins)
            described, progress = self.server.call(lambda _: pipeline.execute())
        found = zip(origins, described, progress, strict=True)
        return [self._input(origin, what, sent) for origin, what, sent in found if what is not None]

    def _input(self, origin: str, described: bytes, progress: bytes) -> Input:
        try:
            content = msgspec.json.decode(described) | msgspec.json.decode(progress[WIDTH + 1 :])
            return msgspec.convert(content | {"origin": origin, "lines": position_of(progress)}, Input)
        except (ValueError, TypeError) as error:
            raise self.server.broken(f"the input {origin!r}", error) from None


class RedisTables(Tables):
    """The tables behind `redis://host:port/db?prefix=NAME`; see the module.

    An example would need a server: `tests/contract/test_redis_tables.py` has one.
    """

    def __init__(self, url: str) -> None:
        self.server = Server(RedisAddress.of(url))

    def epoch(self) -> int:
        return int(self.server.call(lambda client: client.hget(self.server.key("about"), "epoch")) or 0)

    def raise_epoch(self) -> int:
        number = int(self.server.run(scripts.RAISE_EPOCH, [self.server.key("about")], MAX_EPOCH))
        if number < 0:
            raise ConfigurationError(
                f"{self.server.address}: epoch {MAX_EPOCH} is the last one possible",
                remedy="start over with another prefix",
            )
        return number

    def definition(self, made: str = "") -> str:
        about = self.server.key("about")
        if made:
            self.server.call(lambda client: client.hsetnx(about, "definition", made))
        kept: bytes | None = self.server.call(lambda client: client.hget(about, "definition"))
        return (kept or b"").decode()

    def lookup(self, name: str) -> LookupTable:
        check_table_name(name, {"registry", FEATURES})
        return CachedLookup(RedisLookupTable(self.server, name))

    def features(self, row_schema: pa.Schema, name: str = FEATURES) -> FeatureTable:
        check_table_name(name, OWN_KEYS)
        return RedisFeatureTable(self.server, name, row_schema, self.epoch())

    def inputs(self) -> InputTable:
        return RedisInputTable(self.server)

    def remove(self) -> None:
        server = self.server
        for kind, name in (("lookup", PLAIN_NAME), ("watermarks", _SHARD)):
            start = server.key(kind, "")
            for keys in self._scanned(f"{start}*"):
                # Another prefix may begin with ours.
                ours = [key for key in keys if name.fullmatch(key.decode("utf-8", "replace").removeprefix(start))]
                if ours:
                    server.call(partial(_unlink, ours))
        features = features_name(server)
        parts = (*_KEYS, (features,), (features, "keys"))
        server.call(partial(_unlink, [server.key(*part) for part in parts]))
        server.forget()

    def _scanned(self, pattern: str) -> Iterator[list[bytes]]:
        """Yield the keys that match a pattern, as the server finds them: others get their turn between."""
        cursor, begun = 0, False
        while cursor or not begun:
            cursor, keys = self.server.call(partial(_scan, cursor, pattern))
            begun = True
            yield keys

    def close(self) -> None:
        self.server.client.close()


def _scan(cursor: int, pattern: str, client: redis.Redis) -> Any:
    return client.scan(cursor, pattern, PAIRS)


def _unlink(keys: Sequence[Any], client: redis.Redis) -> None:
    client.unlink(*keys)


def _progress(lines: int, bytes: int, digest: str, finished: bool) -> bytes:
    return stamped(lines, {"bytes": bytes, "digest": digest, "finished": finished})
