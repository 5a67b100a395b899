"""Metrics of probabilities, with 95 % intervals by a bootstrap over users.

The vectors of a user are similar, so 300,000 vectors of 500 users hold hardly more information than 500 users. An
interval that treats vectors as independent is far too narrow. Here whole users are drawn, each as often as a Poisson(1)
number says (the Poisson bootstrap, which needs no list of all users). All metrics follow from sums over users of some
hundred numbers each, so the replicates are one product of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]
Users = npt.NDArray[np.integer[Any]]

CALIBRATION_BINS = 15
REPLICATES = 500
LEAST = 1e-7
"""Probabilities are kept this far from 0 and 1 for the log loss, which is infinite there."""

_SCORE_BINS = 512
"""Bins of about equal counts that the replicates' AUC is computed in; ties within one shift it by some 1e-6."""
_BLOCK = 1024
"""Users per block: 4 MB of sums."""


class Estimate(msgspec.Struct, frozen=True):
    """A metric with its 95 % interval over users. None if it is not defined, such as the AUC of a single class."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Return it for a person: `0.977 (0.971 to 0.982)`."""
        if self.value is None:
            return "–"
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{interval}"


class Metrics(msgspec.Struct, frozen=True):
    """The quality of the probabilities of some vectors."""

    vectors: int
    users: int
    auc: Estimate
    accuracy: Estimate
    log_loss: Estimate
    ece: Estimate
    """Expected calibration error, see `expected_calibration_error`."""
    brier: Estimate
    recall: Estimate
    """Share of the positive vectors that are recognised."""
    precision: Estimate
    """Share of the vectors predicted positive that are positive."""


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Vectors whose probability lies in low <= p < high (the last bin: p <= 1)."""

    low: float
    high: float
    vectors: int
    predicted: float
    """Their mean probability."""
    observed: Estimate
    """The share of them that is positive."""


@dataclass(frozen=True)
class Measured:
    """What `measure` returns."""

    metrics: Metrics
    reliability: list[ReliabilityBin]
    """The bins that hold vectors."""


def roc_auc(labels: Labels, probabilities: Array) -> float:
    """Return the probability that a positive has a higher probability than a negative, ties counting half.

    NaN if there is one class only.

    >>> roc_auc(np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.2, 0.3]))
    0.875
    """
    order = np.argsort(probabilities)
    ordered, positive = probabilities[order], labels[order] == 1
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    if not len(starts):
        return float("nan")
    positives = np.add.reduceat(positive.astype(np.float64), starts)
    negatives = np.add.reduceat((~positive).astype(np.float64), starts)
    return float(_auc(positives, negatives))


def expected_calibration_error(labels: Labels, probabilities: Array, bins: int = CALIBRATION_BINS) -> float:
    """Return the mean distance of what is predicted from what is observed, over bins of equal width (Naeini 2015).

    >>> expected_calibration_error(np.array([1, 0, 0, 0]), np.array([0.5, 0.5, 0.0, 0.0]))
    0.0
    >>> expected_calibration_error(np.array([0, 0, 0, 0]), np.array([0.5, 0.5, 0.0, 0.0]))
    0.25
    """
    if not len(labels):
        return float("nan")
    gaps = np.bincount(_calibration_bin(probabilities, bins), labels - probabilities, bins)
    return float(np.abs(gaps).sum() / len(labels))


def measure(
    labels: Labels,
    probabilities: Array,
    users: Users,
    *,
    threshold: float,
    seed: int,
    replicates: int = REPLICATES,
    score_bins: int = _SCORE_BINS,
) -> Measured:
    """Return the metrics of n vectors: labels int[n] (0, 1), probabilities float64[n], users int[n].

    The decision is 1 at and above `threshold`.
    """
    sums = _Sums.of(labels, probabilities, threshold, score_bins)
    draw = np.random.default_rng(seed)
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    of_user = np.cumsum(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]) - 1
    total = np.zeros(sums.columns)
    drawn = np.zeros((replicates, sums.columns))
    for first in range(0, len(starts), _BLOCK):
        last = min(first + _BLOCK, len(starts))
        rows = slice(starts[first], starts[last] if last < len(starts) else len(order))
        block = sums.by_user(order[rows], of_user[rows] - first, last - first)
        total += block.sum(0)
        drawn += draw.poisson(1.0, (replicates, last - first)).astype(np.float32) @ block.astype(np.float32)
    point, spread = sums.metrics(total[None]), sums.metrics(drawn)
    point["auc"] = np.array([roc_auc(labels, probabilities)])
    estimates = {name: _estimate(point[name][0], spread[name]) for name in point}
    metrics = Metrics(vectors=len(labels), users=len(starts), **estimates)
    return Measured(metrics, sums.reliability(total, drawn))


def log_losses(labels: Labels, probabilities: Array) -> Array:
    """Return the log loss of each vector, float64[n].

    >>> log_losses(np.array([1, 0]), np.array([0.5, 0.0])).round(2).tolist()
    [0.69, 0.0]
    """
    clipped = np.clip(probabilities, LEAST, 1 - LEAST)
    losses: Array = -np.log(np.where(labels == 1, clipped, 1 - clipped))
    return losses


def mean_over_users(values: Array, users: Users, *, seed: int, replicates: int = REPLICATES) -> Estimate:
    """Return the mean of n values, with its interval over users, int[n].

    >>> str(mean_over_users(np.array([1.0, 1.0, 1.0]), np.array([4, 4, 9]), seed=1))
    '1.000 (1.000 to 1.000)'
    """
    _, of_user = np.unique(users, return_inverse=True)
    sums = np.column_stack([np.bincount(of_user, values), np.bincount(of_user)])
    draw, drawn = np.random.default_rng(seed), np.zeros((replicates, 2))
    for first in range(0, len(sums), _BLOCK):
        block = sums[first : first + _BLOCK]
        drawn += draw.poisson(1.0, (replicates, len(block))) @ block
    with np.errstate(divide="ignore", invalid="ignore"):
        return _estimate(float(values.mean()), drawn[:, 0] / drawn[:, 1])


@dataclass(frozen=True)
class _Sums:
    """The columns of what is summed up over users, and the metrics that follow from the sums."""

    labels: Labels
    probabilities: Array
    decided: npt.NDArray[np.bool_]
    score_bin: npt.NDArray[np.int64]
    score_bins: int
    calibration_bin: npt.NDArray[np.int64]

    @classmethod
    def of(cls, labels: Labels, probabilities: Array, threshold: float, score_bins: int) -> _Sums:
        cuts = np.unique(np.quantile(probabilities, np.arange(1, score_bins) / score_bins)) if len(labels) else []
        score_bin = np.searchsorted(cuts, probabilities, side="right")
        calibration_bin = _calibration_bin(probabilities, CALIBRATION_BINS)
        return cls(labels, probabilities, probabilities >= threshold, score_bin, len(cuts) + 1, calibration_bin)

    @property
    def columns(self) -> int:
        return 2 * self.score_bins + 3 * CALIBRATION_BINS + 6

    def by_user(self, rows: npt.NDArray[np.int64], users: npt.NDArray[np.int64], count: int) -> Array:
        """Return the sums of each of `count` users, float64[count, columns], over rows of users 0 to count - 1."""
        label, probability, decided = self.labels[rows], self.probabilities[rows], self.decided[rows]
        score, calibration = self.score_bin[rows], self.calibration_bin[rows]
        positive = label == 1

        def summed(column: npt.NDArray[np.int64] | int, columns: int, values: npt.NDArray[np.generic] | None) -> Array:
            cells = np.bincount(users * columns + column, values, count * columns)
            return cells.astype(np.float64).reshape(count, columns)

        return np.hstack(
            [
                summed(score, self.score_bins, positive),
                summed(score, self.score_bins, ~positive),
                summed(calibration, CALIBRATION_BINS, None),
                summed(calibration, CALIBRATION_BINS, probability),
                summed(calibration, CALIBRATION_BINS, label),
                # true positives, false positives, false negatives, true negatives
                summed(0, 1, decided & positive),
                summed(0, 1, decided & ~positive),
                summed(0, 1, ~decided & positive),
                summed(0, 1, ~decided & ~positive),
                summed(0, 1, log_losses(label, probability)),
                summed(0, 1, (probability - label) ** 2),
            ]
        )

    def metrics(self, sums: Array) -> dict[str, Array]:
        """Return each metric, float64[k], for sums float64[k, columns]; NaN where it isn't defined."""
        k, c = self.score_bins, CALIBRATION_BINS
        positives, negatives, _, predicted, observed, rest = np.split(sums, np.cumsum([k, k, c, c, c]), axis=1)
        tp, fp, fn, tn, loss, brier = rest.T
        count = tp + fp + fn + tn
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "auc": _auc(positives, negatives),
                "accuracy": (tp + tn) / count,
                "log_loss": loss / count,
                "ece": np.abs(observed - predicted).sum(1) / count,
                "brier": brier / count,
                "recall": tp / (tp + fn),
                "precision": tp / (tp + fp),
            }

    def reliability(self, total: Array, drawn: Array) -> list[ReliabilityBin]:
        """Return the bins that hold vectors."""
        first, c = 2 * self.score_bins, CALIBRATION_BINS
        count, predicted, observed = total[first : first + 3 * c].reshape(3, c)
        counts, _, positives = drawn[:, first : first + 3 * c].reshape(len(drawn), 3, c).transpose(1, 0, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            replicates = positives / counts
        return [
            ReliabilityBin(
                low=b / c,
                high=(b + 1) / c,
                vectors=int(count[b]),
                predicted=float(predicted[b] / count[b]),
                observed=_estimate(observed[b] / count[b], replicates[:, b]),
            )
            for b in range(c)
            if count[b]
        ]


def _auc(positives: Array, negatives: Array) -> Array:
    """Return the AUC for counts of positives and negatives, float64[..., bins], by rising probability."""
    below = np.cumsum(negatives, axis=-1) - negatives
    with np.errstate(divide="ignore", invalid="ignore"):
        area: Array = (positives * (below + negatives / 2)).sum(-1) / (positives.sum(-1) * negatives.sum(-1))
    return area


def _calibration_bin(probabilities: Array, bins: int) -> npt.NDArray[np.int64]:
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def _estimate(value: float, replicates: Array) -> Estimate:
    if np.isnan(value):
        return Estimate(None)
    known = replicates[~np.isnan(replicates)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (value, value)
    # The replicates' AUC is binned, and few users give few different replicates: the interval holds the value.
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))
