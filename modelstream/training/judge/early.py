"""Early detection: how good the model is after a number of events of a user, and a number of hours after the window
opened."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from modelstream.training.judge.bootstrap import Array, Metrics, measure
from modelstream.training.snapshot.examples import Examples, Int64s, ordinals
from modelstream.use_case.declared import UseCase
from modelstream.use_case.vocabulary import AllTime, Statistic

LEAST_USERS = 20
"""Points with fewer users are left out of the curve: they say nothing."""
HOURS = (0.25, 0.5, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24)
"""Points of a curve over a window of 24 hours; for other windows they are scaled."""
REPLICATES = 200
SCORE_BINS = 64


class EarlyPoint(msgspec.Struct, frozen=True):
    """A point of an early-detection curve: one vector of each user who has one."""

    at: float
    """Number of events, or hours."""
    metrics: Metrics


def by_events(
    examples: Examples, probabilities: Array, *, threshold: float, use_case: UseCase, seed: int
) -> list[EarlyPoint]:
    """Return the curve over the number of a user's events of the first type in `predict_on`: 1, 2, 5, 10, 20, …"""
    counts = event_counts(examples, use_case)
    points = []
    number = 0
    for step in range(30):
        number = (1, 2, 5)[step % 3] * 10 ** (step // 3)
        rows = _first_of_each(examples, np.flatnonzero(counts == number))
        if len(rows) < LEAST_USERS:
            break
        points.append(_point(float(number), rows, examples, probabilities, threshold, seed))
    return points


def by_hours(
    examples: Examples, probabilities: Array, *, threshold: float, use_case: UseCase, seed: int
) -> list[EarlyPoint]:
    """Return the curve over hours since the user's window opened; empty for a use case without a window."""
    if use_case.window is None:
        return []
    points = []
    for hour in HOURS:
        at = hour * use_case.window.hours / HOURS[-1]
        rows = rows_at_hour(examples, at)
        if len(rows) >= LEAST_USERS:
            points.append(_point(at, rows, examples, probabilities, threshold, seed))
    return points


def event_counts(examples: Examples, use_case: UseCase) -> npt.NDArray[np.float64]:
    """Return how many events of the first type in `predict_on` the user had had at each vector that follows such an
    event, float64[n]; 0 at the others.

    It is the count of all such events, where that is a feature. Without it, vectors are counted, which needs all of a
    user's.
    """
    feature = count_of(use_case.predict_on[0], use_case)
    of_type = examples.kinds == 0
    if feature is not None:
        return np.where(of_type, examples.vectors[:, use_case.features.index(feature)], 0.0)
    counts = np.zeros(len(examples))
    counts[of_type] = ordinals(examples.users[of_type]) + 1
    return counts


def count_of(event: str, use_case: UseCase) -> str | None:
    """Return the feature that is the number of all counted events of a type, this one included; None without one."""
    for name, group in use_case.groups.items():
        every = group.of == (event,) and not group.where and AllTime() in group.windows and not group.without
        if group.value is not None and group.value not in use_case.needs(event):
            every = False  # an event without a value is left out of the group
        if every and Statistic.COUNT in group.give:
            return f"{name}_{Statistic.COUNT}"
    return None


def rows_at_event(examples: Examples, use_case: UseCase, number: int) -> Int64s:
    """Return the row right after each user's event of that number, int64[users who have it]."""
    return _first_of_each(examples, np.flatnonzero(event_counts(examples, use_case) == number))


def rows_at_hour(examples: Examples, hour: float) -> Int64s:
    """Return each user's last row whose event is at most this many hours after the window opened."""
    rows = np.flatnonzero(examples.hours <= hour)
    return rows[::-1][np.unique(examples.users[rows[::-1]], return_index=True)[1]]


def _first_of_each(examples: Examples, rows: Int64s) -> Int64s:
    return rows[np.unique(examples.users[rows], return_index=True)[1]]


def _point(
    at: float, rows: Int64s, examples: Examples, probabilities: Array, threshold: float, seed: int
) -> EarlyPoint:
    measured = measure(
        examples.labels[rows],
        probabilities[rows],
        examples.users[rows],
        threshold=threshold,
        seed=seed,
        replicates=REPLICATES,
        score_bins=SCORE_BINS,
    )
    return EarlyPoint(at, measured.metrics)
