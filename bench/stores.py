"""The pipeline over the other backends, against SQLite (`backends`)."""

from __future__ import annotations

from typing import Any

from bench.charts import Bar, bars
from bench.page import Section
from bench.sitting import Sitting

USUAL = "SQLite"
PART = "V3IO's stand-in"
"""A Python program that says nothing of V3IO's speed: it isn't compared."""


def backends(sitting: Sitting) -> Section:
    """Run the same file over each of them."""
    shape = ["--users", str(sitting.users), "--events-per-user", str(sitting.events_per_user)]
    said = sitting.module("backends", [*shape, "--rounds", str(sitting.rounds)])
    text = f"Medians of {sitting.rounds} rounds, one after the other; the rows of all logs are the same."
    return Section("\n".join([text, "", *table(said)]), {"backends": chart(said)})


def table(said: dict[str, dict[str, Any]]) -> list[str]:
    """Return the table."""
    rows = ["| | events | events/s | against SQLite | loading 90,000 lookup rows | a flush of 2,000 users |"]
    rows.append("|---|--:|--:|--:|--:|--:|")
    for name, one in said.items():
        ratio = "" if name == PART else f"{one['events_per_second'] / said[USUAL]['events_per_second']:.2f} ×"
        times = f"{one['load_seconds']:.2f} s | {1000 * one['flush_seconds']:.0f} ms"
        rows.append(f"| {name} | {one['events']:,} | {one['events_per_second']:,.0f} | {ratio} | {times} |")
    return rows


def chart(said: dict[str, dict[str, Any]]) -> str:
    """Return the chart of events a second."""
    rows = [Bar(name, one["events_per_second"], f"{one['events_per_second']:,.0f}/s") for name, one in said.items()]
    return bars("Over other backends: events/s", [row for row in rows if row.label != PART])
