"""What a message of one event costs the functions, by how many wait (`small_messages`)."""

from __future__ import annotations

from bench.charts import Axis, lines
from bench.page import Section
from bench.sitting import Sitting

SECONDS = 0.5
NAMES = {
    "posted": "a posted event",
    "lines": "a line of `run --rate`",
    "events": "an event between functions",
    "vectors": "a vector",
    "predictions": "a prediction",
}


def messages(sitting: Sitting) -> Section:
    """Take messages of every kind, by the number that wait."""
    seconds = min(SECONDS, sitting.seconds / 20)
    said = sitting.module("small_messages", ["--json", "--seconds", f"{seconds:g}"])
    waiting = said["waiting"]
    table = [
        f"| waiting | {' | '.join(f'{count:,}' for count in waiting)} |",
        f"|---|{'--:|' * len(waiting)}",
        *(f"| {NAMES[kind]} | {' | '.join(f'{one:,.1f}' for one in each)} |" for kind, each in said["micros"].items()),
    ]
    series = {kind: list(zip(waiting, each, strict=True)) for kind, each in said["micros"].items()}
    title = "CPU of taking a message of one event, by how many wait"
    return Section("\n".join(table), {"messages": lines(title, Axis("messages that wait"), Axis("µs"), series)})
