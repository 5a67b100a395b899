"""The pipeline beside Polars and Bytewax on one file, with what its parts take alone."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.charts import Bar, bars
from bench.measure import CommandError, Measured, measure, seconds_to_table
from bench.page import ROOT, Section
from bench.peers import check, compare
from bench.report import LABELS, Report
from bench.sitting import Sitting

MODEL = ROOT / "assets" / "models" / "churn" / "1"
TOLERANCE = 1e-6
"""By how much Polars may be off: its variances come from sums of squares."""


@dataclass(frozen=True)
class Job:
    """What is measured in each round."""

    sitting: Sitting

    def pipeline(self, _: Path) -> Measured:
        """(a): the pipeline as a user runs it."""
        return self.sitting.pipeline(*self.sitting.files, watch=True)

    def polars(self, output: Path) -> Measured:
        """(b): the whole job in Polars."""
        return polars(output, *self.sitting.files)

    def bytewax(self, _: Path) -> Measured:
        """(c): the vectors in Bytewax."""
        return bytewax(*self.sitting.files)

    def bytewax_parsed(self, _: Path) -> Measured:
        """(c) from events that are parsed before the clock starts."""
        return bytewax(*self.sitting.files, "--parsed")

    def stage(self, _: Path) -> Measured:
        """The feature stage alone, in memory."""
        return measure([self.sitting.python, "-m", "bench.feature_stage", *self.sitting.files])

    def stage_and_store(self, folder: Path) -> Measured:
        """The feature stage with SQLite under it."""
        command = [self.sitting.python, "-m", "bench.feature_stage", *self.sitting.files]
        return measure([*command, "--store", str(folder)])

    def scoring(self) -> Measured:
        """The model server alone: messages in memory, and single requests."""
        return measure([self.sitting.python, "-m", "bench.scoring"])

    def training(self) -> Measured:
        """A model trained on the log of a run, as a user trains it, into a registry of its own."""
        scratch = self.sitting.scratch
        data = scratch / "trained"
        keep = ["--json", "--quiet", "--fresh", "--data", str(data)]
        measure([self.sitting.python, "pipeline.py", "run", *self.sitting.files, *keep])
        os.environ["MODELSTREAM_REGISTRY"] = str(scratch / "models")  # a command has no environment of its own here
        try:
            return measure([self.sitting.python, "pipeline.py", "train", "--json", "--data", str(data)])
        finally:
            del os.environ["MODELSTREAM_REGISTRY"]
            shutil.rmtree(data)


def polars(output: Path, *options: str) -> Measured:
    """Run the peer."""
    return measure(
        [sys.executable, "-m", "bench.peer_polars", *options, "--model", str(MODEL), "--output", str(output)]
    )


def bytewax(*options: str) -> Measured:
    """Run the peer."""
    return measure([sys.executable, "-m", "bench.peer_bytewax", *options])


def check_peers(scratch: Path) -> None:
    """Raise CommandError unless both peers give the golden vectors: Polars to 1e-6, Bytewax to the bit."""
    golden = ROOT / "tests" / "golden"
    files = ["--input", str(golden / "reference_events.ndjson"), "--enrichment", str(golden / "enrichment.csv")]
    polars(scratch / "check", *files)
    compare("Polars", pl.read_parquet(scratch / "check" / "inference" / "*.parquet").sort("position"), TOLERANCE)
    check(scratch, "Bytewax", bytewax)


def bulk(sitting: Sitting) -> Section:
    """Check the peers, run all of it in turn, and report."""
    load = os.getloadavg()[0]
    check_peers(sitting.scratch)
    sitting.say("both peers give the golden vectors")
    job = Job(sitting)
    results = run_rounds(sitting, job)
    events = int(results["pipeline"][0].result["events"])
    speeds = {
        name: events / statistics.median(float(each.result["seconds"]) for each in results[name]) for name in LABELS
    }
    sitting.bulk_rate = speeds["pipeline"]
    scoring = [job.scoring() for _ in range(sitting.rounds)]
    training = [job.training()]
    sitting.say(f"training: {training[0].wall:.1f} s")
    table_after = seconds_to_table(sitting.python, sitting.scratch / "shown")
    rows = [Bar(LABELS[name], speed, f"{speed:,.0f}/s", name == "pipeline") for name, speed in speeds.items()]
    report = Report(results, scoring, training, table_after, load)
    return Section(report.text(), {"bulk": bars("Events a second on one file, processing alone", rows)})


def run_rounds(sitting: Sitting, job: Job) -> dict[str, list[Measured]]:
    """Return what was measured, a list of rounds for each name."""
    steps = {
        "pipeline": job.pipeline,
        "polars": job.polars,
        "bytewax": job.bytewax,
        "bytewax-parsed": job.bytewax_parsed,
        "stage": job.stage,
        "stage+sqlite": job.stage_and_store,
    }
    results: dict[str, list[Measured]] = {name: [] for name in steps}
    for number in range(sitting.rounds):
        for name, step in steps.items():
            folder = sitting.scratch / "step"
            results[name].append(step(folder))
            shutil.rmtree(folder, ignore_errors=True)
            sitting.say(f"round {number + 1}: {name}: {results[name][-1].wall:.1f} s")
    vectors = {name: {m.result["vectors"] for m in measured} for name, measured in results.items()}
    if len(set.union(*vectors.values())) != 1:
        raise CommandError(f"they disagree on the number of vectors: {vectors}")
    return results
