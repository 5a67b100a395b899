"""The features of users in an SQLite file: their rows, and what each shard has applied, in one transaction a commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from modelstream.clients.sqlite import File, Format, guarded, quoted, reading, writing
from modelstream.errors import ConfigurationError
from modelstream.messages.identity import Checkpoint
from modelstream.tables.contract import FeatureTable
from modelstream.tables.sqlite_rows import batch_of, column_type, count_rows, parts, rows_of, scan_rows

FEATURES = Format("table of features", b"msf1")
CACHE_BYTES = 32 << 20
"""Pages of the table that stay in memory: those of 150,000 users. With SQLite's 2 MB, each commit of a table that has
more users reads most of its pages from the file again."""
SLICE_ROWS = 8_192


class SqliteFeatureTable(FeatureTable):
    """Rows, watermarks and offsets in a file: a commit is one transaction. See `FeatureTable`.

    `FeatureTable` has an example.
    """

    together = True

    def __init__(self, path: Path, schema: pa.Schema, epoch: int) -> None:
        self.schema = schema
        self.epoch = epoch
        names = [quoted(field.name) for field in schema]
        types = [column_type(field) for field in schema]
        columns = [f"{name} {kind}" for name, kind in zip(names, types, strict=True)]
        columns[0] += " PRIMARY KEY NOT NULL"
        self.file = File(
            path,
            FEATURES,
            cache_bytes=CACHE_BYTES,
            statements=[
                # In the order in which users came, with an index of the keys: new users share pages. Files of earlier
                # checkouts are in the order of the keys (WITHOUT ROWID), and stay so.
                f"CREATE TABLE features ({', '.join(columns)})",
                "CREATE TABLE watermarks (epoch INTEGER, shard INTEGER, origin TEXT, bucket INTEGER, "
                "position INTEGER NOT NULL, PRIMARY KEY (epoch, shard, origin, bucket)) WITHOUT ROWID",
                'CREATE TABLE shards (epoch INTEGER, shard INTEGER, "offset" INTEGER NOT NULL, '
                "counters TEXT NOT NULL, PRIMARY KEY (epoch, shard)) WITHOUT ROWID",
            ],
        )
        self._select = f"SELECT {', '.join(names)} FROM features WHERE {names[0]} IN"
        self._upsert = (
            f"INSERT INTO features VALUES ({', '.join('?' * len(names))}) ON CONFLICT DO UPDATE SET "
            f"{', '.join(f'{name} = excluded.{name}' for name in names[1:])} "
            f"WHERE excluded.{names[1]} > features.{names[1]}"
        )
        self._check(list(zip((field.name for field in schema), types, strict=True)))
        # What this instance knows to be stored, by shard: only the rest has to be written.
        self._stored: dict[int, set[tuple[str, int, int]]] = {}

    def get_many(self, keys: Sequence[str]) -> pa.RecordBatch:
        connection = self.file.connection
        with guarded(self.file.path), reading(connection):
            found = [
                row
                for part in parts(sorted(keys))
                for row in connection.execute(f"{self._select} ({', '.join('?' * len(part))})", part)
            ]
        return batch_of(found, self.schema)

    def get(self, key: str) -> pa.RecordBatch:
        return self.get_many([key])

    def checkpoint(self, shard: int) -> Checkpoint:
        connection, result = self.file.connection, Checkpoint()
        self._stored.pop(shard, None)
        with guarded(self.file.path), reading(connection):
            row = connection.execute(
                'SELECT "offset", counters FROM shards WHERE epoch = ? AND shard = ?', (self.epoch, shard)
            ).fetchone()
            marks = connection.execute(
                "SELECT origin, bucket, max(position) FROM watermarks "
                f"WHERE {'epoch = ? AND shard = ?' if row else 'epoch < ?'} GROUP BY origin, bucket",
                (self.epoch, shard) if row else (self.epoch,),
            ).fetchall()
        if row:
            result.offset, result.counters = row[0], msgspec.json.decode(row[1], type=dict[str, int])
        for origin, bucket, position in marks:
            result.watermarks.set(origin, bucket, position)
        return result

    def commit(self, shard: int, rows: pa.RecordBatch, checkpoint: Checkpoint) -> bool:
        return self.commit_all([(shard, rows, checkpoint)])[0]

    def commit_all(self, commits: Sequence[tuple[int, pa.RecordBatch, Checkpoint]]) -> list[bool]:
        marks = {shard: set(checkpoint.watermarks.items()) for shard, _, checkpoint in commits}
        risen = [
            (self.epoch, shard, *mark)
            for shard, of_shard in marks.items()
            for mark in of_shard - self._stored.pop(shard, set())
        ]
        connection = self.file.connection
        with guarded(self.file.path), writing(connection):
            connection.executemany(self._upsert, self._values([rows for _, rows, _ in commits]))
            connection.executemany(
                "INSERT INTO watermarks VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET position = excluded.position WHERE excluded.position > watermarks.position",
                risen,
            )
            rose = [self._put_offset(shard, checkpoint) for shard, _, checkpoint in commits]
        self._stored.update(marks)
        return rose

    def _values(self, parts: Sequence[pa.RecordBatch]) -> Iterator[tuple[Any, ...]]:
        """Yield rows in the order of their keys, as in the index: each of its pages is looked up once a commit.

        They become Python's objects a slice at a time, since those of 100,000 take 100 MB.
        """
        if parts:
            rows = pa.concat_batches([part.select(self.schema.names) for part in parts])
            order = pc.sort_indices(rows.column(0))
            for start in range(0, rows.num_rows, SLICE_ROWS):
                yield from rows_of(rows.take(order.slice(start, SLICE_ROWS)))

    def _put_offset(self, shard: int, checkpoint: Checkpoint) -> bool:
        counters = msgspec.json.encode(checkpoint.counters).decode()
        written = self.file.connection.execute(
            "INSERT INTO shards VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
            'SET "offset" = excluded."offset", counters = excluded.counters '
            'WHERE excluded."offset" > shards."offset"',
            (self.epoch, shard, checkpoint.offset, counters),
        ).rowcount
        return bool(written)

    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        return scan_rows(self.file, "features", self.schema, batch_size, after)

    def count(self) -> int:
        return count_rows(self.file, "features")

    def _check(self, expected: list[tuple[str, str]]) -> None:
        connection = self.file.connection
        with guarded(self.file.path):
            found = connection.execute("SELECT name, type FROM pragma_table_info('features')").fetchall()
        if found != expected:
            differing = sorted({name for name, _ in set(found) ^ set(expected)}) or ["their order"]
            raise ConfigurationError(
                f"{self.file.path} was made for another use case (differing columns: {', '.join(differing)})",
                remedy="go back to the use case that it was made for, or begin anew in another folder",
            )
