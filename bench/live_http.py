"""Events over HTTP with 64 connections: one a body, the highest rate that is sustained; and bodies of 1,000."""

from __future__ import annotations

import statistics
from typing import Any

from bench.live import HEAD, Source, chart, probe_of, searched
from bench.page import Section
from bench.search import Probe
from bench.sitting import Sitting

START = 2_500.0
BODY = 1_000


def http(sitting: Sitting) -> Section:
    """Single posts, then bodies of many events."""
    rows, found = searched(sitting, "one event a body", by_rate(sitting), START)
    most = said_by(sitting, 0.0, 1)
    bodies = [said_by(sitting, 0.0, BODY) for _ in range(sitting.rounds)]
    closed = {
        "one event a body, as fast as answers come": processed(most),
        f"bodies of {BODY:,}, as fast as answers come": statistics.median(map(processed, bodies)),
    }
    for name, rate in closed.items():
        sitting.say(f"{name}: {rate:,.0f} events/s")
    more = [f"| {name} | {rate:,.0f} | {sitting.against_bulk(rate)} | | |" for name, rate in closed.items()]
    picture = chart("HTTP, one event a body: delay by rate", {"": found})
    return Section("\n".join([*HEAD, *rows, *more]), {"http": picture})


def processed(said: dict[str, Any]) -> float:
    """Return the events a second from the first post until the last event was processed.

    >>> processed({"events": 1000, "seconds": 4.0})
    250.0
    """
    return float(said["events"]) / float(said["seconds"])


def said_by(sitting: Sitting, rate: float, events: int) -> dict[str, Any]:
    """Return what a load on a new pipeline says."""
    options = ["--rate", f"{rate:g}", "--events", str(events), "--seconds", f"{sitting.seconds:g}"]
    return sitting.module("http_probe", options)


def by_rate(sitting: Sitting) -> Source:
    """Return the probe by single posts."""

    def probe(rate: float) -> Probe:
        return probe_of(rate, said_by(sitting, rate, 1))

    return probe
