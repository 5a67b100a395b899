"""Finds groups of vectors with many errors, and how soon the decision about a user stays right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from modelstream.training.judge.bootstrap import LEAST, Array
from modelstream.training.snapshot.examples import Examples, ordinals
from modelstream.use_case.declared import UseCase

LEAST_USERS = 20
LEAST_SHARE = 0.005
"""A segment has at least this many users, and this share of the vectors; smaller ones are chance."""
MOST = 12
WORSE = 1.2
"""A segment is reported if its error rate is at least this many times that of all vectors."""

Bools = npt.NDArray[np.bool_]


class Segment(msgspec.Struct, frozen=True):
    """A group of vectors."""

    name: str
    vectors: int
    users: int
    errors: float
    """Share of its vectors whose decision is wrong."""
    false_positives: float
    """Share of its vectors said to be positive that are not."""
    false_negatives: float
    """Share of its vectors said to be negative that are not."""
    log_loss: float


class Steadiness(msgspec.Struct, frozen=True):
    """The decisions about a user, from the first vector to the last."""

    users: int
    right_at_end: float
    """Share of the users whose last decision is right."""
    always_right: float
    never_right: float
    settled_median: float
    """Number of vectors after which the decision stays right: the median over users for whom it does."""
    settled_p90: float
    """The same for the 90th percentile."""


def worst_segments(examples: Examples, probabilities: Array, *, threshold: float, use_case: UseCase) -> list[Segment]:
    """Return the groups with the greatest share of wrong decisions, the worst of each feature, the worst first:
    those with at least `WORSE` times the usual share.

    Groups are: the true class, the type of event, quarters of the time in the window, and quarters of each feature.
    """
    clipped = np.clip(probabilities, LEAST, 1 - LEAST)
    loss = -np.log(np.where(examples.labels == 1, clipped, 1 - clipped))
    decided = probabilities >= threshold
    worst = []
    for groups in _groups(examples, use_case):
        segments = [
            _segment(name, rows, examples, decided, loss)
            for name, rows in groups
            if np.count_nonzero(rows) >= LEAST_SHARE * len(examples)
        ]
        segments = [segment for segment in segments if segment.users >= LEAST_USERS]
        if segments:
            worst.append(max(segments, key=lambda segment: segment.errors))
    usual = float((decided != (examples.labels == 1)).mean())
    worst = [segment for segment in worst if segment.errors >= WORSE * usual and segment.errors > 0]
    return sorted(worst, key=lambda segment: -segment.errors)[:MOST]


def steadiness(examples: Examples, decided: Bools) -> Steadiness:
    """Return how steady the decisions, bool[n], are; the rows of a user are in the order in which they were served."""
    wrong = decided != (examples.labels == 1)
    _, users = np.unique(examples.users, return_inverse=True)
    count = int(users.max()) + 1
    place = ordinals(users)
    vectors = np.bincount(users, minlength=count)
    # The vectors up to the last wrong one; 0 if none is wrong.
    settled = np.zeros(count, np.int64)
    np.maximum.at(settled, users[wrong], place[wrong] + 1)
    right = settled < vectors
    median, p90 = np.quantile(settled[right], [0.5, 0.9]) if right.any() else (0.0, 0.0)
    return Steadiness(
        users=count,
        right_at_end=float(right.mean()),
        always_right=float((settled == 0).mean()),
        never_right=float((np.bincount(users[wrong], minlength=count) == vectors).mean()),
        settled_median=float(median),
        settled_p90=float(p90),
    )


def _groups(examples: Examples, use_case: UseCase) -> Iterator[list[tuple[str, Bools]]]:
    yield [("truly positive", examples.labels == 1), ("truly negative", examples.labels == 0)]
    yield [(f"after a {name}", examples.kinds == code) for code, name in enumerate(use_case.predict_on)]
    if use_case.window is not None:
        yield _quarters(f"hours since the first {use_case.window.opens}", examples.hours)
    for column, name in enumerate(use_case.features):
        yield _quarters(name, examples.vectors[:, column])


def _quarters(name: str, values: npt.NDArray[np.float32]) -> list[tuple[str, Bools]]:
    """Return at most four groups of about equal size, by value."""
    known = values[~np.isnan(values)]
    if not len(known):
        return []
    cuts = np.unique(np.quantile(known, [0.25, 0.5, 0.75], method="nearest"))
    cuts = cuts[cuts > known.min()]
    ends = [float(known.min()), *cuts.tolist(), float("inf")]
    groups = []
    for low, high in itertools.pairwise(ends):
        if high == float("inf"):
            text = f"{name} ≥ {low:.4g}"
        else:
            text = f"{name} < {high:.4g}" if low == ends[0] else f"{low:.4g} ≤ {name} < {high:.4g}"
        groups.append((text, (values >= low) & (values < high)))
    return groups


def _segment(name: str, rows: Bools, examples: Examples, decided: Bools, loss: Array) -> Segment:
    positive, said = examples.labels[rows] == 1, decided[rows]
    return Segment(
        name=name,
        vectors=int(np.count_nonzero(rows)),
        users=len(np.unique(examples.users[rows])),
        errors=float((said != positive).mean()),
        false_positives=float((said & ~positive).mean()),
        false_negatives=float((~said & positive).mean()),
        log_loss=float(loss[rows].mean()),
    )
