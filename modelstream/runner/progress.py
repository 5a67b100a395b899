"""How far a pipeline is with an input, from the first line sent to the last prediction logged, and the time left."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from modelstream.base.words import counted
from modelstream.runner.state import FunctionState

SURE_SECONDS, SURE_SHARE = 2.0, 0.03
"""The time that is left is told once this much has passed and is done."""


class Progress:
    """The progress of a run. Ask it every time that the states of the functions are looked at.

    >>> from modelstream.stages.counters import Counters
    >>> def at(sent, lag):
    ...     source = FunctionState(name="source", state="working", counters=Counters(rows_out=sent))
    ...     return source, FunctionState(name="handler", state="working", lag=lag)
    >>> progress = Progress()
    >>> progress.text(at(0, 0), 100, now=10.0), progress.text(at(60, 30), 100, now=20.0)
    ('0 % done (0 of 100 lines sent)', '45 % done (60 of 100 lines sent), about 12 s left')
    """

    def __init__(self) -> None:
        self._begun: tuple[float, float] | None = None
        self._waited: dict[str, int] = {}
        """The lag of each function at the beginning: rows of an earlier run."""
        self._share = 0.0

    def text(self, states: Sequence[FunctionState], expected: int, now: float) -> str:
        """Return the progress in words; `states` are those of the source and of the functions after it, in order.

        `expected` is the number of lines that the source will have sent in all, 0 if that is not known.
        """
        source, *functions = states
        sent = source.counters.rows_out
        if source.state == "done":
            expected = sent
        elif not expected:
            lag = sum(state.lag for state in functions)
            about = "about " if any(state.about for state in functions) else ""
            return f"{counted(sent, 'line')} sent, {about}{counted(lag, 'row')} under way"
        if self._begun is None:
            self._waited = {state.name: state.lag for state in functions}
            self._begun = now, self.share(states, expected)
        self._share = max(self._share, self.share(states, expected))
        percent = min(99, int(round(100 * self._share, 6)))  # 100 is for the end
        told = f"{percent} % done ({sent:,} of {expected:,} lines sent)"
        return told + self._left(now)

    def share(self, states: Sequence[FunctionState], expected: int) -> float:
        """Return the share of the work that is done, 0 to 1: of all functions, which are taken to have as much to do.

        The share of a function is that of the function before it, times the share of what came to it that it has done.
        """
        through = states[0].counters.rows_out / expected if expected else 1.0
        shares = [min(1.0, through)]
        for before, state in itertools.pairwise(states):
            came = self._waited.get(state.name, 0) + before.counters.rows_out
            shares.append(shares[-1] * (1.0 - min(1.0, state.lag / came) if came else 1.0))
        return sum(shares) / len(shares)

    def _left(self, now: float) -> str:
        assert self._begun is not None
        passed, done = now - self._begun[0], self._share - self._begun[1]
        if passed < SURE_SECONDS or done < SURE_SHARE:
            return ""
        return f", about {_duration(passed * (1.0 - self._share) / done)} left"


def _duration(seconds: float) -> str:
    """Return a time as a person says it.

    >>> _duration(0.4), _duration(89.6), _duration(5000), _duration(20000)
    ('1 s', '90 s', '83 min', '5.6 h')
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
