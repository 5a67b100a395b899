"""What was measured, as the tables of docs/performance.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from bench.measure import Measured

FUNCTIONS = ["source", "event-handler", "stream-to-features", "model-server", "inference-logger", "pipeline.py"]
LABELS = {
    "pipeline": "(a) pipeline",
    "polars": "(b) Polars, one shot",
    "bytewax": "(c) Bytewax, vectors only",
    "bytewax-parsed": "(c) from events parsed beforehand",
}


@dataclass(frozen=True)
class Report:
    """The rounds of each step, and what was measured once."""

    rounds: dict[str, list[Measured]]
    scoring: list[Measured]
    """The rounds of the model server alone."""
    training: list[Measured]
    """Trainings on the log of one run of the pipeline."""
    table_after: float
    load: float
    """Load of the machine before."""

    def text(self) -> str:
        """Return the section: where it was measured, the table of runs, and the goals."""
        events, vectors = (int(self.rounds["pipeline"][0].result[name]) for name in ("events", "vectors"))
        rounds = len(self.rounds["pipeline"])
        head = [
            f"{events:,} events in, {vectors:,} vectors and predictions out; medians of {rounds} rounds.",
            f"{machine()}; load average before: {self.load:.1f}; {datetime.now(UTC):%Y-%m-%d}.",
            "",
            "| | events/s | processing | start-up | whole process | CPU | peak memory |",
            "|---|--:|--:|--:|--:|--:|--:|",
        ]
        runs = [self._run(name, events) for name in LABELS]
        goals = ["| | measured | goal | |", "|---|--:|---|---|", *self._goals(events)]
        functions = [
            "CPU seconds of (a) by function:",
            "",
            "| | until all are ready | after that | events per CPU second |",
            "|---|--:|--:|--:|",
            *self._functions(events),
        ]
        return "\n".join([*head, *runs, "", *goals, "", *functions])

    def _median(self, name: str, of: Callable[[Measured], float]) -> float:
        return statistics.median(of(measured) for measured in self.rounds[name])

    def _seconds(self, name: str) -> float:
        return self._median(name, lambda m: float(m.result["seconds"]))

    def _scoring(self, name: str) -> float:
        return statistics.median(float(measured.result[name]) for measured in self.scoring)

    def _training(self, of: Callable[[Measured], float]) -> float:
        return statistics.median(of(measured) for measured in self.training)

    def _run(self, name: str, events: int) -> str:
        seconds = self._seconds(name)
        start_up = self._median(name, lambda m: float(m.result.get("startup_seconds", 0)))
        cells = [
            LABELS[name],
            f"{events / seconds:,.0f}",
            f"{seconds:.2f} s",
            f"{start_up:.1f} s" if start_up else "",
            f"{self._median(name, lambda m: m.wall):.1f} s",
            f"{self._median(name, lambda m: m.cpu):.1f} s",
            f"{self._median(name, lambda m: m.peak_mb):,.0f} MB",
        ]
        return f"| {' | '.join(cells)} |"

    def _functions(self, events: int) -> list[str]:
        before, after = [], []
        for measured in self.rounds["pipeline"]:
            ready = measured.function_cpu(float(measured.result["startup_seconds"]))
            before.append(ready)
            after.append({name: cpu - ready.get(name, 0.0) for name, cpu in measured.function_cpu().items()})
        rows = []
        for name in sorted(after[0], key=FUNCTIONS.index):
            start, work = (statistics.median(one.get(name, 0.0) for one in each) for each in (before, after))
            speed = f"{events / work:,.0f}" if work > 0.05 and name != FUNCTIONS[-1] else ""
            rows.append(f"| {name} | {start:.1f} | {work:.1f} | {speed} |")
        return rows

    def _goals(self, events: int) -> list[str]:
        ours, polars = self._seconds("pipeline"), self._seconds("polars")
        whole = self._median("pipeline", lambda m: m.wall) / self._median("polars", lambda m: m.wall)
        parts = self._median("polars", lambda m: float(m.result["parts"]["read"] + m.result["parts"]["vectors"]))
        first = self._median("pipeline", lambda m: m.first_file)
        memory = self._median("pipeline", lambda m: m.peak_mb)
        return [
            at_most("processing, against (b)", ours / polars, 2, "{:.2f} ×"),
            at_most("processing, against (c)", ours / self._seconds("bytewax"), 1, "{:.2f} ×"),
            at_most(
                "against (c) from events parsed beforehand", ours / self._seconds("bytewax-parsed"), None, "{:.2f} ×"
            ),
            at_least("processing, events/s", events / ours, 250_000),
            at_most("whole process, against (b)", whole, 4, "{:.2f} ×"),
            at_least(
                "feature stage alone, one core, messages of 1,000, events/s", events / self._seconds("stage"), 500_000
            ),
            at_least(
                "the same with its SQLite streams and tables, events/s", events / self._seconds("stage+sqlite"), None
            ),
            at_least(
                "scoring alone, one core, messages of 1,000, vectors/s", self._scoring("vectors_per_second"), 500_000
            ),
            at_most("a single V2 request inside the process, p50", self._scoring("request_p50_ms"), None, "{:.2f} ms"),
            at_most("a single V2 request inside the process, p99", self._scoring("request_p99_ms"), 5, "{:.2f} ms"),
            at_most("training on the log of events, whole process", self._training(lambda m: m.wall), 60, "{:.1f} s"),
            at_most("its peak memory", self._training(lambda m: m.peak_mb), 1_500, "{:,.0f} MB"),
            at_most("live table appears after", self.table_after, 2, "{:.1f} s"),
            at_most("first stored prediction after", first, 10, "{:.1f} s"),
            at_most("peak memory of all processes", memory, 2_000, "{:,.0f} MB"),
            at_least("(b) itself: reading and vectors, events/s", events / parts, 600_000),
        ]


def at_most(what: str, value: float, limit: float | None, form: str) -> str:
    """Return the row of a measurement with a goal "at most"; without a limit there is no goal.

    >>> at_most("delay", 71.4, 100, "{:.0f} ms")
    '| delay | 71 ms | at most 100 ms | reached |'
    """
    if limit is None:
        return f"| {what} | {form.format(value)} | | |"
    return f"| {what} | {form.format(value)} | at most {_short(form, limit)} | {_met(value <= limit)} |"


def at_least(what: str, value: float, limit: float | None) -> str:
    """Return the row of a goal that is reached at or above its limit."""
    if limit is None:
        return f"| {what} | {value:,.0f} | | |"
    return f"| {what} | {value:,.0f} | at least {limit:,.0f} | {_met(value >= limit)} |"


def _short(form: str, limit: float) -> str:
    return form.replace(":.2f", ":,.0f").replace(":.1f", ":,.0f").format(limit)


def _met(met: bool) -> str:
    return "reached" if met else "**missed**"


def machine() -> str:
    """Return the machine's relevant properties, without anything that identifies it."""
    memory = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores, {memory:.0f} GB, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )
