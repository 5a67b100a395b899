"""Tables in a folder, each in an SQLite file that the sqlite3 shell can read. Times are us since 1970 UTC.

`registry.db` holds the epoch, the definition of the features and the inputs, `features.db` the users' rows (table
`features`) and what each shard has applied in each epoch (`watermarks`, `shards`), and `NAME.db` the lookup table NAME.
Each has a file of its own, since a file has one writer at a time.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from modelstream.clients.sqlite import File, Format, guarded, is_of, reading, writing
from modelstream.errors import ConfigurationError
from modelstream.messages.identity import MAX_EPOCH
from modelstream.tables.contract import FEATURES as FEATURES_NAME
from modelstream.tables.contract import FeatureTable, Input, InputTable, LookupTable, Tables, check_table_name
from modelstream.tables.sqlite_features import FEATURES, SqliteFeatureTable
from modelstream.tables.sqlite_rows import count_rows, parts, rows_of, scan_rows

REGISTRY = Format("registry of inputs", b"msr1")
LOOKUP = Format("lookup table", b"msl1")

_INPUT_COLUMNS = "origin, kind, path, options, lines, bytes, digest, finished"
_LOOKUP_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), ("value", pa.float64())])


class SqliteLookupTable(LookupTable):
    """Values by key in a file. See `LookupTable`.

    `SqliteTables` has an example.
    """

    def __init__(self, path: Path) -> None:
        self.file = File(
            path, LOOKUP, ["CREATE TABLE lookup (key TEXT PRIMARY KEY NOT NULL, value REAL) WITHOUT ROWID"]
        )

    def load(self, batches: Iterable[pa.RecordBatch]) -> int:
        connection, count = self.file.connection, 0
        with guarded(self.file.path), writing(connection):
            for batch in batches:
                connection.executemany("INSERT OR REPLACE INTO lookup VALUES (?, ?)", rows_of(batch))
                count += batch.num_rows
        return count

    def get_many(self, keys: Sequence[str]) -> list[float | None]:
        connection = self.file.connection
        with guarded(self.file.path), reading(connection):
            found = {
                key: value
                for part in parts(sorted(set(keys)))
                for key, value in connection.execute(
                    f"SELECT key, value FROM lookup WHERE key IN ({', '.join('?' * len(part))})", part
                )
            }
        return [found.get(key) for key in keys]

    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        return scan_rows(self.file, "lookup", _LOOKUP_SCHEMA, batch_size, after)

    def count(self) -> int:
        return count_rows(self.file, "lookup")


class SqliteInputTable(InputTable):
    """Inputs by origin, in the file that has the epoch too. See `InputTable`.

    `InputTable` has an example.
    """

    def __init__(self, file: File) -> None:
        self.file = file

    def register(self, origin: str, record: Input) -> Input:
        options = msgspec.json.encode(record.options).decode()
        progress = (record.lines, record.bytes, record.digest, record.finished)
        connection = self.file.connection
        with guarded(self.file.path), writing(connection):
            connection.execute(
                f"INSERT INTO inputs ({_INPUT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (origin, record.kind, record.path, options, *progress),
            )
        stored = self.get(origin)
        assert stored is not None
        return stored

    def get(self, origin: str) -> Input | None:
        found = self._select("WHERE origin = ?", (origin,))
        return found[0] if found else None

    def save_progress(self, origin: str, lines: int, bytes: int, digest: str, finished: bool) -> None:
        connection = self.file.connection
        with guarded(self.file.path), writing(connection):
            changed = connection.execute(
                "UPDATE inputs SET lines = ?, bytes = ?, digest = ?, finished = ? WHERE origin = ? AND lines <= ?",
                (lines, bytes, digest, finished, origin, lines),
            ).rowcount
        if not changed and self.get(origin) is None:
            raise ConfigurationError(f"there is no input {origin!r}", remedy="register it first")

    def all(self) -> list[Input]:
        return self._select("", ())

    def _select(self, where: str, parameters: tuple[str, ...]) -> list[Input]:
        connection = self.file.connection
        with guarded(self.file.path):
            rows = connection.execute(
                f"SELECT {_INPUT_COLUMNS} FROM inputs {where} ORDER BY id",
                parameters,
            ).fetchall()
        return [
            Input(
                origin=origin,
                kind=kind,
                path=path,
                options=msgspec.json.decode(options),
                lines=lines,
                bytes=count,
                digest=digest,
                finished=bool(finished),
            )
            for origin, kind, path, options, lines, count, digest, finished in rows
        ]


class SqliteTables(Tables):
    """The tables of a folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, SqliteTables(Path(folder)) as tables:
    ...     enrichment = tables.lookup("enrichment")
    ...     loaded = enrichment.load([pa.record_batch({"key": ["10115", "20095"], "value": [2.5, None]})])
    ...     loaded, enrichment.get_many(["20095", "10115", "1"])
    (2, [None, 2.5, None])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[File] = []
        self._registry = self._use(
            File(
                folder / "registry.db",
                REGISTRY,
                [
                    "CREATE TABLE epoch (number INTEGER NOT NULL)",
                    "INSERT INTO epoch VALUES (0)",
                    "CREATE TABLE inputs (id INTEGER PRIMARY KEY, origin TEXT UNIQUE NOT NULL, kind TEXT, "
                    "path TEXT, options TEXT, lines INTEGER, bytes INTEGER, digest TEXT, finished INTEGER)",
                ],
            )
        )

    def epoch(self) -> int:
        connection = self._registry.connection
        with guarded(self._registry.path):
            number: int = connection.execute("SELECT number FROM epoch").fetchone()[0]
        return number

    def raise_epoch(self) -> int:
        connection = self._registry.connection
        with guarded(self._registry.path), writing(connection):
            number: int = connection.execute("SELECT number FROM epoch").fetchone()[0] + 1
            if number > MAX_EPOCH:
                raise ConfigurationError(
                    f"{self._registry.path}: no epoch follows {MAX_EPOCH}",
                    remedy="start over in another folder",
                )
            connection.execute("UPDATE epoch SET number = ?", (number,))
        return number

    def definition(self, made: str = "") -> str:
        connection = self._registry.connection
        with guarded(self._registry.path):
            known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'definition'").fetchone()
            if known is None and made:  # files of earlier versions have no such table
                with writing(connection):
                    connection.execute("CREATE TABLE IF NOT EXISTS definition (one INTEGER PRIMARY KEY, text TEXT)")
                    connection.execute("INSERT INTO definition VALUES (1, ?) ON CONFLICT DO NOTHING", (made,))
            if known is None and not made:
                return ""
            kept: str = connection.execute("SELECT text FROM definition").fetchone()[0]
        return kept

    def lookup(self, name: str) -> LookupTable:
        check_table_name(name, {"registry", FEATURES_NAME})
        table = SqliteLookupTable(self.folder / f"{name}.db")
        self._use(table.file)
        return table

    def features(self, row_schema: pa.Schema, name: str = FEATURES_NAME) -> FeatureTable:
        check_table_name(name, {"registry"})
        table = SqliteFeatureTable(self.folder / f"{name}.db", row_schema, self.epoch())
        self._use(table.file)
        return table

    def inputs(self) -> InputTable:
        return SqliteInputTable(self._registry)

    def remove(self) -> None:
        self.close()
        with guarded(self.folder):
            for path in sorted(self.folder.glob("*.db")):
                if path == self._registry.path or is_of(path, (REGISTRY, LOOKUP, FEATURES)):
                    for each in self.folder.glob(f"{glob.escape(path.name)}*"):
                        each.unlink(missing_ok=True)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _use(self, file: File) -> File:
        self._files.append(file)
        return file
