"""A data folder as the inspecting commands see it: opened without its lock, also while a pipeline works in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelstream.project import Project
from modelstream.replay.recompute import Recomputation, derive_in
from modelstream.runner.data_folder import Marker, holder_of, require
from modelstream.stores import Stores


class View(Stores):
    """The stores of an existing data folder, and what it is. Use it in one thread, as a context."""

    def __init__(self, path: Path, project: Project) -> None:
        """Take a folder and its project. Raises ConfigurationError if it is no data folder, or of another use case."""
        self.path = path.resolve()
        self.project = project
        self.marker: Marker = require(self.path, project)
        super().__init__(self.marker.places.within(self.path), project.names, project.use_case_file)

    @property
    def shards(self) -> list[int]:
        """The shards of every stream."""
        return list(range(self.marker.shards))

    def recomputation(self, shards: Sequence[int] | None, user: str | None = None) -> Recomputation:
        """Return the events of the log, to be applied once more: of some shards, or of one user."""
        return Recomputation(self, derive_in(self.project.vectors_notebook()), shards=shards, user=user)

    def lags(self) -> dict[str, int]:
        """Return the messages that each function between streams has not acknowledged now, in order."""
        made = set(self.streams.names())
        reads = {name: self.project.reads(name) for name in self.project.chain.consumers}
        return {name: self.lag(name, stream) if stream in made else 0 for name, stream in reads.items()}

    def holder(self) -> int | None:
        """Return the process that runs on this folder, None if none does."""
        return holder_of(self.path)
