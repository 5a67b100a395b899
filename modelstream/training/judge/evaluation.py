"""Evaluates a model at serving time: how good it is, and for whom it is wrong."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from modelstream.training.judge.bootstrap import (
    Array,
    Estimate,
    Measured,
    Metrics,
    ReliabilityBin,
    expected_calibration_error,
    measure,
    roc_auc,
)
from modelstream.training.judge.early import EarlyPoint, by_events, by_hours, rows_at_event
from modelstream.training.judge.importance import Importance, permutation_importance
from modelstream.training.judge.segments import Segment, Steadiness, steadiness, worst_segments
from modelstream.training.snapshot.examples import Examples
from modelstream.use_case.declared import UseCase

__all__ = [
    "Confusion",
    "EarlyPoint",
    "Estimate",
    "Evaluation",
    "Gain",
    "Importance",
    "Measured",
    "Metrics",
    "ReliabilityBin",
    "Segment",
    "SkewRow",
    "Steadiness",
    "evaluate",
    "expected_calibration_error",
    "permutation_importance",
    "roc_auc",
    "skew_row",
]

GAIN_EVENTS = (1, 10, 100)
"""Numbers of events after which users are ranked, for the gain curves."""
GAIN_STEPS = 50


class Confusion(msgspec.Struct, frozen=True):
    """The confusion matrix: vectors by decision and truth, at the threshold."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


class Gain(msgspec.Struct, frozen=True):
    """Of all positives, how many are among the share that the model ranks highest. The lift is found / share."""

    moment: str
    """When they are ranked."""
    count: int
    """How many are ranked."""
    positives: int
    share: list[float]
    """Shares of those ranked, 0 to 1, from the highest probability down."""
    found: list[float]
    """0 to 1: of the positives."""


class SkewRow(msgspec.Struct, frozen=True):
    """The metrics for one way to train and one way to judge."""

    trained_on: str
    judged_on: str
    metrics: Metrics


class Evaluation(msgspec.Struct, frozen=True):
    """What `evaluate` finds, ready for JSON."""

    threshold: float
    positive_vectors: float
    """Share of the vectors that is positive."""
    positive_users: float
    """Share of the users that is positive."""
    metrics: Metrics
    confusion: Confusion
    reliability: list[ReliabilityBin]
    event: str
    """The event of `by_events`: the first of `predict_on`."""
    by_events: list[EarlyPoint]
    """Early detection: right after a user's 1st, 2nd, 5th, … such event. One vector a user."""
    by_hours: list[EarlyPoint]
    """Early detection: so many hours after the user's window opened. Each user's last vector until then."""
    gains: list[Gain]
    segments: list[Segment]
    """The groups of vectors with the most errors."""
    steadiness: Steadiness


def evaluate(examples: Examples, probabilities: Array, *, threshold: float, use_case: UseCase, seed: int) -> Evaluation:
    """Evaluate probabilities, float64[n], for n vectors as served: all vectors of some users that the model has not
    seen.

    300,000 vectors take about a second. The same seed gives the same intervals.
    """
    if len(probabilities) != len(examples) or not len(examples):
        raise ValueError(f"{len(probabilities)} probabilities for {len(examples)} vectors")
    labels, decided = examples.labels, probabilities >= threshold
    measured = measure(labels, probabilities, examples.users, threshold=threshold, seed=seed)
    final = examples.final()
    return Evaluation(
        threshold=threshold,
        positive_vectors=float(labels.mean()),
        positive_users=float(final.labels.mean()),
        metrics=measured.metrics,
        confusion=Confusion(
            true_positives=_count(decided & (labels == 1)),
            false_positives=_count(decided & (labels == 0)),
            false_negatives=_count(~decided & (labels == 1)),
            true_negatives=_count(~decided & (labels == 0)),
        ),
        reliability=measured.reliability,
        event=use_case.predict_on[0],
        by_events=by_events(examples, probabilities, threshold=threshold, use_case=use_case, seed=seed),
        by_hours=by_hours(examples, probabilities, threshold=threshold, use_case=use_case, seed=seed),
        gains=_gains(examples, probabilities, use_case),
        segments=worst_segments(examples, probabilities, threshold=threshold, use_case=use_case),
        steadiness=steadiness(examples, decided),
    )


def skew_row(
    trained_on: str, judged_on: str, examples: Examples, probabilities: Array, *, threshold: float, seed: int
) -> SkewRow:
    """Return a row of the skew table: the probabilities, float64[n], of a model trained on something, for vectors.

    The telling rows are: trained and judged on final rows (which looks perfect), the same model judged at serving time
    (what it is really worth), and trained and judged at serving time.
    """
    measured = measure(examples.labels, probabilities, examples.users, threshold=threshold, seed=seed)
    return SkewRow(trained_on, judged_on, measured.metrics)


def _gains(examples: Examples, probabilities: Array, use_case: UseCase) -> list[Gain]:
    moments = [(f"{_ordinal(n)} {use_case.predict_on[0]}", n) for n in GAIN_EVENTS]
    chosen = [(f"after a user's {name}", rows_at_event(examples, use_case, n)) for name, n in moments]
    found = [_gain(name, examples.labels[rows], probabilities[rows]) for name, rows in chosen if len(rows)]
    return [gain for gain in [*found, _gain("all vectors", examples.labels, probabilities)] if gain.positives]


def _gain(moment: str, labels: npt.NDArray[np.int8], probabilities: Array) -> Gain:
    """Return the gain curve. Users with equal probabilities have no order, so their positives are spread evenly."""
    order = np.argsort(-probabilities, kind="stable")
    ordered, positive = probabilities[order], labels[order].astype(np.float64)
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1) + 1
    found = np.append(0.0, np.cumsum(positive)[ends - 1])
    steps = np.linspace(0, len(labels), GAIN_STEPS + 1)
    at_step = np.interp(steps, np.append(0, ends), found)
    positives = int(positive.sum())
    share = (at_step / max(1, positives)).tolist()
    return Gain(moment, len(labels), positives, (steps / len(labels)).tolist(), share)


def _ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th.

    >>> [_ordinal(n) for n in (1, 2, 3, 10, 11, 100)]
    ['1st', '2nd', '3rd', '10th', '11th', '100th']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _count(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))
