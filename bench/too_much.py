"""Twice the load that can be sustained (`overload`): throughput, memory, and the way back to the usual delay."""

from __future__ import annotations

from typing import Any

from bench.charts import Axis, lines
from bench.page import Section
from bench.report import at_least, at_most
from bench.sitting import Sitting

SECONDS = 60.0


def overload(sitting: Sitting) -> Section:
    """Load a pipeline as fast as it answers, then another one with twice of that."""
    said = sitting.module("overload", ["--json", "--seconds", f"{min(SECONDS, 6 * sitting.seconds):g}"])
    sitting.say(f"{said['share']:.0%} of the highest throughput under twice the load")
    return Section("\n".join(table(said)), charts(said))


def table(said: dict[str, Any]) -> list[str]:
    """Return the rows with the goals."""
    highest, twice = said["highest"], said["twice"]
    return [
        "| | measured | goal | |",
        "|---|--:|---|---|",
        at_least("as fast as answers come, events/s processed", highest["processed_per_second"], None),
        at_least("under twice that load, events/s processed", twice["processed_per_second"], None),
        f"| share of the highest | {said['share']:.0%} | at least 95% | "
        f"{'reached' if said['share'] >= 0.95 else '**missed**'} |",
        at_most("usual delay after the end of the load", twice["usual_after"], 10, "{:.1f} s"),
        at_most("longest delay", twice["longest_delay"], None, "{:.1f} s"),
        at_most("memory of all processes before", twice["memory_before"] / 1e6, None, "{:,.0f} MB"),
        at_most("its peak", twice["memory_most"] / 1e6, None, "{:,.0f} MB"),
    ]


def charts(said: dict[str, Any]) -> dict[str, str]:
    """Return the charts of the delay and of memory over the seconds of both phases."""
    found = {}
    for name, column, scale, title, unit in (
        ("overload-delay", 2, 1.0, "Overload: delay of the oldest event", "s"),
        ("overload-memory", 3, 1e6, "Overload: memory of all processes", "MB"),
    ):
        series = {
            what: [(one[0], one[column] / scale) for one in said[phase]["seen"]]
            for what, phase in (("usual load", "highest"), ("twice as much", "twice"))
        }
        axes = Axis("seconds", logarithmic=False), Axis(unit, logarithmic=False)
        found[name] = lines(title, *axes, series)
    return found
