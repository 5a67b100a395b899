"""A data folder for the commands that only read it: opened without its lock, even while a pipeline works in it."""

from __future__ import annotations

from pathlib import Path

from modelstream.project import Project
from modelstream.runner.data_folder import Marker, holder_of, require
from modelstream.stores import Stores


class View(Stores):
    """The stores of an existing data folder, and its marker file. Use it in one thread, as a context manager."""

    def __init__(self, path: Path, project: Project) -> None:
        """Take a folder and its project. Raises ConfigurationError if it is no data folder, or of another use case."""
        self.path = path.resolve()
        self.project = project
        self.marker: Marker = require(self.path, project)
        super().__init__(self.marker.urls.within(self.path), project.names, project.use_case_file)

    def holder(self) -> int | None:
        """Return the process that runs on this folder, None if none does."""
        return holder_of(self.path)
