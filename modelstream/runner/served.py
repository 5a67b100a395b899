"""Records which version of the model each worker serves, in a small file of the data folder, for `status`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelstream.runner.supervisor import Process
from modelstream.stages.counters import ServedModel

SERVED = "served.json"


class ServedModels:
    """Writes the file whenever a worker reports a change."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SERVED
        self._written: dict[str, ServedModel] | None = None

    def note(self, processes: Iterable[Process]) -> None:
        """Write the workers' last reports. If the disk is full the old file stays; only `status` reads it."""
        told = {process.name: process.report.model for process in processes if process.report.model}
        if told == self._written:
            return
        written = self._path.with_name(f".{SERVED}.tmp")
        try:
            written.write_bytes(msgspec.json.format(msgspec.json.encode(told)))
            written.replace(self._path)
        except OSError:
            return
        self._written = told


def read_served(folder: Path) -> dict[str, ServedModel]:
    """Return what each worker of a running pipeline serves. The file is not removed when the pipeline ends."""
    try:
        return msgspec.json.decode((folder / SERVED).read_bytes(), type=dict[str, ServedModel])
    except (OSError, msgspec.DecodeError):
        return {}
