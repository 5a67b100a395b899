"""The features of users in V3IO, and what each shard has applied.

`features` has an item for every user, `features-shards` one for every epoch and shard (offset and counters), and
`features-watermarks-EPOCH` one for every shard and origin, with an attribute for each bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from modelstream.clients.v3io import Container, condition_failed, item_of, rises
from modelstream.messages.identity import Checkpoint
from modelstream.tables.contract import FeatureTable
from modelstream.tables.v3io_items import count_items, scan_sorted
from modelstream.tables.v3io_rows import attributes_of, batch_of, item_name, read_value, text_value


class V3ioFeatureTable(FeatureTable):
    """A commit stores rows, then watermarks, then the offset.

    The requests of a step are in flight together; the next step begins when all are done.

    After a kill within a commit, some rows or watermarks are already stored. They contain the effects of their
    messages, so these messages, taken again, skip them (docs/delivery.md, 5).

    An example would need V3IO: `tests/contract/test_v3io_tables.py` runs on a stand-in for it.
    """

    def __init__(self, container: Container, table: str, schema: pa.Schema, epoch: int) -> None:
        self.schema = schema
        self.epoch = epoch
        self._container = container
        self._table = table
        self._key, self._applied = schema.names[:2]
        # What this instance knows to be stored, by shard: only the rest has to be written.
        self._stored: dict[int, set[tuple[str, int, int]]] = {}
        self._named: set[tuple[int, str]] = set()

    def get_many(self, keys: Sequence[str]) -> pa.RecordBatch:
        where = {"table_path": self._container.path(self._table)}
        gets = (("kv", "get", {**where, "key": item_name(key)}) for key in dict.fromkeys(keys))
        items = [item_of(response) for response in self._container.many(gets, also=[404])]
        return self._rows([item for item in items if item is not None])

    def get(self, key: str) -> pa.RecordBatch:
        return self.get_many([key])

    def checkpoint(self, shard: int) -> Checkpoint:
        result = Checkpoint()
        self._stored.pop(shard, None)
        item = item_of(self._container.call("kv", "get", also=[404], **self._where(shard)))
        if item:
            result.offset = read_value(item["last_offset"])
            result.counters = msgspec.json.decode(read_value(item["counters"]), type=dict[str, int])
        else:
            for epoch in range(self.epoch):
                self._read_watermarks(epoch, None, result)
        self._read_watermarks(self.epoch, shard, result)
        return result

    def commit(self, shard: int, rows: pa.RecordBatch, checkpoint: Checkpoint) -> bool:
        marks = set(checkpoint.watermarks.items())
        risen = marks - self._stored.pop(shard, set())
        self._put_rows(rows.select(self.schema.names))
        self._put_watermarks(shard, risen)
        response = self._container.call(
            "kv",
            "put",
            also=[400],
            attributes={
                "epoch": self.epoch,
                "shard": shard,
                "last_offset": checkpoint.offset,
                "counters": msgspec.json.encode(checkpoint.counters).decode(),
            },
            condition=rises("last_offset", checkpoint.offset),
            **self._where(shard),
        )
        self._stored[shard] = marks
        return not condition_failed(response)

    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        return scan_sorted(self._container, self._table, self.schema, batch_size, self._rows, after)

    def count(self) -> int:
        return count_items(self._container, self._table, self._key)

    def _rows(self, items: Sequence[dict[str, Any]]) -> pa.RecordBatch:
        return batch_of(items, self.schema)

    def _put_rows(self, rows: pa.RecordBatch) -> None:
        where = {"table_path": self._container.path(self._table)}
        keys, positions = rows.column(0).to_pylist(), rows.column(1).to_pylist()
        puts = (
            (
                "kv",
                "put",
                {
                    **where,
                    "key": item_name(key),
                    "attributes": attributes,
                    "condition": rises(self._applied, position),
                },
            )
            for key, position, attributes in zip(keys, positions, attributes_of(rows), strict=True)
        )
        for response in self._container.many(puts, also=[400]):
            condition_failed(response)  # refused: another owner was here, and its row is the newer one

    def _put_watermarks(self, shard: int, marks: set[tuple[str, int, int]]) -> None:
        """Raise watermarks: each attribute becomes the maximum of the stored and the new value."""
        by_origin: dict[str, list[str]] = {}
        for origin, bucket, position in marks:
            update = f"b{bucket}=max(if_not_exists(b{bucket},-1),{position})"
            by_origin.setdefault(origin, []).append(update)
        where = {"table_path": self._container.path(self._watermarks(self.epoch))}
        new = [origin for origin in by_origin if (shard, origin) not in self._named]
        updates: list[dict[str, Any]] = [
            {"key": _mark_name(shard, origin), "attributes": {"shard": shard, "origin": text_value(origin)}}
            for origin in new
        ]
        for _ in self._container.many(("kv", "update", {**where, **update}) for update in updates):
            pass
        updates = [
            {"key": _mark_name(shard, origin), "expression": ";".join(parts)} for origin, parts in by_origin.items()
        ]
        for _ in self._container.many(("kv", "update", {**where, **update}) for update in updates):
            pass
        self._named.update((shard, origin) for origin in new)

    def _read_watermarks(self, epoch: int, shard: int | None, result: Checkpoint) -> None:
        """Raise watermarks to those of an epoch, of one shard or of all."""
        condition = None if shard is None else f"shard == {shard}"
        for page in self._container.scan(self._watermarks(epoch), condition=condition):
            for item in page:
                origin = read_value(item["origin"])
                for name, typed in item.items():
                    if name not in ("origin", "shard"):
                        bucket, position = int(name[1:]), read_value(typed)
                        if position > result.watermarks.get(origin, bucket):
                            result.watermarks.set(origin, bucket, position)

    def _watermarks(self, epoch: int) -> str:
        return f"{self._table}-watermarks-{epoch}"

    def _where(self, shard: int) -> dict[str, str]:
        return {"table_path": self._container.path(f"{self._table}-shards"), "key": f"{self.epoch}-{shard}"}


def _mark_name(shard: int, origin: str) -> str:
    """Return the name of the item with the watermarks of a shard's origin.

    >>> _mark_name(3, "generated/3")
    '3-generated=2F3'
    """
    return item_name(f"{shard}-{origin}")
