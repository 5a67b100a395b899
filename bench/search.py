"""Searches the highest rate that a pipeline can sustain, from probes at a few rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LIMIT_MS = 100.0
"""The 99th percentile of the delay that is allowed."""
BEHIND = 1.5
"""Seconds after the load's end within which all must be processed: the tail of a run, and no backlog."""
SENT = 0.97
"""The share of the events that must have been sent by the end of the load."""
FACTOR = 2.0
PRECISE = 1.15
"""The search ends when the lowest rate that failed is at most this much above the highest that held."""
PROBES = 8


@dataclass(frozen=True)
class Probe:
    """What a load of some seconds showed."""

    rate: float
    """Events a second that were to be sent."""
    p50: float
    """Delay of an event, in ms; infinite if nothing came out."""
    p99: float
    behind: float = 0.0
    """Seconds from the end of the load to the last event."""
    sent: float = 1.0
    """Share of the events that was sent in time."""

    @property
    def holds(self) -> bool:
        """Tell whether the rate is sustained: delays are short, and no backlog has grown.

        >>> Probe(1000, 8, 40).holds, Probe(1000, 8, 140).holds, Probe(1000, 8, 40, behind=3).holds
        (True, False, False)
        """
        return self.p99 <= LIMIT_MS and self.behind <= BEHIND and self.sent >= SENT

    def __str__(self) -> str:
        verdict = "sustained" if self.holds else "not sustained"
        if not math.isfinite(self.p99):
            return f"{self.rate:,.0f}/s: {verdict}"
        return f"{self.rate:,.0f}/s: p50 {self.p50:,.0f} ms, p99 {self.p99:,.0f} ms: {verdict}"


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    probes: list[Probe]
    """In the order in which they were made."""

    @property
    def best(self) -> Probe | None:
        """The highest rate that held; none if no rate did."""
        return max((probe for probe in self.probes if probe.holds), key=lambda probe: probe.rate, default=None)

    @property
    def is_bound(self) -> bool:
        """Whether a higher rate failed; otherwise the highest that held is a lower bound."""
        return self.best is not None and any(p.rate > self.best.rate for p in self.probes if not p.holds)


def highest_rate(
    probe: Callable[[float], Probe],
    start: float,
    *,
    lowest: float = 50.0,
    highest: float = 200_000.0,
    probes: int = PROBES,
) -> Found:
    """Probe rates from `start`, doubling or halving until one holds and one fails, then between these two.

    Every rate lies between the highest that held below all that failed, so a probe that failed by chance makes the
    result smaller, never larger than what was seen to hold.

    >>> found = highest_rate(lambda rate: Probe(rate, 5, 20 if rate <= 5000 else 900), 1000)
    >>> [p.rate for p in found.probes], found.best.rate, found.is_bound
    ([1000, 2000, 4000, 8000, 5700, 4800, 5200], 4800, True)
    """
    made: list[Probe] = []
    held, failed = 0.0, math.inf
    rate = rounded(min(max(start, lowest), highest))
    while len(made) < probes:
        made.append(probe(rate))
        if made[-1].holds:
            held = rate
        else:
            failed = rate
        if failed <= held * PRECISE or held >= highest or failed <= lowest:
            break
        if held and failed < math.inf:
            following = math.sqrt(held * failed)
        else:
            following = min(held * FACTOR, highest) if held else max(failed / FACTOR, lowest)
        rate = rounded(following)
        if rate in (held, failed):
            break
    return Found(made)


def rounded(rate: float) -> float:
    """Return a rate with two significant digits.

    >>> [rounded(rate) for rate in (4.26, 3162.3, 99_900)]
    [4.3, 3200, 100000]
    """
    digits = 1 - math.floor(math.log10(rate))
    return round(rate, digits) if digits > 0 else int(round(rate, digits))
