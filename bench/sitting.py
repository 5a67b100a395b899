"""What all sections of a sitting share: the input, the Python of the pipeline, and the bulk rate."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.measure import Measured, measure
from bench.page import ROOT

DATA = ROOT / "bench" / "data"


def files_in(folder: Path) -> list[str]:
    """Return the options with the input in a folder, which every command takes."""
    return ["--input", str(folder / "events.ndjson"), "--enrichment", str(folder / "enrichment.csv")]


@dataclass
class Sitting:
    """The options of the command line, and what sections find out for one another."""

    python: str
    """The Python that the pipeline is installed in."""
    users: int
    events_per_user: int
    rounds: int
    seconds: float
    """How long each load of single events lasts."""
    probes: int
    """How many loads a search may take."""
    scratch: Path
    bulk_rate: float = 0.0
    """Events a second in bulk: the median of this sitting, or 0 until it was measured."""

    def say(self, what: str) -> None:
        """Print progress."""
        print(f"  {what}", file=sys.stderr, flush=True)

    @cached_property
    def folder(self) -> Path:
        """Where events.ndjson and enrichment.csv are; made if they aren't there."""
        return self.made_input(self.users)

    def made_input(self, users: int) -> Path:
        """Return the folder with the input of so many users, which is made if it isn't there."""
        folder = DATA / f"{users}x{self.events_per_user}"
        if not (folder / "done").exists():
            self.say(f"writing the events of {users:,} users")
            self.write_input(folder, users, self.events_per_user)
            (folder / "done").touch()
        (folder / "events.ndjson").read_bytes()  # all rounds find it in the page cache
        return folder

    def write_input(self, folder: Path, users: int, events_per_user: int) -> None:
        """Write events.ndjson and enrichment.csv into a folder."""
        options = ["--users", str(users), "--events-per-user", str(events_per_user)]
        subprocess.run([self.python, "-m", "bench.make_input", str(folder), *options], cwd=ROOT, check=True)

    @property
    def files(self) -> list[str]:
        """Options with the input."""
        return files_in(self.folder)

    def pipeline(self, *options: str, limit: float = float("inf"), watch: bool = False) -> Measured:
        """Run the pipeline from scratch, as a user runs it."""
        data = self.scratch / "work"
        where = ["--json", "--quiet", "--fresh", "--data", str(data)]
        try:
            return measure(
                [self.python, "pipeline.py", "run", *options, *where],
                watch=data / "inference" if watch else None,
                limit=limit,
            )
        finally:
            shutil.rmtree(data, ignore_errors=True)

    def module(self, name: str, options: Sequence[str], limit: float = float("inf")) -> dict[str, Any]:
        """Run a benchmark that needs the pipeline's Python, and return the JSON object that it prints."""
        return measure([self.python, "-m", f"bench.{name}", *options], limit=limit).result

    def against_bulk(self, rate: float) -> str:
        """Return a rate as a share of the bulk rate, which is measured once if no section has done it."""
        if not self.bulk_rate:
            self.bulk_rate = float(self.pipeline(*self.files).result["events_per_second"])
            self.say(f"in bulk, for comparison: {self.bulk_rate:,.0f} events/s")
        return f"{rate / self.bulk_rate:.1%}"
