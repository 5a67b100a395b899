"""Measure the pipeline beside its peers on one file, and write the results into docs/performance.md.

    make bench                      # 2,002,000 events, three rounds, some minutes; wants a quiet machine
    make bench ARGS="--users 100 --rounds 1 --dry"      # only to see that it works

Each round runs, one after the other and each in processes of its own: (a) the pipeline, (b) Polars, (c) the feature
stage alone. The tables show medians. Before that, both peers must reproduce the golden vectors.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bench.measure import Measured, measure, seconds_to_table
from bench.page import write_page
from bench.report import Report

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
DATA = BENCH / "data"
PROJECT_PYTHON = str(ROOT / ".venv" / "bin" / "python")
MODEL = ROOT / "assets" / "models" / "churn" / "1"
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Job:
    """What is measured on, and with which Python."""

    python: str
    events: Path
    enrichment: Path

    @property
    def files(self) -> list[str]:
        """Options that every command takes."""
        return ["--input", str(self.events), "--enrichment", str(self.enrichment)]

    def pipeline(self, data: Path) -> Measured:
        """(a): the pipeline as a user runs it."""
        command = [self.python, "pipeline.py", "run", *self.files, "--json", "--quiet", "--fresh", "--data", str(data)]
        return measure(command, watch=data / "inference")

    def polars(self, output: Path) -> Measured:
        """(b): the whole job in Polars."""
        options = ["--model", str(MODEL), "--output", str(output)]
        return measure([sys.executable, "-m", "bench.peer_polars", *self.files, *options])

    def bytewax(self, *options: str) -> Measured:
        """(c): the vectors in Bytewax."""
        return measure([sys.executable, "-m", "bench.peer_bytewax", *self.files, *options])

    def stage(self, store: Path | None) -> Measured:
        """The feature stage alone, in memory or with SQLite under it."""
        where = ["--store", str(store)] if store else []
        return measure([self.python, "-m", "bench.feature_stage", *self.files, *where])

    def scoring(self) -> Measured:
        """The model server alone: messages in memory, and single requests."""
        return measure([self.python, "-m", "bench.scoring"])

    def training(self, rounds: int, scratch: Path) -> list[Measured]:
        """A model trained on the log of a run, as a user trains it, into a registry of its own."""
        data = scratch / "trained"
        self.pipeline(data)
        # A command has no environment of its own here.
        os.environ["MODELSTREAM_REGISTRY"] = str(scratch / "models")
        try:
            return [
                measure([self.python, "pipeline.py", "train", "--json", "--data", str(data)]) for _ in range(rounds)
            ]
        finally:
            del os.environ["MODELSTREAM_REGISTRY"]
            shutil.rmtree(data)


def main() -> None:
    """Measure, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--events-per-user", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate-seconds", type=int, default=30, help="how long single events are sent")
    parser.add_argument("--dry", action="store_true", help="print the tables, but don't write docs/performance.md")
    parser.add_argument("--python", default=PROJECT_PYTHON, help="the Python that the pipeline is installed in")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"The machine is busy (load {load:.1f}): times will be too long.", file=sys.stderr)

    with tempfile.TemporaryDirectory(dir=_data_folder()) as folder:
        scratch = Path(folder)
        check_peers(scratch)
        job = make_job(arguments.python, arguments.users, arguments.events_per_user)
        results = run_rounds(job, arguments.rounds, scratch)
        scoring = [job.scoring() for _ in range(arguments.rounds)]
        training = job.training(arguments.rounds, scratch)
        delay = measure_delay(arguments.python, arguments.rate_seconds, scratch)
        table_after = seconds_to_table(arguments.python, scratch / "shown")
    page = Report(results, scoring, training, delay, table_after, load).text()
    print(page)
    if not arguments.dry:
        write_page("bench", page)


def _data_folder() -> Path:
    DATA.mkdir(exist_ok=True)
    return DATA


def make_job(python: str, users: int, events_per_user: int) -> Job:
    """Make the input file if it is not there, and read it once: all rounds find it in the page cache."""
    folder = DATA / f"{users}x{events_per_user}"
    if not (folder / "done").exists():
        options = ["--users", str(users), "--events-per-user", str(events_per_user)]
        subprocess.run([python, "-m", "bench.make_input", str(folder), *options], check=True)
        (folder / "done").touch()
    job = Job(python, folder / "events.ndjson", folder / "enrichment.csv")
    job.events.read_bytes()
    return job


def run_rounds(job: Job, rounds: int, scratch: Path) -> dict[str, list[Measured]]:
    """Return what was measured, a list of rounds for each name."""
    steps = {
        "pipeline": job.pipeline,
        "polars": job.polars,
        "bytewax": lambda _: job.bytewax(),
        "bytewax-parsed": lambda _: job.bytewax("--parsed"),
        "stage": lambda _: job.stage(None),
        "stage+sqlite": job.stage,
    }
    results: dict[str, list[Measured]] = {name: [] for name in steps}
    for number in range(rounds):
        for name, step in steps.items():
            folder = scratch / "work"
            results[name].append(step(folder))
            shutil.rmtree(folder, ignore_errors=True)
            print(f"round {number + 1}: {name}: {results[name][-1].wall:.1f} s", file=sys.stderr, flush=True)
    vectors = {name: {m.result["vectors"] for m in measured} for name, measured in results.items()}
    if len(set.union(*vectors.values())) != 1:
        sys.exit(f"They disagree on the number of vectors: {vectors}")
    return results


def measure_delay(python: str, seconds: int, scratch: Path) -> dict[str, Any]:
    """Return the result of a run with 2,000 single events a second."""
    rate = 2_000
    users = rate * seconds // 1_000
    command = [python, "pipeline.py", "run", "--json", "--quiet", "--fresh", "--data", str(scratch / "delay")]
    return measure([*command, "--users", str(users), "--rate", str(rate)]).result


def check_peers(scratch: Path) -> None:
    """Exit unless both peers give the golden vectors: Polars to 1e-6, Bytewax to the bit."""
    golden = ROOT / "tests" / "golden"
    job = Job("", golden / "reference_events.ndjson", golden / "enrichment.csv")
    expected = pl.read_parquet(golden / "expected_vectors.parquet").drop("event_time", "event_type")
    job.polars(scratch / "check")
    of_polars = pl.read_parquet(scratch / "check" / "inference" / "*.parquet").sort("position")
    of_bytewax = scratch / "check.parquet"
    job.bytewax("--output", str(of_bytewax))
    for name, found, tolerance in (
        ("Polars", of_polars, TOLERANCE),
        ("Bytewax", pl.read_parquet(of_bytewax), 0.0),
    ):
        # Bytewax goes through a batch user by user, so only each user's order is the same.
        wanted = expected.sort("user_id", maintain_order=True)
        got = found.select(pl.col("user_id").cast(pl.String), pl.exclude("user_id"))
        got = got.sort("user_id", maintain_order=True).select(wanted.columns)
        difference = (got.drop("user_id") - wanted.drop("user_id")).select(pl.all().abs().max())
        scale = wanted.drop("user_id").select(pl.max_horizontal(pl.all().abs().max(), 1.0))
        worst = max(difference.row(0)) / scale.item()
        if not got["user_id"].equals(wanted["user_id"]) or not worst <= tolerance:
            sys.exit(f"{name} does not give the golden vectors (off by {worst:.2g}): not a fair peer")


if __name__ == "__main__":
    main()
