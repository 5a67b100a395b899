"""Which vectors a snapshot takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelstream.training.snapshot.examples import Bools, Int64s

SOURCES = ("events", "inference")

OnProgress = Callable[[str, int, int], None]
"""Called with a step, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which vectors to take.

    >>> Selection(first=40).expected(np.array([10, 1_000, 1_000_000])).round().tolist()
    [10.0, 169.0, 445.0]
    """

    seed: int = 1
    first: int = 40
    """All of a user's first `first` vectors are taken to learn from; after that the k-th with a chance of first / k."""
    test_share: float = 0.2
    """Share of the users that are tested on."""
    since: int | None = None
    until: int | None = None
    """Event times (microseconds since 1970 UTC): vectors before `since` or after `until` are not taken."""
    most: int = 1_000_000
    """Vectors to learn from, and to test on: about 100 MB each. Where there are more, fewer users are learned from,
    and an even share of each user's vectors is tested on."""
    source: str = "events"
    """Replay the log of `events`, or read what the log of `inference` says was served."""

    def expected(self, vectors: Int64s) -> npt.NDArray[np.float64]:
        """Return how many of a user's `count` vectors are taken to learn from, on average."""
        result: npt.NDArray[np.float64] = np.minimum(
            vectors, self.first * (1 + np.log(np.maximum(vectors / self.first, 1)))
        )
        return result

    def learns(self, drawn: npt.NDArray[np.float64], places: Int64s) -> Bools:
        """Return which vectors to learn from, given a random number from 0 to 1 and the place among the user's vectors,
        from 0."""
        result: Bools = drawn * (places + 1) < self.first
        return result

    @property
    def limited(self) -> bool:
        """Whether there is a `since` or an `until`."""
        return self.since is not None or self.until is not None

    def in_time(self, times: Int64s) -> Bools:
        """Return which vectors are in the time asked for."""
        wanted = np.ones(len(times), np.bool_)
        if self.since is not None:
            wanted &= times >= self.since
        if self.until is not None:
            wanted &= times <= self.until
        return wanted
