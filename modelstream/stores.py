"""Opens what a pipeline keeps, in one way for everybody: streams, tables, logs, and the epoch that they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
import pyarrow as pa

from modelstream.base.yamlfile import suggestion
from modelstream.errors import ConfigurationError
from modelstream.messages.dead_letters import DeadLetter
from modelstream.messages.identity import LOOKUP_MISSES, LOOKUPS, UNANSWERED
from modelstream.project import Project
from modelstream.settings import Settings, StoreNames, StoreUrls
from modelstream.streams import StreamInfo, Streams, open_streams
from modelstream.streams.letters import read_letters
from modelstream.tables import FeatureTable, LookupTable, Tables, open_tables
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case
from modelstream.use_case.lookups import lookup_tables
from modelstream.use_case.meaning import check_meaning, digest, meaning_of

if TYPE_CHECKING:
    from modelstream.logs import Log


class Stores:
    """The stores at some URLs, each opened when it is first used. Use an instance in one thread, as a context manager.

    >>> import tempfile
    >>> from modelstream.project import load_project
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Stores.of_project(load_project(), StoreUrls().within(Path(folder))) as stores:
    ...         info = stores.streams.create("generated", 8, stores.epoch)
    ...         offsets = stores.streams.append("generated", [(3, b"{}")])
    ...         stores.lag("event-handler", "generated")
    1
    """

    def __init__(self, urls: StoreUrls, names: StoreNames, use_case: UseCase | Path, *, meaning: str = "") -> None:
        """Take the URLs and names of the stores, and the use case or its file. Nothing is opened yet.

        `meaning` is the hash that the use case must have; empty for any.
        """
        self.urls = urls
        self.names = names
        self._use_case = use_case
        self._meaning = meaning

    @classmethod
    def of(cls, settings: Settings) -> Stores:
        """Return the stores that a function's settings name."""
        return Stores(settings.urls, settings.names, Path(settings.use_case), meaning=settings.meaning)

    @classmethod
    def of_project(cls, project: Project, urls: StoreUrls) -> Stores:
        """Return the stores of a project."""
        return Stores(urls, project.names, project.use_case_file)

    def again(self) -> Stores:
        """Return the same stores, for another thread to open."""
        return Stores(self.urls, self.names, self._use_case, meaning=self._meaning)

    @cached_property
    def use_case(self) -> UseCase:
        """The use case, whose columns the tables and logs have. Raises ConfigurationError if it changed its meaning."""
        use_case = load_use_case(self._use_case) if isinstance(self._use_case, Path) else self._use_case
        if self._meaning and digest(meaning_of(use_case)) != self._meaning:
            raise ConfigurationError(
                f"{self._use_case} has changed its meaning since the pipeline was started",
                remedy="put it back; or stop the pipeline and start it again, which says what differs",
            )
        return use_case

    @cached_property
    def streams(self) -> Streams:
        """The streams."""
        return open_streams(self.urls.streams)

    @cached_property
    def tables(self) -> Tables:
        """The tables."""
        return open_tables(self.urls.tables)

    @cached_property
    def epoch(self) -> int:
        """The epoch of the streams and logs, as the tables have it when this is first asked for."""
        return self.tables.epoch()

    @cached_property
    def features(self) -> FeatureTable:
        """The table with a row for every user. Raises ConfigurationError if its rows have another meaning."""
        what = f"the rows of the table {self.names.features} at {self.urls.tables}"
        if kept := self.tables.definition():
            check_meaning(kept, self.use_case, what)
        table = self.tables.features(self.use_case.row_schema, self.names.features)
        if not kept:  # a table of an earlier version with the same columns is taken to mean the same
            now = msgspec.json.encode(meaning_of(self.use_case)).decode()
            check_meaning(self.tables.definition(now), self.use_case, what)  # somebody else may have been first
        return table

    @cached_property
    def lookups(self) -> dict[str, LookupTable]:
        """The tables that the use case looks up, by name."""
        return {name: self.tables.lookup(name) for name in lookup_tables(self.use_case)}

    def look_up(self, table: str, keys: Sequence[str]) -> list[float | None]:
        """Return the value of each key in a table that the use case looks up, None for a key without one."""
        return self.lookups[table].get_many(keys)

    @cached_property
    def events_log(self) -> Log:
        """The log that keeps events."""
        return self._log(self.names.events_log, self.use_case.events_log_schema, self.epoch)

    @cached_property
    def inference_log(self) -> Log:
        """The log that keeps predictions."""
        return self._log(self.names.inference_log, self.use_case.inference_log_schema, self.epoch)

    @property
    def parquet_logs(self) -> dict[str, Log]:
        """Both logs, by name."""
        return {self.names.events_log: self.events_log, self.names.inference_log: self.inference_log}

    def logs(self, project: Project) -> Iterator[Log]:
        """Yield the logs of a project without their columns, which is enough to list or remove their files."""
        for name in project.params.logs:
            yield self._log(name, pa.schema([]), 0)

    def _log(self, name: str, schema: pa.Schema, epoch: int) -> Log:
        from modelstream.logs import open_log  # Parquet comes with it, 10 MB: most functions keep no log

        return open_log(self.urls.logs, name, schema, epoch, digest(meaning_of(self.use_case)) if schema else "")

    def check_names(self, project: Project) -> None:
        """Raise ConfigurationError where the use case looks up a table that `project.yaml` doesn't name."""
        known = [name for name in project.params.tables if name != self.names.features]
        for table in lookup_tables(self.use_case):
            if table not in known:
                raise ConfigurationError(
                    f"{project.use_case_file} looks up the table {table!r}, "
                    "which project.yaml doesn't list under `tables`",
                    remedy=suggestion(table, known),
                )

    def table_names(self, project: Project) -> list[str]:
        """Return the tables of a project that its use case has: the features, and what it looks up."""
        used = {self.names.features, *lookup_tables(self.use_case)}
        return [name for name in project.params.tables if name in used]

    def make(self, project: Project, shards: int) -> Iterator[StreamInfo]:
        """Make the streams and tables of the project that are missing; yield all streams.

        Raises ConfigurationError for streams of another number of shards, tables of other columns, and as `check_names`
        does.
        """
        self.check_names(project)
        for name in project.params.streams:
            yield self.streams.create(name, shards, self.epoch)
        _ = self.features, self.lookups
        self.tables.inputs()

    def lag(self, function: str, stream: str) -> int:
        """Return how many rows of a stream a function has not acknowledged; about, unless `streams.counts_rows`.

        Every message counts as one row at least, so 0 means that no message waits.
        """
        return self.rows(stream, self.waiting(function, stream))

    def waiting(self, function: str, stream: str) -> dict[int, tuple[int, int]]:
        """Return what a function has not acknowledged of each shard: its first offset, and where the shard ends."""
        acked, first = self.streams.acked(function, stream), self.streams.first_offset
        return {shard: (max(acked[shard] + 1, first), end) for shard, (_, end) in self.streams.ranges(stream).items()}

    def rows(self, stream: str, waiting: Mapping[int, tuple[int, int]]) -> int:
        """Return how many rows are in what `waiting` gave."""
        return self.streams.rows(stream, {shard: part for shard, part in waiting.items() if part[0] < part[1]})

    def lags(self, project: Project) -> dict[str, int]:
        """Return the lag of each function between streams, in rows, in their order; 0 if its stream does not exist."""
        made = set(self.streams.names())
        reads = {name: project.reads(name) for name in project.chain.consumers}
        return {name: self.lag(name, stream) if stream in made else 0 for name, stream in reads.items()}

    def counters(self, shards: int) -> dict[str, int]:
        """Return what was counted in all shards: `vectors`, lookups, and events that didn't count, by reason."""
        found: Counter[str] = Counter()
        for shard in range(shards):
            found.update(self.features.checkpoint(shard).counters)
        if self.use_case.event_lookups:
            logged = self.events_log.counters()
            found.update({name: logged[name] for name in (LOOKUPS, LOOKUP_MISSES) if name in logged})
        return dict(sorted(found.items()))

    def unanswered(self) -> int:
        """Return how many vectors the log of predictions keeps without an answer: there was no model yet."""
        return self.inference_log.counters().get(UNANSWERED, 0)

    def predictions(self) -> int:
        """Return the number of predictions in their log."""
        return self.inference_log.count() - self.unanswered()

    def dead_letters(self, since: int | None = None, after: Mapping[int, int] | None = None) -> Iterator[DeadLetter]:
        """Return an iterator over every dead letter once; with `since` (us since 1970 UTC) only those from then on,
        with `after` only those of messages from an offset on, by shard.
        """
        return read_letters(self.streams, self.names.dead_letters, since, after)

    def dead_letter_count(self) -> int:
        """Return the number of dead letters, each identity once."""
        return sum(1 for _ in self.dead_letters())

    def answer(self, project: Project) -> None:
        """Ask all stores that have a URL for something small. Raises UnavailableError for one that is away."""
        if self.urls.streams:
            self.streams.names()
        if self.urls.tables and not self.urls.tables.startswith("sqlite://"):  # its epoch would make a file
            self.tables.epoch()
        if self.urls.logs:
            for log in self.logs(project):
                log.strangers()

    def log_strangers(self) -> list[str]:
        """Return the places of what is in a log's folder, not the log's own, and read with it by pandas and others."""
        return [log.place(name) for log in self.parquet_logs.values() for name in log.strangers()]

    def remove(self, project: Project) -> Iterator[str]:
        """Delete the project's streams, then its tables, then its logs: those that have a URL.

        Yields the name of each store after deleting it. They must not be in use. Nothing is deleted if one is away.
        """
        self.answer(project)
        if self.urls.streams:
            for name in project.params.streams:
                self.streams.remove(name)
                yield f"stream {name}"
        if self.urls.tables:
            self.tables.remove()
            yield f"tables at {self.urls.tables}"
        if self.urls.logs:
            for log in self.logs(project):
                log.remove()
                yield f"log {log.place()}"

    def close(self) -> None:
        """Give back files and connections; what is used later is opened again."""
        for opened in ("streams", "tables"):
            if opened in self.__dict__:
                self.__dict__.pop(opened).close()
        for of_tables in ("features", "lookups"):
            self.__dict__.pop(of_tables, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
