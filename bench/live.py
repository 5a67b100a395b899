"""Single events: the highest rate that is sustained, and the delay of an event at a tenth and at half of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.charts import Axis, lines
from bench.measure import CommandError
from bench.page import Section
from bench.search import LIMIT_MS, PROBES, Found, Probe, highest_rate, rounded
from bench.sitting import Sitting

START = 4_000.0
"""Events a second of the first probe."""
EVENTS_OF_A_USER = 200
LEAST_USERS = 20
TAIL = 60.0
"""Seconds beyond three times the load after which a probe is ended: it is not sustained."""
HEAD = [
    "| | events/s | of the bulk rate | p50 | p99 |",
    "|---|--:|--:|--:|--:|",
]
SHARES = {"half of it": 0.5, "a tenth of it": 0.1}

Source = Callable[[float], Probe]


def live(sitting: Sitting) -> Section:
    """Single events by `run --rate`."""
    rows, found = searched(sitting, "`run --rate`", by_rate(sitting), START)
    return Section("\n".join([*HEAD, *rows]), {"live": chart("Single events: delay by rate", {"run --rate": found})})


def shape_for(rate: float, seconds: float) -> tuple[int, int]:
    """Return users, at least some for each shard, and events of each, so that a load lasts so many seconds.

    >>> shape_for(4000, 10), shape_for(50, 10)
    ((200, 199), (20, 24))
    """
    users = max(LEAST_USERS, round(rate * seconds / EVENTS_OF_A_USER))
    return users, max(1, round(rate * seconds / users) - 1)  # and one event with the user's profile


def by_rate(sitting: Sitting, stores: Callable[[], list[str]] = list) -> Source:
    """Return the probe by `run --rate`, over the stores that options name anew for each."""

    def probe(rate: float) -> Probe:
        users, events = shape_for(rate, sitting.seconds)
        many = ["--users", str(users), "--events-per-user", str(events)]
        try:
            said = sitting.pipeline("--rate", f"{rate:g}", *many, *stores(), limit=3 * sitting.seconds + TAIL).result
        except CommandError as error:
            if "not done" not in str(error):
                raise
            return Probe(rate, math.inf, math.inf, math.inf)
        return probe_of(rate, said)

    return probe


def probe_of(rate: float, said: dict[str, Any]) -> Probe:
    """Return a probe from a summary with events, seconds and delay_ms; without any delay it doesn't hold.

    >>> probe_of(100, {"events": 1000, "seconds": 10.4, "delay_ms": {"p50": 5, "p99": 9}}).holds
    True
    """
    delay = said.get("delay_ms") or {"p50": math.inf, "p99": math.inf}
    behind = float(said["seconds"]) - float(said["events"]) / rate
    return Probe(rate, float(delay["p50"]), float(delay["p99"]), behind, float(said.get("sent", 1.0)))


def searched(
    sitting: Sitting, name: str, source: Source, start: float, most: int = PROBES
) -> tuple[list[str], list[Probe]]:
    """Search the highest rate, probe half and a tenth of it; return rows of a table, and all probes."""

    def told(rate: float) -> Probe:
        probe = source(rate)
        sitting.say(f"{name}: {probe}")
        return probe

    found = highest_rate(told, start, probes=min(most, sitting.probes))
    best = found.best
    if best is None:
        return [f"| {name} | none was sustained | | | {_slowest(found)} |"], found.probes
    rows, made = [_row(sitting, f"{name}, sustained{'' if found.is_bound else ' (or more)'}", best)], []
    for share, part in SHARES.items():
        made.append(told(rounded(best.rate * part)))
        rows.append(_row(sitting, f"{name}, {share}", made[-1]))
    return rows, [*found.probes, *made]


def _slowest(found: Found) -> str:
    lowest = min(found.probes, key=lambda probe: probe.rate)
    return f"{lowest.p99:,.0f} ms at {lowest.rate:,.0f}/s" if math.isfinite(lowest.p99) else ""


def _row(sitting: Sitting, name: str, probe: Probe) -> str:
    share = sitting.against_bulk(probe.rate)
    delays = " | ".join(f"{value:,.0f} ms" if math.isfinite(value) else "" for value in (probe.p50, probe.p99))
    return f"| {name} | {probe.rate:,.0f} | {share} | {delays} |"


def chart(title: str, probes: Mapping[str, Sequence[Probe]]) -> str:
    """Return the chart of delays by rate, with the limit of the 99th percentile."""
    series = {}
    for name, each in probes.items():
        prefix = f"{name}, " if len(probes) > 1 else ""
        series[f"{prefix}p50"] = [(probe.rate, max(probe.p50, 0.1)) for probe in each]
        series[f"{prefix}p99"] = [(probe.rate, max(probe.p99, 0.1)) for probe in each]
    return lines(title, Axis("events/s"), Axis("ms"), series, limit=(LIMIT_MS, "limit of p99"))
