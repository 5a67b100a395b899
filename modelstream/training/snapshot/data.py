"""What a model is trained on: the logs and tables of a pipeline, and what made the vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelstream.features.vectors import Derive, unchanged
from modelstream.logs.parquet import ParquetLog, open_log
from modelstream.replay.recompute import Recomputation, derive_in
from modelstream.settings import Settings
from modelstream.streams import open_streams
from modelstream.tables import Tables, open_tables
from modelstream.use_case.declared import UseCase, load


@dataclass(frozen=True)
class Data:
    """The logs and tables of one data folder or cluster."""

    use_case: UseCase
    events: ParquetLog
    inference: ParquetLog
    tables: Tables
    shards: int
    derive: Derive = unchanged
    dead_letters: int = 0
    """How many there are in the stream."""

    def parts(self) -> list[list[int] | None]:
        """Return groups of shards that hold whole users, each small enough to be replayed in memory.

        Within an epoch a user's events are all in one shard; from one epoch to the next shards may change.
        """
        return [None] if self.events.epoch else [[shard] for shard in range(self.shards)]

    @property
    def generator_seed(self) -> int | None:
        """The seed of generated events; None where events came from elsewhere too."""
        inputs = self.tables.inputs().all()
        found = [re.match(r"generator:seed=(\d+),", one.origin) for one in inputs]
        return int(found[0][1]) if len(found) == 1 and found[0] else None

    def recomputation(self, shards: list[int] | None) -> Recomputation:
        """Return the events of some shards, to be applied once more."""
        return Recomputation(self.use_case, self.events, self.tables, self.derive, shards=shards)


@contextmanager
def open_data(settings: Settings) -> Iterator[Data]:
    """Open what a job's settings name."""
    use_case = load(settings.use_case)
    with open_tables(settings.tables) as tables:
        epoch = tables.epoch()
        events = open_log(settings.logs, settings.events_log, use_case.events_log_schema, epoch)
        inference = open_log(settings.logs, settings.inference_log, use_case.inference_log_schema, epoch)
        yield Data(
            use_case,
            events,
            inference,
            tables,
            settings.shards,
            derive_in(Path(settings.derive) if settings.derive else None),
            _dead_letters(settings.streams),
        )


def _dead_letters(url: str) -> int:
    from modelstream.messages import dead_letters

    with open_streams(url) as streams:
        return sum(1 for _ in dead_letters.read_letters(streams)) if dead_letters.STREAM in streams.names() else 0
