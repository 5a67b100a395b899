"""The cost of an event by the number of users: time and CPU of whole runs, against 2,000 users."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.charts import Bar, bars
from bench.measure import Measured
from bench.page import Section
from bench.sitting import Sitting

SIZES = ((2_000, 1_000), (20_000, 100), (200_000, 10), (2_000_000, 1))
"""Users, and events of each after the profile event: 2.0 to 2.2 million events, and 4 million."""
ONE_RUN = 1_000_000
"""From this many users on, one round is enough: a run takes a minute or two."""


@dataclass(frozen=True)
class Cost:
    """What an event costs with so many users."""

    users: int
    events: int
    vectors: int
    micros: float
    """Microseconds from the first event to the last prediction, by event."""
    cpu: float
    """Microseconds of CPU after the start, by event."""
    peak_mb: float


def cost(users: int, runs: list[Measured]) -> Cost:
    """Return the median of some runs."""
    events = int(runs[0].result["events"])

    def working(run: Measured) -> float:
        started = sum(run.function_cpu(float(run.result["startup_seconds"])).values())
        return run.cpu - started

    return Cost(
        users,
        events,
        int(runs[0].result["vectors"]),
        1e6 * statistics.median(float(run.result["seconds"]) for run in runs) / events,
        1e6 * statistics.median(map(working, runs)) / events,
        max(run.peak_mb for run in runs),
    )


def users(sitting: Sitting) -> Section:
    """Run each size, generated as it is read."""
    scale = sitting.users / SIZES[0][0]
    costs = []
    for size, events in SIZES:
        many = max(1, round(size * scale))
        options = [
            "--users",
            str(many),
            "--events-per-user",
            str(max(1, round(events * sitting.events_per_user / 1000))),
        ]
        rounds = 1 if many >= ONE_RUN else sitting.rounds
        costs.append(cost(many, [sitting.pipeline(*options) for _ in range(rounds)]))
        sitting.say(f"{many:,} users: {costs[-1].micros:.1f} us an event")
    return Section("\n".join(table(costs)), {"users": chart(costs)})


def table(costs: list[Cost]) -> list[str]:
    """Return the table; ratios are to its first row."""
    first = costs[0]
    return [
        "| users | events | vectors | events/s | time for an event | CPU for an event | peak memory |",
        "|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {one.users:,} | {one.events:,} | {one.vectors:,} | {1e6 / one.micros:,.0f} "
            f"| {one.micros / first.micros:.2f} × | {one.cpu / first.cpu:.2f} × | {one.peak_mb:,.0f} MB |"
            for one in costs
        ),
    ]


def chart(costs: list[Cost]) -> str:
    """Return the chart of both ratios."""
    first, rows = costs[0], []
    for what in ("time", "CPU"):
        for one in costs:
            ratio = one.micros / first.micros if what == "time" else one.cpu / first.cpu
            rows.append(Bar(f"{one.users:,} users, {what}", ratio, f"{ratio:.2f} ×", ours=what == "time"))
    return bars("Cost of an event by number of users, against the first", rows)
