"""A log: rows in plain Parquet files, each row once, consistent for any reader at every moment.

The files of an epoch and shard are numbered without a gap: `EPOCH-SHARD-NUMBER.parquet`. Appending puts a file under
the next number, which fails if that number exists: this is commit and compare-and-set in one step, so one of two owners
of a shard learns that it is late. The footer carries the checkpoint after the file's rows, so a restart reads one
footer. `schema.parquet` has no rows: with it, a log without rows reads as a table with the right columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.errors import ConfigurationError, NumberTakenError
from modelstream.logs.file import Footer, LogFile, content, readable
from modelstream.messages.identity import Checkpoint, Watermarks

SCHEMA_FILE = "schema.parquet"


def is_own(name: str) -> bool:
    """Return whether a file is one that a log writes, by its name.

    >>> is_own("00-03-00000017.parquet"), is_own("schema.parquet"), is_own("mine.parquet")
    (True, True, False)
    """
    return name == SCHEMA_FILE or LogFile.of(name) is not None


@dataclass
class _Tail:
    """The last file of a shard, as far as this process knows."""

    number: int = -1
    rows: int = 0
    offset: int = -1


class Log(ABC):
    """A log, for rows of a schema, written in an epoch (see `messages.identity`).

    Use an instance in one thread; any number of processes may have their own. An implementation says how files are
    listed, read, and stored under a free number; `tests/contract/log_contract.py` tests each.

    Every method may raise UnavailableError for an outage, after which the same call may be repeated.

    `open_log` opens one; `parquet.ParquetLog` has an example.
    """

    def __init__(self, schema: pa.Schema, epoch: int) -> None:
        self.schema = schema.remove_metadata()
        self.epoch = epoch
        self._tails: dict[int, _Tail] = {}
        self._footers: dict[LogFile, Footer] = {}

    @abstractmethod
    def place(self, name: str = "") -> str:
        """Return the location of the log, or of one of its files, for messages."""

    @abstractmethod
    def remove(self) -> None:
        """Delete the log's own files, and nothing else. The log must not be in use."""

    def checkpoint(self, shard: int) -> Checkpoint:
        """Return the checkpoint after the last file of a shard in this epoch.

        Where there is none: offset -1, no counts, and the highest watermarks of all shards in earlier epochs.
        Raises ConfigurationError for a missing number, an unreadable footer, another schema, a newer version
        or a newer epoch.
        """
        with self._outages():
            self._prepare()
            self._remove_abandoned(shard)
            files = self._files()
            self._settle()
            if files and files[-1].epoch > self.epoch:
                raise ConfigurationError(
                    f"{self.place()} has files of epoch {files[-1].epoch}; the tables are in epoch {self.epoch}",
                    remedy="use streams, tables and logs that belong together, or start over in another folder",
                )
            last = _lasts(files).get((self.epoch, shard))
            if last is None:
                self._tails[shard] = _Tail()
                return Checkpoint(watermarks=self._inherited(files))
            footer = self._footer(last)
        self._tails[shard] = _Tail(last.number, footer.rows, footer.offset)
        return Checkpoint(footer.offset, Watermarks.from_json(footer.watermarks), dict(footer.counters))

    def append(self, shard: int, table: pa.Table, checkpoint: Checkpoint) -> None:
        """Append rows (the columns of the log's schema) as the next file of a shard, durable when this returns.

        Raises NumberTakenError when that file exists, because another process has appended since this one
        called `checkpoint`: call it again, drop the rows at or below its watermarks, and append what is left. Raises
        GoneError when the log was deleted, and ValueError for an offset below the last. After an UnavailableError it
        is unknown whether the file counts, and the same call tells.
        """
        if shard not in self._tails:
            self.checkpoint(shard)
        tail = self._tails[shard]
        if checkpoint.offset < tail.offset:
            raise ValueError(f"offset {checkpoint.offset} after {tail.offset} in shard {shard} of {self.place()}")
        file = LogFile(self.epoch, shard, tail.number + 1)
        footer = Footer(
            epoch=self.epoch,
            shard=shard,
            number=file.number,
            rows=tail.rows + table.num_rows,
            offset=checkpoint.offset,
            watermarks=checkpoint.watermarks.to_json(),
            counters=checkpoint.counters,
        )
        before = file._replace(number=tail.number).name if tail.number >= 0 else SCHEMA_FILE
        self._check_there(before)
        self._commit(file.name, content(table.select(self.schema.names).cast(self.schema), footer))
        self._tails[shard] = _Tail(file.number, footer.rows, footer.offset)

    def scan(
        self,
        columns: Sequence[str] | None = None,
        shards: Sequence[int] | None = None,
        after: Mapping[tuple[int, int], int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the order in which each shard appended them: by epoch, shard, and number.

        With `after`, which `last_numbers` has returned, only those of files that were added since. Files that are added
        meanwhile are left out. Raises ConfigurationError for a file that can't be read, or that lacks the columns.
        """
        names = None if columns is None else list(columns)
        for file in self._files():
            old = file.number <= after.get(file[:2], -1) if after else False
            if not old and (shards is None or file.shard in shards):
                with self._outages(), readable(self.place(file.name)), self._open(file.name) as opened:
                    self._check_columns(opened.schema_arrow, names or self.schema.names)
                    yield from opened.iter_batches(columns=names)

    def count(self) -> int:
        """Return the number of rows, from the last footer of each shard."""
        return sum(footer.rows for footer in self._last_footers())

    def counters(self) -> dict[str, int]:
        """Return what the writers of all shards counted, from the last footer of each."""
        found: Counter[str] = Counter()
        for footer in self._last_footers():
            found.update(footer.counters)
        return dict(found)

    def last_numbers(self) -> dict[tuple[int, int], int]:
        """Return the number of the last file of each epoch and shard."""
        return {key: file.number for key, file in _lasts(self._files()).items()}

    def files(self) -> int:
        """Return the number of files with rows."""
        return len(self._files())

    def strangers(self) -> list[str]:
        """Return the names of what is not the log's, but would be read with it: names with . or _ are not."""
        return sorted(name for name in self._names() if not is_own(name) and not name.startswith((".", "_")))

    # What an implementation does in its own way.

    @abstractmethod
    def _outages(self) -> AbstractContextManager[None]:
        """Turn errors of the storage into UnavailableError, or into ConfigurationError if trying again won't help."""

    @abstractmethod
    def _names(self) -> list[str]:
        """Return the names of the files that there are; none if nothing was written yet."""

    @abstractmethod
    def _open(self, name: str) -> pq.ParquetFile:
        """Open a file to read its rows."""

    @abstractmethod
    def _read_footer(self, name: str) -> tuple[Footer, pa.Schema]:
        """Return the footer and schema of a file, as `file.read_footer` does."""

    @abstractmethod
    def _make(self) -> bool:
        """Make the place for the files; return whether it has a schema already."""

    @abstractmethod
    def _commit(self, name: str, file: pa.Buffer) -> None:
        """Put a file under a name that doesn't exist yet, whole and durable, or raise NumberTakenError."""

    def _check_there(self, before: str) -> None:  # noqa: B027 (an object store has nothing open that could be lost)
        """Raise GoneError if the log was deleted since `checkpoint`; `before` is the file before the next one."""

    @abstractmethod
    def _settle(self) -> None:
        """Make the files durable that `_names` listed."""

    @abstractmethod
    def _remove_abandoned(self, shard: int) -> None:
        """Remove what killed writers of a shard left behind."""

    # Inside.

    def _prepare(self) -> None:
        """Create the log and the file with its schema; if they exist, check the schema."""
        if not self._make():
            with suppress(NumberTakenError):
                self._commit(SCHEMA_FILE, self._schema_file())
        _, found = self._read_footer(SCHEMA_FILE)
        if not found.equals(self.schema):
            raise self._foreign({field.name for field in set(found) ^ set(self.schema)})

    def _check_columns(self, found: pa.Schema, names: Sequence[str]) -> None:
        wanted = {self.schema.field(name) for name in names if name in self.schema.names}
        if missing := wanted - set(found):
            raise self._foreign({field.name for field in missing})

    def _foreign(self, differing: set[str]) -> ConfigurationError:
        return ConfigurationError(
            f"{self.place()} was made for another use case "
            f"(differing columns: {', '.join(sorted(differing)) or 'their order'})",
            remedy="go back to the use case that it was made for, or start over in another folder",
        )

    def _schema_file(self) -> pa.Buffer:
        footer = Footer(epoch=self.epoch, shard=-1, number=-1, rows=0, offset=-1, watermarks={}, counters={})
        return content(self.schema.empty_table(), footer)

    def _files(self) -> list[LogFile]:
        """Return the files in order. ConfigurationError if one is missing in between."""
        files = sorted(file for file in map(LogFile.of, self._names()) if file)
        before = None
        for file in files:
            expected = before.number + 1 if before and before[:2] == file[:2] else 0
            if file.number != expected:
                missing = file._replace(number=expected).name
                raise ConfigurationError(
                    f"{self.place(missing)} is missing, although {file.name} exists",
                    remedy="restore it from a copy, or begin anew in another folder",
                )
            before = file
        return files

    def _last_footers(self) -> list[Footer]:
        """Return the last footer of every epoch and shard. Files don't change, so each is read once."""
        lasts = _lasts(self._files()).values()
        self._footers = {file: self._footers.get(file) or self._footer(file) for file in lasts}
        return [*self._footers.values()]

    def _footer(self, file: LogFile) -> Footer:
        footer, _ = self._read_footer(file.name)
        if footer.file != file:
            raise ConfigurationError(
                f"{self.place(file.name)} was renamed: it was written as {footer.file.name}",
                remedy="give it its name back",
            )
        return footer

    def _inherited(self, files: Sequence[LogFile]) -> Watermarks:
        marks = Watermarks()
        for file in _lasts(files).values():
            for origin, bucket, position in Watermarks.from_json(self._footer(file).watermarks).items():
                if file.epoch < self.epoch and position > marks.get(origin, bucket):
                    marks.set(origin, bucket, position)
        return marks

    def _forget(self) -> None:
        self._tails, self._footers = {}, {}


def _lasts(files: Sequence[LogFile]) -> dict[tuple[int, int], LogFile]:
    """Return the last file of every epoch and shard."""
    return {file[:2]: file for file in files}
