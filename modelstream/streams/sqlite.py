"""Streams in a folder: one SQLite file per stream, with the bodies of large messages in plain files beside it.

`NAME.db` has a row for every message, in a table for each shard, with its body and how many events, vectors or
predictions it holds. When BULK bytes or more are appended at once, their bodies go into a file `NAME.NUMBER.bodies`
instead (see `body_files`), which is synced before the rows are committed. `offsets.db` holds what groups of readers
have acknowledged.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelstream.base.names import PLAIN_NAME
from modelstream.clients.sqlite import Connection, File, Format, create, guarded, writing
from modelstream.errors import ConfigurationError
from modelstream.messages.codec import row_count
from modelstream.messages.identity import BUCKETS
from modelstream.streams.bell import Bell
from modelstream.streams.body_files import BodyFiles, BodyPlace
from modelstream.streams.contract import Message, StreamInfo, Streams

STREAM = Format("stream", b"mss1", version=2)
COUNTED = 2
"""The version since which messages have their number of rows. Older files go on without it: there, lag is estimated."""
OFFSETS = Format("file of offsets", b"mso1")
OFFSETS_FILE = "offsets.db"

BULK = 128 << 10
"""An append of at least this many bytes puts its bodies into a body file; below that, the second sync costs more than
writing the bodies twice (measured: equal at 64 to 128 KB)."""

SMALL = 4 << 10
"""Bodies below this size stay in their rows even then, since a row that points at a body is nearly as large."""

TRIM_AT_ONCE = 10_000
"""Messages deleted in one transaction: some 20 ms, for which those who append wait."""

_Row = tuple[int, int, int, bytes | None, int, int]


@dataclass
class _Open:
    """A stream that this process uses. It has two connections, so that `version` also notices our own appends."""

    info: StreamInfo
    reader: File
    writer: File
    bodies: BodyFiles
    bell: Bell
    counted: bool
    """Whether messages have their number of rows."""

    def close(self) -> None:
        self.reader.close()
        self.writer.close()
        self.bodies.close()
        self.bell.close()


class SqliteStreams(Streams):
    """The streams of a folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, SqliteStreams(Path(folder)) as streams:
    ...     info = streams.create("incoming", shards=8)
    ...     offsets = streams.append("incoming", [(3, b"one"), (3, b"two"), (5, b"three")])
    ...     bodies = [message.body for message in streams.read("incoming", 3, 1, 100, 1 << 20)]
    >>> offsets, bodies
    ([0, 1, 0], [b'two'])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts_rows = True
        self._streams: dict[str, _Open] = {}
        self._offsets = File(folder / OFFSETS_FILE, OFFSETS, _LAYOUT_OF_OFFSETS, durable=False)

    def create(self, name: str, shards: int, epoch: int = 0) -> StreamInfo:
        if not PLAIN_NAME.fullmatch(name) or f"{name}.db" == OFFSETS_FILE:
            raise ConfigurationError(f"{name!r} can't be the name of a stream", remedy="use letters, digits, - and _")
        if not 1 <= shards <= BUCKETS:
            raise ConfigurationError(f"a stream can't have {shards} shards", remedy=f"give 1 to {BUCKETS}")
        create(self.folder / f"{name}.db", STREAM, _layout(name, shards, epoch))
        info = self.describe(name)
        if (info.shards, info.epoch) != (shards, epoch):
            raise ConfigurationError(
                f"stream {name!r} in {self.folder} has {info.shards} shards and epoch {info.epoch}, "
                f"not {shards} and {epoch}",
                remedy="give the same number of shards as before, or begin anew in another folder",
            )
        return info

    def describe(self, name: str) -> StreamInfo:
        return self._open(name).info

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.db") if path.name != OFFSETS_FILE)

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
        stream = self._open(name)
        for shard, _ in records:
            stream.info.check(shard)
        if not records:
            return []
        writer = stream.writer.connection
        with guarded(stream.writer.path), writing(writer):
            least = SMALL if sum(len(body) for _, body in records) >= BULK else math.inf
            apart = [body for _, body in records if len(body) >= least]
            places = iter(_write_bodies(writer, stream.bodies, apart))
            appended_at = time.time_ns() // 1000
            ends: dict[int, tuple[int, int]] = {}
            offsets = []
            for shard, body in records:
                offset, before = ends.get(shard) or _end(stream, shard)
                rows = row_count(body)
                ends[shard] = offset + 1, before + rows
                kept: tuple[object, ...] = (None, *next(places)) if len(body) >= least else (body, None, None)
                row = (offset, appended_at, len(body), *kept, *((before, rows) if stream.counted else ()))
                writer.execute(f"INSERT INTO messages_{shard} VALUES (?{', ?' * (len(row) - 1)})", row)
                offsets.append(offset)
        stream.bell.ring()
        return offsets

    def read(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        stream = self._open(name)
        stream.info.check(shard)
        with guarded(stream.writer.path):
            try:
                return _read(stream, shard, offset, limit_messages, limit_bytes)
            except FileNotFoundError:
                pass  # Trimmed after we saw the rows: they are gone too, unless somebody deleted the file.
            try:
                return _read(stream, shard, offset, limit_messages, limit_bytes)
            except FileNotFoundError as error:
                raise ConfigurationError(
                    f"{error.filename} is missing, which holds messages of stream {name!r}",
                    remedy="restore it from a copy, or begin anew in another folder",
                ) from error

    def range(self, name: str, shard: int) -> tuple[int, int]:
        stream = self._open(name)
        stream.info.check(shard)
        with guarded(stream.writer.path):
            return _range(stream.reader.connection, shard)

    def rows(self, name: str, parts: Mapping[int, tuple[int, int]]) -> int:
        stream = self._open(name)
        if not stream.counted:
            return super().rows(name, parts)
        with guarded(stream.writer.path):
            return sum(_rows_between(stream.reader.connection, shard, *parts[shard]) for shard in parts)

    def ack(self, group: str, name: str, offsets: Mapping[int, int]) -> None:
        info = self._open(name).info
        for shard in offsets:
            info.check(shard)
        connection = self._offsets.connection
        with guarded(self._offsets.path), writing(connection):
            connection.executemany(
                "INSERT INTO acks VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                'SET "offset" = excluded."offset" WHERE excluded."offset" > acks."offset"',
                [(name, info.epoch, group, shard, offset) for shard, offset in offsets.items()],
            )

    def acked(self, group: str, name: str) -> dict[int, int]:
        info = self._open(name).info
        result = dict.fromkeys(range(info.shards), -1)
        connection = self._offsets.connection
        with guarded(self._offsets.path):
            rows = connection.execute(
                'SELECT shard, "offset" FROM acks WHERE stream = ? AND epoch = ? AND "group" = ?',
                (name, info.epoch, group),
            ).fetchall()
        result.update(rows)
        return result

    def version(self, name: str) -> int:
        stream = self._open(name)
        with guarded(stream.writer.path):
            version: int = stream.reader.connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def listen(self, name: str) -> int | None:
        return self._open(name).bell.listen()

    def trim(self, name: str, groups: Sequence[str], older_than_us: int) -> int:
        stream = self._open(name)
        acked = [self.acked(group, name) for group in groups]
        if not acked:
            return 0
        trimmed, writer = 0, stream.writer.connection
        with guarded(stream.writer.path):
            for shard in range(stream.info.shards):
                upto = min(offsets[shard] for offsets in acked)
                while count := _trim_some(writer, shard, upto, older_than_us):
                    trimmed += count
            with writing(writer):
                (keep,) = writer.execute(_FIRST_BODY_FILE).fetchone()
                writer.execute("DELETE FROM body_files WHERE number < ?", (keep,))
            stream.bodies.delete_below(keep)
        return trimmed

    def remove(self, name: str) -> None:
        if not PLAIN_NAME.fullmatch(name):
            return
        stream = self._streams.pop(name, None)
        if stream is not None:
            stream.close()
        with guarded(self._path(name)):
            for path in (*self.folder.glob(f"{name}.db*"), *self.folder.glob(f"{name}.*.bodies")):
                path.unlink(missing_ok=True)
        with guarded(self._offsets.path):
            self._offsets.connection.execute("DELETE FROM acks WHERE stream = ?", (name,))

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self._streams = {}
        self._offsets.close()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def _open(self, name: str) -> _Open:
        stream = self._streams.get(name)
        if stream is None:
            path = self._path(name)
            if not path.exists():
                raise ConfigurationError(
                    f"no stream {name!r} in {self.folder}; there are: {', '.join(self.names()) or 'none'}",
                    remedy="run `python pipeline.py run` first, or give the right folder",
                )
            reader, writer = File(path, STREAM), File(path, STREAM)
            with guarded(path):
                shards, epoch = reader.connection.execute("SELECT shards, epoch FROM stream").fetchone()
                (version,) = reader.connection.execute("PRAGMA user_version").fetchone()
            bodies, counted = BodyFiles(self.folder, name), version >= COUNTED
            self.counts_rows = self.counts_rows and counted
            stream = self._streams[name] = _Open(
                StreamInfo(name, shards, epoch), reader, writer, bodies, Bell(path), counted
            )
        return stream


_LAYOUT_OF_OFFSETS = (
    'CREATE TABLE acks (stream TEXT, epoch INTEGER, "group" TEXT, shard INTEGER, "offset" INTEGER NOT NULL, '
    'PRIMARY KEY (stream, epoch, "group", shard)) WITHOUT ROWID',
)


# The first that a message points at, or the newest, whose number must not be given again.
_FIRST_BODY_FILE = (
    "SELECT coalesce((SELECT min(number) FROM body_files WHERE messages > 0), (SELECT max(number) FROM body_files), 0)"
)


def _layout(name: str, shards: int, epoch: int) -> list[str]:
    statements = [
        "CREATE TABLE stream (name TEXT, shards INTEGER, epoch INTEGER)",
        f"INSERT INTO stream VALUES ('{name}', {shards}, {epoch})",
        # Messages below `first` were trimmed.
        "CREATE TABLE shards (shard INTEGER PRIMARY KEY, first INTEGER NOT NULL)",
        "CREATE TABLE body_files (number INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, messages INTEGER NOT NULL)",
    ]
    for shard in range(shards):
        statements += [
            f"INSERT INTO shards VALUES ({shard}, 0)",
            f'CREATE TABLE messages_{shard} ("offset" INTEGER PRIMARY KEY, appended_at INTEGER NOT NULL, '
            "size INTEGER NOT NULL, body BLOB, body_file INTEGER, position INTEGER, "
            # Rows in the shard before this message, as counted from some message on; and its own.
            "rows_before INTEGER NOT NULL, rows INTEGER NOT NULL)",
        ]
    return statements


def _range(connection: sqlite3.Connection, shard: int) -> tuple[int, int]:
    first, last = connection.execute(
        f'SELECT first, (SELECT max("offset") FROM messages_{shard}) FROM shards WHERE shard = {shard}'
    ).fetchone()
    return first, first if last is None else last + 1


def _end(stream: _Open, shard: int) -> tuple[int, int]:
    """Return the offset that is given next, and the rows before it, as the last message that is kept counts them."""
    rows = "rows_before + rows" if stream.counted else "0"
    last = stream.writer.connection.execute(
        f'SELECT "offset" + 1, {rows} FROM messages_{shard} ORDER BY "offset" DESC LIMIT 1'
    ).fetchone()
    return last or (_range(stream.writer.connection, shard)[1], 0)


def _rows_between(connection: sqlite3.Connection, shard: int, first: int, end: int) -> int:
    """Return the number of rows from the first offset up to another."""
    (rows,) = connection.execute(
        f'SELECT (SELECT rows_before + rows FROM messages_{shard} WHERE "offset" < ? ORDER BY "offset" DESC LIMIT 1) - '
        f'(SELECT rows_before FROM messages_{shard} WHERE "offset" >= ? ORDER BY "offset" LIMIT 1)',
        (end, first),
    ).fetchone()
    return max(0, rows or 0)


def _write_bodies(connection: sqlite3.Connection, files: BodyFiles, bodies: Sequence[bytes]) -> Sequence[BodyPlace]:
    if not bodies:
        return ()
    last = connection.execute("SELECT number, bytes FROM body_files ORDER BY number DESC LIMIT 1").fetchone()
    places, end = files.write(bodies, BodyPlace(*last) if last else None)
    connection.execute(
        "INSERT INTO body_files VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
        "SET bytes = excluded.bytes, messages = messages + excluded.messages",
        (*end, len(bodies)),
    )
    return places


def _read(stream: _Open, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
    rows = _rows(stream.reader.connection, shard, offset, limit_messages, limit_bytes)
    return [
        Message(
            shard,
            found,
            stream.bodies.read(BodyPlace(file, position), size) if body is None else body,
            appended_at,
        )
        for found, appended_at, size, body, file, position in rows
    ]


def _rows(connection: sqlite3.Connection, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[_Row]:
    """Return the rows to read. The statement ends here: an open one would keep the log from being cut."""
    cursor = connection.execute(
        f'SELECT "offset", appended_at, size, body, body_file, position FROM messages_{shard} '
        'WHERE "offset" >= ? ORDER BY "offset" LIMIT ?',
        (offset, limit_messages),
    )
    rows: list[_Row] = []
    total = 0
    for row in cursor:
        total += row[2]
        if rows and total > limit_bytes:
            break
        rows.append(row)
    cursor.close()
    return rows


def _trim_some(connection: Connection, shard: int, upto: int, older_than_us: int) -> int:
    """Delete at most TRIM_AT_ONCE messages up to an offset; return how many."""
    with writing(connection):
        first, end = _range(connection, shard)
        upto = min(upto, end - 1, first + TRIM_AT_ONCE - 1)
        # Clocks may jump back: stop at the first message that is not old enough.
        young = connection.execute(
            f'SELECT "offset" FROM messages_{shard} WHERE "offset" <= ? AND appended_at >= ? ORDER BY "offset" LIMIT 1',
            (upto, older_than_us),
        ).fetchone()
        keep: int = young[0] if young else upto + 1
        if keep <= first:
            return 0
        connection.execute(
            "UPDATE body_files SET messages = messages - gone FROM (SELECT body_file, count(*) AS gone "
            f'FROM messages_{shard} WHERE "offset" < ? GROUP BY body_file) WHERE number = body_file',
            (keep,),
        )
        connection.execute(f'DELETE FROM messages_{shard} WHERE "offset" < ?', (keep,))
        connection.execute("UPDATE shards SET first = ? WHERE shard = ?", (keep, shard))
    return keep - first
