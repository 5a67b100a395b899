"""A log: rows in plain Parquet files, each row once, consistent for any reader at every moment.

Appending claims the next number of an epoch and shard, which fails if that is taken: this is commit and compare-and-set
in one step, so one of two owners of a shard learns that it is late. What is committed has the checkpoint after its
rows, so a restart reads one footer. `storage` says what the files are, `publish` how small commits become few files.
`schema.parquet` has no rows: with it, a log without rows reads as a table with the right columns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.errors import ConfigurationError, GoneError, NumberTakenError, UnavailableError
from modelstream.logs.file import Footer, LogFile, content, footer_of, readable
from modelstream.logs.part import encode_part
from modelstream.logs.publish import PublishingStorage
from modelstream.logs.storage import LISTINGS, SCHEMA_FILE, Key, Published, Standing
from modelstream.messages.identity import Checkpoint, Watermarks

__all__ = ["SCHEMA_FILE", "Log", "is_own"]

WHOLE_ROWS = 8192
"""Commits of at least this many rows become a file at once. Fewer wait in a part, for others to come with."""


def is_own(name: str) -> bool:
    """Return whether a file is one that a log writes, by its name.

    >>> is_own("00-03-00000017.parquet"), is_own("schema.parquet"), is_own("mine.parquet")
    (True, True, False)
    """
    return name == SCHEMA_FILE or LogFile.of(name) is not None


_Snapshot = tuple[tuple[LogFile, pq.ParquetFile] | None, list[tuple[Footer, pa.Table]]]


@dataclass
class _Tail:
    """What was committed last in a shard, as far as this process knows."""

    number: int = -1
    """The last file; with parts, it may have changed since."""
    commits: int = 0
    rows: int = 0
    offset: int = -1


class Log(PublishingStorage):
    """A log, for rows of a schema, written in an epoch (see `messages.identity`).

    Use an instance in one thread; any number of threads and processes may have their own. An implementation says how
    files are listed, read, and stored under a free number; `tests/contract/log_contract.py` tests each.

    Every method may raise UnavailableError for an outage, after which the same call may be repeated.

    `open_log` opens one; `parquet.ParquetLog` has an example.
    """

    def __init__(self, schema: pa.Schema, epoch: int, definition: str = "") -> None:
        super().__init__(schema, epoch, definition)
        self._tails: dict[int, _Tail] = {}

    @abstractmethod
    def remove(self) -> None:
        """Delete the log's own files, and nothing else. The log must not be in use."""

    def checkpoint(self, shard: int) -> Checkpoint:
        """Return the checkpoint after the last commit of a shard in this epoch.

        Where there is none: offset -1, no counts, and the highest watermarks of all shards in earlier epochs.
        Raises ConfigurationError for a missing number, an unreadable footer, another schema, a newer version
        or a newer epoch.
        """
        with self._outages():
            self._prepare()
            self._remove_abandoned(shard)
            if self._shared():
                self._publish_left((self.epoch, shard))
            parts, files = self._parts(), self._files()
            newest = max((file.epoch for file in (*parts, *files)), default=self.epoch)
            last = self._last((self.epoch, shard), files)
            number = self._look((self.epoch, shard), files).number
            self._settle()
        if newest > self.epoch:
            raise ConfigurationError(
                f"{self.place()} has files of epoch {newest}; the tables are in epoch {self.epoch}",
                remedy="use streams, tables and logs that belong together, or start over in another folder",
            )
        if last is None:
            self._tails[shard] = _Tail()
            with self._outages():
                earlier = [footer for (epoch, _), footer in self._lasts().items() if epoch < self.epoch]
            return Checkpoint(watermarks=_inherited(earlier))
        self._tails[shard] = _Tail(number, last.end, last.rows, last.offset)
        return last.checkpoint()

    def _publish_left(self, key: Key) -> None:
        """Publish what was left when the folder was on one machine: numbers of files are all that counts now."""
        if any(part.key == key for part in self._parts()):
            for _ in range(LISTINGS):
                if self._publish(key):
                    return
            raise self._unsteady()

    def append(self, shard: int, table: pa.Table, checkpoint: Checkpoint) -> None:
        """Append rows (the columns of the log's schema) to a shard, durable when this returns.

        `Log`'s own methods see them at once, readers of the files when they are published (see `publish`).

        Raises NumberTakenError when another process has appended since this one called `checkpoint`, or in the rare
        case that these rows were published before this returned: call `checkpoint` again, drop the rows at or below its
        watermarks, and append what is left. Raises GoneError when the log was deleted,
        and ValueError for an offset below the last. After an UnavailableError it is unknown whether the rows count, and
        the same call tells.
        """
        if shard not in self._tails:
            self.checkpoint(shard)
        tail = self._tails[shard]
        if checkpoint.offset < tail.offset:
            raise ValueError(f"offset {checkpoint.offset} after {tail.offset} in shard {shard} of {self.place()}")
        footer = Footer(
            epoch=self.epoch,
            shard=shard,
            number=tail.number + 1,
            commits=tail.commits + 1,
            definition=self.definition,
            rows=tail.rows + table.num_rows,
            offset=checkpoint.offset,
            watermarks=checkpoint.watermarks.to_json(),
            counters=checkpoint.counters,
        )
        rows = table.select(self.schema.names).cast(self.schema)
        with self._outages():
            self._check_there((self.epoch, shard))
            if self._shared():
                self._commit(footer.file.name, content(rows, footer))
            else:
                self._append_part(LogFile(self.epoch, shard, tail.commits), rows, footer)
        self._tails[shard] = _Tail(footer.number, footer.end, footer.rows, footer.offset)

    def _append_part(self, part: LogFile, table: pa.Table, footer: Footer) -> None:
        """Commit rows under the number of a part, which becomes a file at once if it is large."""
        whole = table.num_rows >= WHOLE_ROWS
        published = self._check_before(part)
        if whole and published.end < part.number:
            self.publish([part.shard])
            published = self._look(part.key)
        footer.number = published.number + 1 if whole and published.end == part.number else -1
        self._commit_part(part.part, encode_part(table, footer))
        if self._in_file(part):  # that is why the number was free
            self._remove_parts([part])
            raise NumberTakenError(f"{self.place()} has commit {part.number} of shard {part.shard} already")
        if whole:
            self.publish([part.shard])

    def _check_there(self, key: Key) -> None:
        """Raise GoneError if the log was deleted since `checkpoint`."""
        known = self._published.get(key)
        for name in [SCHEMA_FILE, *([] if known is None else [LogFile(*key, known.number).name])]:
            if self._stamp(name) is None:
                raise GoneError(self.place(name))

    def _check_before(self, part: LogFile) -> Published:
        """Return the last file; raise GoneError if what was committed before a part is neither there nor in it."""
        before = part._replace(number=part.number - 1)
        there = not part.number or self._has_part(before.part)
        published = self._look(part.key)
        if published.end < part.number and not there:
            raise GoneError(self.place(before.part))
        return published

    def scan(
        self,
        columns: Sequence[str] | None = None,
        shards: Sequence[int] | None = None,
        after: Mapping[Key, int] | None = None,
        *,
        same_definition: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the order in which each shard appended them: by epoch, shard, and commit.

        With `after`, which `row_counts` has returned, only those that were added since. What is added to a shard while
        it is read is left out. Raises ConfigurationError for a file that can't be read, or that lacks the columns; with
        `same_definition` also for one that is known to have been made with another definition than the log's.
        """
        names = None if columns is None else list(columns)
        with self._outages():
            parts, files = self._parts(), self._files()
        for key in sorted({file.key for file in (*parts, *files)}):
            if shards is None or key[1] in shards:
                for footer, batches in self._scan_shard(
                    self._snapshot(key, files), key, names, (after or {}).get(key, 0)
                ):
                    if same_definition:
                        self._check_definition(footer)
                    yield from batches

    def _scan_shard(
        self, snapshot: _Snapshot, key: Key, names: list[str] | None, after: int
    ) -> Iterator[tuple[Footer, Iterator[pa.RecordBatch]]]:
        """Yield the footer of each file and part, and then its rows."""
        last, tables = snapshot
        number = -1 if last is None else last[0].number
        for file in (LogFile(*key, each) for each in range(number + 1)):
            with self._outages(), readable(self.place(file.name)):
                opened = last[1] if last and file == last[0] else self._open(file.name)
                with opened:
                    rows = opened.metadata.num_rows
                    footer = footer_of(self.place(file.name), opened.metadata.metadata)
                    old = after - footer.rows + rows if after else 0
                    if old < rows or not rows:
                        self._check_columns(opened.schema_arrow, names or self.schema.names)
                        yield footer, _without_first(opened.iter_batches(columns=names), max(0, old))
        for footer, table in tables:
            self._check_columns(table.schema, names or self.schema.names)
            batches = (table if names is None else table.select(names)).to_batches()
            yield footer, _without_first(batches, max(0, after - footer.rows + table.num_rows))

    def _check_definition(self, footer: Footer) -> None:
        made, ours = footer.definition, self.definition
        if made and ours and made != ours:
            raise ConfigurationError(
                f"{self.place(footer.file.name)} was made with another definition of the features "
                f"({made[:8]}… instead of {ours[:8]}…)",
                remedy="compute the vectors again from the log of events, as `train` and `replay` do by themselves",
            )

    def _snapshot(self, key: Key, files: Sequence[LogFile]) -> _Snapshot:
        """Return the last file of an epoch and shard, opened, and the parts whose rows are in no file."""
        for _ in range(LISTINGS):
            with self._outages():
                found = self._stand(key) if self.keeps_parts else Standing(self._look(key, files), [], [])
                last = self._open_last(key, found.published)
            tables = [part for part in map(self._part, found.waiting) if part is not None]
            if len(tables) == len(found.waiting) and self._still(key, found):
                return last, tables
            if last is not None:
                last[1].close()
        raise self._unsteady()

    def _open_last(self, key: Key, published: Published) -> tuple[LogFile, pq.ParquetFile] | None:
        file = LogFile(*key, published.number)
        if published.footer is None:
            return None
        with readable(self.place(file.name)):
            return file, self._open(file.name)

    def _still(self, key: Key, found: Standing) -> bool:
        """Return whether the last file is the one that was found: see `storage`."""
        with self._outages():
            return not self.keeps_parts or self._look(key) == found.published

    def count(self) -> int:
        """Return the number of rows, from the last footer of each shard."""
        return sum(self.row_counts().values())

    def row_counts(self) -> dict[Key, int]:
        """Return the number of rows of each epoch and shard."""
        return {key: footer.rows for key, footer in self._lasts().items()}

    def counters(self) -> dict[str, int]:
        """Return what the writers of all shards counted, from the last footer of each."""
        found: Counter[str] = Counter()
        for footer in self._lasts().values():
            found.update(footer.counters)
        return dict(found)

    def files(self) -> int:
        """Return the number of files with rows, with the parts that wait to be published."""
        with self._outages():
            parts = self._parts()
            waiting = sum(len(self._stand(key, parts).waiting) for key in {part.key for part in parts})
            return len(self._files()) + waiting

    def strangers(self) -> list[str]:
        """Return the names of what is not the log's, but would be read with it: names with . or _ are not."""
        return sorted(name for name in self._names() if not is_own(name) and not name.startswith((".", "_")))

    def _lasts(self) -> dict[Key, Footer]:
        """Return the last footer of every epoch and shard."""
        with self._outages():
            parts, files = self._parts(), self._files()
            found = {key: self._last(key, files) for key in sorted({file.key for file in (*parts, *files)})}
        return {key: footer for key, footer in found.items() if footer is not None}

    def _last(self, key: Key, files: Sequence[LogFile]) -> Footer | None:
        """Return the last footer of an epoch and shard, None if nothing was committed there."""
        if not self.keeps_parts:
            return self._look(key, files).footer
        for _ in range(LISTINGS):
            found = self._stand(key)
            if not found.waiting:
                return found.published.footer
            part = self._part(found.waiting[-1])
            if part is not None and self._still(key, found):
                return part[0]
        raise self._unsteady()

    def _unsteady(self) -> UnavailableError:
        return UnavailableError(f"{self.place()} changes all the time", remedy="try again")

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

    def _forget(self) -> None:
        self._tails, self._published = {}, {}


def _inherited(footers: Iterable[Footer]) -> Watermarks:
    marks = Watermarks()
    for footer in footers:
        for origin, bucket, position in Watermarks.from_json(footer.watermarks).items():
            if position > marks.get(origin, bucket):
                marks.set(origin, bucket, position)
    return marks


def _without_first(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches without their first rows."""
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)
