"""A log of rows in plain Parquet files, each row once, that any reader sees whole at every moment.

A log is a folder. The files of an epoch and shard are numbered without a gap: `EPOCH-SHARD-NUMBER.parquet`.
Appending writes a file in a hidden folder beside the log, syncs it, and links it to the next number, which
fails if that number exists: this is commit and compare-and-set in one step, so of two owners of a shard one
learns that it is late. The footer carries the checkpoint after its rows, so a restart reads one footer. A kill
at any step leaves at most a file in the hidden folder: within the log, Polars would stumble over it.
`schema.parquet` has no rows: with it, a log without rows reads as a table with the right columns.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.base.durable import outages, sync_folder, write_at
from modelstream.base.urls import folder_of
from modelstream.errors import ConfigurationError, NumberTakenError
from modelstream.logs.file import Footer, Place, content, read_footer, readable
from modelstream.messages.identity import Checkpoint, Watermarks

SCHEMA_FILE = "schema.parquet"

ABANDONED_SECONDS = 600.0
"""Age from which a hidden file is deleted. A writer needs some seconds; one that was suspended for longer finds
its file gone, and writes it again."""


@dataclass
class _Tail:
    """The end of a shard as this process knows it."""

    number: int = -1
    rows: int = 0
    offset: int = -1


class ParquetLog:
    """The log in a folder, for rows of a schema, written in an epoch (see `identity`).

    >>> import tempfile
    >>> schema = pa.schema([("user", pa.string()), ("value", pa.float64())])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = ParquetLog(Path(folder), schema, epoch=0)
    ...     checkpoint = log.last(shard=3)
    ...     checkpoint.offset = 7
    ...     log.append(3, pa.table({"user": ["a", "b"], "value": [1.0, 2.0]}), checkpoint)
    ...     pq.read_table(folder).num_rows, log.count(), ParquetLog(Path(folder), schema, epoch=0).last(3).offset
    (2, 2, 7)
    """

    def __init__(self, folder: Path, schema: pa.Schema, epoch: int) -> None:
        self.folder = folder
        self._hidden = folder.resolve().parent / f".{folder.name}.writing"
        self.schema = schema.remove_metadata()
        self.epoch = epoch
        self._tails: dict[int, _Tail] = {}
        self._rows: dict[Place, int] = {}

    def last(self, shard: int) -> Checkpoint:
        """Return the checkpoint after the last file of a shard in this epoch.

        Where there is none: offset -1, no counts, and the highest watermarks of all shards in earlier epochs.
        Raises ConfigurationError for a missing number, an unreadable footer, another schema, a newer version
        or a newer epoch; UnavailableError for the file system.
        """
        with self._outages():
            self._prepare()
            self._remove_abandoned(shard)
            places = self._places()
            self._settle()
            if places and places[-1].epoch > self.epoch:
                raise ConfigurationError(
                    f"{self.place()} has files of epoch {places[-1].epoch}; the tables are in epoch {self.epoch}",
                    remedy="use streams, tables and logs of one moment, or begin anew in another folder",
                )
            last = _lasts(places).get((self.epoch, shard))
            if last is None:
                self._tails[shard] = _Tail()
                return Checkpoint(watermarks=self._inherited(places))
            footer = self._footer(last)
        self._tails[shard] = _Tail(last.number, footer.rows, footer.offset)
        return Checkpoint(footer.offset, Watermarks.from_json(footer.watermarks), dict(footer.counters))

    def append(self, shard: int, table: pa.Table, checkpoint: Checkpoint) -> None:
        """Append rows (the columns of the log's schema) as the next file of a shard, durable when this returns.

        Raises NumberTakenError when that file exists, because another process has appended since this one
        called `last`: call it again, drop the rows at or below its watermarks, and append what is left. Raises
        UnavailableError for the file system; whether the file counts is then unknown, and the same call tells.
        """
        if shard not in self._tails:
            self.last(shard)
        tail = self._tails[shard]
        if checkpoint.offset < tail.offset:
            raise ValueError(f"offset {checkpoint.offset} after {tail.offset} in shard {shard} of {self.place()}")
        place = Place(self.epoch, shard, tail.number + 1)
        footer = Footer(
            epoch=self.epoch,
            shard=shard,
            number=place.number,
            rows=tail.rows + table.num_rows,
            offset=checkpoint.offset,
            watermarks=checkpoint.watermarks.to_json(),
            counters=checkpoint.counters,
        )
        self._commit(place.name, content(table.select(self.schema.names).cast(self.schema), footer))
        self._tails[shard] = _Tail(place.number, footer.rows, footer.offset)

    def scan(
        self, columns: Sequence[str] | None = None, shards: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the order in which each shard appended them: by epoch, shard, and number.

        Files that are added meanwhile are left out.
        """
        names = None if columns is None else list(columns)
        for place in self._places():
            if shards is None or place.shard in shards:
                with self._outages(), readable(self.place(place.name)), self._file(place.name) as file:
                    yield from file.iter_batches(columns=names)

    def count(self) -> int:
        """Return the number of rows, from the last footer of each shard."""
        total = 0
        for place in _lasts(self._places()).values():
            if place not in self._rows:
                self._rows[place] = self._footer(place).rows
            total += self._rows[place]
        return total

    def files(self) -> int:
        """Return the number of files with rows."""
        return len(self._places())

    def remove(self) -> None:
        """Delete the log: its files, and the folders if nothing else is in them. Nobody may be using it."""
        with outages(self.folder):
            for folder in (self.folder, self._hidden):
                if not folder.is_dir():
                    continue
                for path in folder.iterdir():
                    if folder == self._hidden or path.name == SCHEMA_FILE or Place.of(path.name):
                        path.unlink(missing_ok=True)
                with suppress(OSError):  # somebody else's files
                    folder.rmdir()
        self._tails, self._rows = {}, {}

    def place(self, name: str = "") -> str:
        """Return where the log, or a file of it, is: for messages."""
        return str(self.folder / name)

    # What a log elsewhere does in another way (see `log_s3`).

    def _outages(self) -> AbstractContextManager[None]:
        return outages(self.folder)

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []

    def _file(self, name: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.folder / name)

    def _read_footer(self, name: str) -> tuple[Footer, pa.Schema]:
        return read_footer(self.folder / name)

    def _make(self) -> bool:
        """Make the place for the files; return whether it has a schema already."""
        for folder in (self.folder, self._hidden):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                sync_folder(folder.parent)
        return (self.folder / SCHEMA_FILE).exists()

    def _settle(self) -> None:
        """What another process linked, and was killed before it synced the folder, counts from now on."""
        sync_folder(self.folder)

    def _commit(self, name: str, file: pa.Buffer) -> None:
        """Put a file under a name that doesn't exist yet, whole and durable, or raise NumberTakenError."""
        hidden = self._hidden / f"{name}.{uuid.uuid4().hex}"
        with outages(self.folder):
            try:
                descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                try:
                    write_at(descriptor, memoryview(file), 0)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                try:
                    os.link(hidden, self.folder / name)
                except FileExistsError as error:
                    raise NumberTakenError(f"{self.folder / name} was written by another process") from error
                sync_folder(self.folder)
            finally:
                with suppress(OSError):
                    hidden.unlink()

    def _prepare(self) -> None:
        """Make the folder and the file that carries its schema, or check the schema that it has."""
        if not self._make():
            footer = Footer(epoch=self.epoch, shard=-1, number=-1, rows=0, offset=-1, watermarks={}, counters={})
            with suppress(NumberTakenError):
                self._commit(SCHEMA_FILE, content(self.schema.empty_table(), footer))
        _, found = self._read_footer(SCHEMA_FILE)
        if not found.equals(self.schema):
            differing = sorted({field.name for field in set(found) ^ set(self.schema)}) or ["their order"]
            raise ConfigurationError(
                f"{self.place()} was made for another use case (differing columns: {', '.join(differing)})",
                remedy="go back to the use case that it was made for, or begin anew in another folder",
            )

    def _places(self) -> list[Place]:
        """Return the files in order. ConfigurationError if one is missing in between."""
        places = sorted(place for place in map(Place.of, self._names()) if place)
        before = None
        for place in places:
            expected = before.number + 1 if before and before[:2] == place[:2] else 0
            if place.number != expected:
                missing = place._replace(number=expected).name
                raise ConfigurationError(
                    f"{self.place(missing)} is missing, while {place.name} is there",
                    remedy="restore it from a copy, or begin anew in another folder",
                )
            before = place
        return places

    def _footer(self, place: Place) -> Footer:
        footer, _ = self._read_footer(place.name)
        if footer.place != place:
            raise ConfigurationError(
                f"{self.place(place.name)} was written as {footer.place.name}", remedy="give it its name back"
            )
        return footer

    def _inherited(self, places: Sequence[Place]) -> Watermarks:
        marks = Watermarks()
        for place in _lasts(places).values():
            for origin, bucket, position in Watermarks.from_json(self._footer(place).watermarks).items():
                if place.epoch < self.epoch and position > marks.get(origin, bucket):
                    marks.set(origin, bucket, position)
        return marks

    def _remove_abandoned(self, shard: int) -> None:
        for hidden in self._hidden.glob(f"??-{shard:02d}-*"):
            with suppress(FileNotFoundError):
                if hidden.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                    hidden.unlink()


def open_log(url: str, name: str, schema: pa.Schema, epoch: int) -> ParquetLog:
    """Return a log behind a logs URL: a folder, as a path or `file://` and a path, or `s3://bucket/prefix`.

    >>> open_log("tape://reel", "events", pa.schema([]), 0)
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: no logs of the kind 'tape' (in 'tape://reel'); known: file, s3
    """
    scheme = url.partition("://")[0] if "://" in url else "file"
    if scheme == "file":
        return ParquetLog(folder_of(url) / name, schema, epoch)
    if scheme == "s3":
        from modelstream.logs.bucket import S3Log

        return S3Log(f"{url.rstrip('/')}/{name}", schema, epoch)
    raise ConfigurationError(
        f"no logs of the kind {scheme!r} (in {url!r}); known: file, s3", remedy="give a folder, or s3://bucket/prefix"
    )


def _lasts(places: Sequence[Place]) -> dict[tuple[int, int], Place]:
    """Return the last file of every epoch and shard."""
    return {place[:2]: place for place in places}
