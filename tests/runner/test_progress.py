"""The progress of a run is that of the whole pipeline: it ends with the last prediction, and never goes back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.runner.progress import Progress
from modelstream.runner.state import FunctionState
from modelstream.stages.counters import Counters

NAMES = ("source", "event-handler", "stream-to-features", "model-server", "inference-logger")


@dataclass
class Line:
    """A made-up pipeline: rows that each function has passed on, and one row of `keeps` that the next one gets."""

    passed: list[int]
    waiting: list[int]

    def states(self, state: str = "working") -> list[FunctionState]:
        return [
            FunctionState(
                name=name,
                state=state if name == "source" else "working",
                counters=Counters(rows_out=self.passed[i]),
                lag=self.waiting[i],
            )
            for i, name in enumerate(NAMES)
        ]


def percent(text: str) -> int:
    found = re.match(r"(\d+) % done", text)
    assert found, text
    return int(found[1])


def test_all_lines_sent_is_not_all_done() -> None:
    progress = Progress()
    begun = progress.text(Line([0] * 5, [0] * 5).states(), 1000, now=0.0)
    assert begun == "0 % done (0 of 1,000 lines sent)"
    text = progress.text(Line([1000, 0, 0, 0, 0], [0, 1000, 0, 0, 0]).states(), 1000, now=10.0)
    assert text == "20 % done (1,000 of 1,000 lines sent), about 40 s left"
    text = progress.text(Line([1000, 1000, 700, 700, 0], [0, 0, 0, 0, 350]).states("done"), 1000, now=45.0)
    assert text == "90 % done (1,000 of 1,000 lines sent), about 5 s left"
    text = progress.text(Line([1000, 1000, 700, 700, 0], [0, 0, 0, 0, 0]).states("done"), 1000, now=50.0)
    assert percent(text) == 99, "the last word is not for the percentage"


def test_rows_of_an_earlier_run_count_as_work() -> None:
    progress = Progress()
    waiting = Line([0] * 5, [0, 0, 0, 0, 500])
    assert percent(progress.text(waiting.states("done"), 0, now=0.0)) == 80
    waiting.waiting[4] = 250
    assert progress.text(waiting.states("done"), 0, now=5.0).endswith("about 5 s left")


def test_without_a_known_end_rows_are_told_instead() -> None:
    states = Line([1200, 0, 0, 0, 0], [0, 700, 0, 0, 34]).states()
    assert Progress().text(states, 0, now=0.0) == "1,200 lines sent, 734 rows under way"


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), max_size=60), st.integers(0, 50))
def test_progress_never_goes_back_and_is_between_nothing_and_all(steps: list[tuple[int, int]], before: int) -> None:
    line, progress, last = Line([0] * 5, [0, before, before, 0, before]), Progress(), 0
    for now, (place, number) in enumerate(steps):
        moved = min(number, 100 - line.passed[0]) if place == 0 else min(number, line.waiting[place])
        line.passed[place] += moved
        if place:
            line.waiting[place] -= moved
        if place < 4:
            line.waiting[place + 1] += moved
        assert 0.0 <= progress.share(line.states(), 100) <= 1.0
        done = percent(progress.text(line.states(), 100, now=float(now)))
        assert last <= done <= 99
        last = done
