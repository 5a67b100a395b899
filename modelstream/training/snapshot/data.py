"""The data that a model is trained on: the logs and tables of a pipeline, and the hook that derives features."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelstream.features.vectors import Derive
from modelstream.replay.recompute import Recomputation, derive_in
from modelstream.settings import Settings
from modelstream.stores import Stores
from modelstream.use_case.declared import UseCase


@dataclass(frozen=True)
class Data:
    """The stores of one data folder or cluster, and the hook `derive` that made their vectors."""

    stores: Stores
    shards: int
    derive: Derive | None = None

    @property
    def use_case(self) -> UseCase:
        """The use case."""
        return self.stores.use_case

    def parts(self) -> list[list[int] | None]:
        """Return groups of shards that hold whole users, each small enough to be replayed in memory.

        Within an epoch a user's events are all in one shard; from one epoch to the next shards may change.
        """
        return [None] if self.stores.epoch else [[shard] for shard in range(self.shards)]

    @property
    def generator_seed(self) -> int | None:
        """The seed of generated events; None if some events came from elsewhere."""
        inputs = self.stores.tables.inputs().all()
        found = [re.match(r"generator:seed=(\d+),", one.origin) for one in inputs]
        return int(found[0][1]) if len(found) == 1 and found[0] else None

    def recomputation(self, shards: list[int] | None) -> Recomputation:
        """Return the events of some shards, to be applied once more."""
        return Recomputation(self.stores, self.derive, shards=shards)


@contextmanager
def open_data(settings: Settings) -> Iterator[Data]:
    """Open what a job's settings name."""
    with Stores.of(settings) as stores:
        yield Data(stores, settings.shards, derive_in(Path(settings.derive) if settings.derive else None))
