"""Tables of V3IO, by v3io-py: each a NoSQL table below the URL's path, which v3io-frames, Spark and Presto can read.

`registry` has the epoch, and the columns and the definition of the features, `inputs` the inputs, `features` a row for
every user, and NAME the lookup table NAME (attributes `key` and `value`). See `v3io_features` for what each shard has
applied. V3IO has no transactions and no call for several items. So a commit is many requests in flight, each with the
condition that its position rises: any of them may be repeated, or arrive late.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from modelstream.clients.v3io import Container, V3ioAddress, condition_failed, item_of, rises
from modelstream.errors import ConfigurationError
from modelstream.messages.identity import MAX_EPOCH
from modelstream.tables import v3io_frames
from modelstream.tables.contract import FEATURES, FeatureTable, Input, InputTable, LookupTable, Tables, check_table_name
from modelstream.tables.lookup_cache import CachedLookup
from modelstream.tables.v3io_features import V3ioFeatureTable
from modelstream.tables.v3io_items import count_items, make_schema, scan_sorted
from modelstream.tables.v3io_rows import (
    FLOATS,
    attribute_type,
    attributes_of,
    batch_of,
    check_columns,
    item_name,
    read_value,
    text_value,
)

REGISTRY, INPUTS = "registry", "inputs"
KEY, VALUE = "key", "value"

SAME = 1e-9
"""If a number differs from the exact value beside it by more than this share, others have written it."""

_LOOKUP_SCHEMA = pa.schema([pa.field(KEY, pa.string(), nullable=False), (VALUE, pa.float64())])


class V3ioLookupTable(LookupTable):
    """Items with `key` and `value`, also those that v3io-frames wrote (index column `key`).

    A load only writes rows that are missing or different: every start loads the table again, and 90,000 puts take 20 s,
    while reading them takes 2 s. With V3IO_FRAMESD v3io-frames writes them, in bulk. A load that is interrupted may
    have written some of its rows; doing it again writes the others.

    An example would need V3IO: `tests/contract/test_v3io_tables.py` runs on a stand-in for it.
    """

    def __init__(self, container: Container, name: str) -> None:
        self._container = container
        self._name = name
        self._has_schema = False

    def load(self, batches: Iterable[pa.RecordBatch]) -> int:
        whole = [batch.select([KEY, VALUE]) for batch in batches]  # before the first put: reading them may fail
        if not self._has_schema:
            make_schema(self._container, self._name, _LOOKUP_SCHEMA)
            self._has_schema = True
        stored = {key: value for batch in self.scan() for key, value in _pairs(batch)}
        rows: dict[str, dict[str, Any]] = {}
        for batch in whole:
            attributes = attributes_of(pa.RecordBatch.from_arrays(batch.columns, schema=_LOOKUP_SCHEMA))
            for (key, value), row in zip(_pairs(batch), attributes, strict=True):
                if key in rows or key not in stored or stored[key] != value:
                    rows[key] = row
        if v3io_frames.framesd():
            self._write_in_bulk(rows)
        table = self._container.path(self._name)
        puts = (
            ("kv", "put", {"table_path": table, "key": item_name(key), "attributes": row}) for key, row in rows.items()
        )
        for _ in self._container.many(puts):
            pass
        return sum(batch.num_rows for batch in whole)

    def _write_in_bulk(self, rows: dict[str, dict[str, Any]]) -> None:
        """Write rows through v3io-frames, and remove them from `rows`; keys that can't be the name of an item stay."""
        bulk = {key: row for key, row in rows.items() if item_name(key) == key}
        if not bulk:
            return
        v3io_frames.write(self._container, self._name, KEY, [VALUE, FLOATS], bulk)
        last = next(reversed(bulk))
        where = {"table_path": self._container.path(self._name), "key": last, "attribute_names": [FLOATS]}
        item = item_of(self._container.call("kv", "get", also=[404], **where)) or {}
        if read_value(item.get(FLOATS)) != bulk[last][FLOATS]:
            raise ConfigurationError(
                f"v3io-frames at {v3io_frames.framesd()} reports that it wrote {self._container.path(self._name)}, "
                "but the table isn't there",
                remedy=f"make {v3io_frames.FRAMESD} and V3IO_API name services of the same V3IO",
            )
        for key in bulk:
            del rows[key]

    def get_many(self, keys: Sequence[str]) -> list[float | None]:
        distinct = list(dict.fromkeys(keys))
        table = self._container.path(self._name)
        wanted = [VALUE, FLOATS]
        gets = (
            ("kv", "get", {"table_path": table, "key": item_name(key), "attribute_names": wanted}) for key in distinct
        )
        items = [item_of(response) or {} for response in self._container.many(gets, also=[404])]
        values = dict(zip(distinct, _exact(items), strict=True))
        return [values[key] for key in keys]

    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        return scan_sorted(self._container, self._name, _LOOKUP_SCHEMA, batch_size, _lookup_rows, after)

    def count(self) -> int:
        return count_items(self._container, self._name, KEY)


class V3ioInputTable(InputTable):
    """Items by origin, as JSON in the attribute `record` beside what is compared or looked at.

    An example would need V3IO: `tests/contract/test_v3io_tables.py` runs on a stand-in for it.
    """

    def __init__(self, container: Container) -> None:
        self._container = container

    def register(self, origin: str, record: Input) -> Input:
        attributes = {
            "origin": text_value(origin),
            "registered": time.time_ns(),
            "kind": text_value(record.kind),
            "path": text_value(record.path),
            "options": text_value(msgspec.json.encode(record.options).decode()),
            **_progress(record.lines, record.bytes, record.digest, record.finished),
        }
        where = {"table_path": self._container.path(INPUTS), "key": item_name(origin)}
        response = self._container.call(
            "kv", "put", also=[400], attributes=attributes, condition="not(exists(registered))", **where
        )
        condition_failed(response)
        stored = self.get(origin)
        assert stored is not None
        return stored

    def get(self, origin: str) -> Input | None:
        where = {"table_path": self._container.path(INPUTS), "key": item_name(origin)}
        item = item_of(self._container.call("kv", "get", also=[404], **where))
        return None if item is None or "registered" not in item else _input_of(item)

    def save_progress(self, origin: str, lines: int, bytes: int, digest: str, finished: bool) -> None:
        response = self._container.call(
            "kv",
            "update",
            also=[400],
            table_path=self._container.path(INPUTS),
            key=item_name(origin),
            attributes=_progress(lines, bytes, digest, finished),
            condition=f"exists(lines) and lines <= {lines}",
        )
        if condition_failed(response) and self.get(origin) is None:
            raise ConfigurationError(f"there is no input {origin!r}", remedy="register it first")

    def all(self) -> list[Input]:
        items = [item for page in self._container.scan(INPUTS) for item in page if "registered" in item]
        return [_input_of(item) for item in sorted(items, key=lambda item: int(item["registered"]["N"]))]


class V3ioTables(Tables):
    """The tables below a path of a container.

    An example would need V3IO: `tests/contract/test_v3io_tables.py` runs on a stand-in for it.
    """

    def __init__(self, url: str) -> None:
        self._container = Container(V3ioAddress.of(url))

    def epoch(self) -> int:
        item = self._registered("epoch")
        return int(item["number"]["N"]) if item else 0

    def raise_epoch(self) -> int:
        while True:
            number = self.epoch() + 1
            if number > MAX_EPOCH:
                raise ConfigurationError(
                    f"{self._container.path()}: no epoch follows {MAX_EPOCH}", remedy="start over at another path"
                )
            if self._register("epoch", {"number": number}, rises("number", number)):
                return number

    def definition(self, made: str = "") -> str:
        if made:
            self._register("definition", {"text": made}, "not(exists(text))")
        item = self._registered("definition")
        return str(item["text"]["S"]) if item else ""

    def lookup(self, name: str) -> LookupTable:
        check_table_name(name, {REGISTRY, INPUTS, FEATURES, f"{FEATURES}-shards"})
        return CachedLookup(V3ioLookupTable(self._container, name))

    def features(self, row_schema: pa.Schema, name: str = FEATURES) -> FeatureTable:
        check_table_name(name, {REGISTRY, INPUTS})
        check_columns(row_schema)
        columns = {field.name: attribute_type(field) for field in row_schema}
        text = msgspec.json.encode(columns).decode()
        if self._register(name, {"columns": text}, "not(exists(columns))"):
            make_schema(self._container, name, row_schema)
        item = self._registered(name)
        found = msgspec.json.decode(item["columns"]["S"], type=dict[str, str]) if item else {}
        if list(found.items()) != list(columns.items()):
            differing = sorted({name for name, _ in found.items() ^ columns.items()}) or ["their order"]
            raise ConfigurationError(
                f"{self._container.path(name)} was made for another use case "
                f"(differing columns: {', '.join(differing)})",
                remedy="go back to the use case that it was made for, or begin anew at another path",
            )
        return V3ioFeatureTable(self._container, name, row_schema, self.epoch())

    def inputs(self) -> InputTable:
        return V3ioInputTable(self._container)

    def remove(self) -> None:
        names = self._container.folders()
        described = (("stream", "describe", {"stream_path": self._container.path(name)}) for name in names)
        answers = list(self._container.many(described, also=[400, 404]))
        for name, answer in zip(names, answers, strict=True):
            if answer.status_code >= 400:  # not a stream: they may be at the same path
                self._container.remove_folder(name)

    def close(self) -> None:
        self._container.close()

    def _registered(self, name: str) -> dict[str, Any] | None:
        where = {"table_path": self._container.path(REGISTRY), "key": name}
        return item_of(self._container.call("kv", "get", also=[404], **where))

    def _register(self, name: str, attributes: dict[str, Any], condition: str) -> bool:
        """Write attributes of an item of the registry if a condition holds; return whether it did."""
        where = {"table_path": self._container.path(REGISTRY), "key": name}
        response = self._container.call("kv", "update", also=[400], attributes=attributes, condition=condition, **where)
        return not condition_failed(response)


def _progress(lines: int, size: int, digest: str, finished: bool) -> dict[str, Any]:
    return {"lines": lines, "bytes": size, "digest": digest, "finished": finished}


def _input_of(item: dict[str, Any]) -> Input:
    values = {name: read_value(typed) for name, typed in item.items()}
    return Input(
        origin=values["origin"],
        kind=values["kind"],
        path=values["path"],
        options=msgspec.json.decode(values["options"]),
        lines=values["lines"],
        bytes=values["bytes"],
        digest=values["digest"],
        finished=values["finished"],
    )


def _lookup_rows(items: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    keys = [read_value(item[KEY]) for item in items]
    return pa.RecordBatch.from_arrays(
        [pa.array(map(str, keys), pa.string()), pa.array(_exact(items), pa.float64())], schema=_LOOKUP_SCHEMA
    )


def _pairs(batch: pa.RecordBatch) -> Iterator[tuple[str, float | None]]:
    return zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


def _exact(items: Sequence[dict[str, Any]]) -> list[float | None]:
    """Return the exact values of items; where others have since written a different number, return that."""
    values: list[float | None] = batch_of(items, _VALUE_SCHEMA).column(0).to_pylist()
    for row, (exact, item) in enumerate(zip(values, items, strict=True)):
        shown = read_value(item.get(VALUE))
        if shown is not None and (exact is None or not abs(exact - shown) <= SAME * abs(shown)):
            values[row] = float(shown)
    return values


_VALUE_SCHEMA = pa.schema([(VALUE, pa.float64())])
