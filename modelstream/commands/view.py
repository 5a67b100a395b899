"""A data folder as the inspecting commands see it: opened without its lock, also while a pipeline works in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from modelstream.errors import ConfigurationError
from modelstream.logs.parquet import ParquetLog, open_log
from modelstream.project import Project
from modelstream.replay.recompute import Recomputation, derive_in
from modelstream.runner.data_folder import LOCK, Marker, require
from modelstream.runner.places import Places
from modelstream.streams import Streams, open_streams
from modelstream.tables import FeatureTable, LookupTable, Tables, open_tables
from modelstream.use_case import declared as use_cases
from modelstream.use_case.declared import UseCase


@dataclass
class View:
    """An existing data folder. Use it in one thread, as a context."""

    path: Path
    project: Project
    marker: Marker
    use_case: UseCase

    @cached_property
    def places(self) -> Places:
        """URLs of streams, tables and logs."""
        return self.marker.places.within(self.path)

    @cached_property
    def streams(self) -> Streams:
        """The streams."""
        return open_streams(self.places.streams)

    @cached_property
    def tables(self) -> Tables:
        """The tables."""
        return open_tables(self.places.tables)

    @cached_property
    def features(self) -> FeatureTable:
        """The table of features."""
        return self.tables.features(self.use_case.row_schema)

    @cached_property
    def epoch(self) -> int:
        """The epoch of the streams and logs."""
        return self.tables.epoch()

    @cached_property
    def consumers(self) -> dict[str, str]:
        """The stream that each function between streams reads, in the order of project.yaml."""
        return {name: wire.reads for name, wire in self.project.params.wiring.items() if wire.reads}

    @property
    def shards(self) -> list[int]:
        """The shards of every stream."""
        return list(range(self.marker.shards))

    def log(self, name: str) -> ParquetLog:
        """Return a log of the project, by name."""
        return open_log(self.places.logs, name, self._log_schemas[name], self.epoch)

    @cached_property
    def events_log(self) -> ParquetLog:
        """The log that keeps events."""
        return self.log(self._log_of("events"))

    @cached_property
    def inference_log(self) -> ParquetLog:
        """The log that keeps predictions."""
        return self.log(self._log_of("predictions"))

    def lookup(self, name: str) -> LookupTable:
        """Return a lookup table, by name."""
        return self.tables.lookup(name)

    def recomputation(self, shards: Sequence[int] | None, user: str | None = None) -> Recomputation:
        """Return the events of the log, to be applied once more: of some shards, or of one user."""
        derive = derive_in(self.project.vectors_notebook())
        return Recomputation(self.use_case, self.events_log, self.tables, derive, shards=shards, user=user)

    def measure_lag(self) -> dict[str, int]:
        """Return the messages that each function has not acknowledged now."""
        found = {}
        made = set(self.streams.names())
        for function, stream in self.consumers.items():
            acked = self.streams.acked(function, stream) if stream in made else {}
            ranges = self.streams.ranges(stream) if acked else {}
            found[function] = sum(end - 1 - acked[shard] for shard, (_, end) in ranges.items())
        return found

    def holder(self) -> int | None:
        """Return the process that runs on this folder, None if none does."""
        try:
            descriptor = os.open(self.path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            return int(text) if text.isdecimal() else 0
        finally:
            os.close(descriptor)
        return None

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in ("streams", "tables"):
            if opened in self.__dict__:
                getattr(self, opened).close()

    @cached_property
    def _log_schemas(self) -> dict[str, pa.Schema]:
        schemas = {"events": self.use_case.events_log_schema, "predictions": self.use_case.inference_log_schema}
        wiring = self.project.params.wiring.values()
        return {wire.log: schemas[wire.rows or "events"] for wire in wiring if wire.log}

    def _log_of(self, rows: str) -> str:
        return next(
            wire.log for wire in self.project.params.wiring.values() if wire.log and (wire.rows or "events") == rows
        )


def open_view(path: Path, project: Project) -> View:
    """Open a data folder to look at it. Raises ConfigurationError if it isn't one, or of another use case."""
    path = path.resolve()
    marker = require(path)
    use_case_file = project.folder / project.params.use_case
    if marker.use_case != use_case_file.stem:
        raise ConfigurationError(
            f"{path} holds data of the use case {marker.use_case!r}, not {use_case_file.stem!r}",
            remedy="give the folder of this use case with --data",
        )
    return View(path, project, marker, use_cases.load(use_case_file))
