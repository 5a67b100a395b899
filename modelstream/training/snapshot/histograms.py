"""Histograms of features: counted in one pass over any number of vectors.

Served vectors are skewed: the model is asked about a busy user a thousand times, about a quiet one twice. So the
reference for drift is all vectors *as served*. The sample that training takes per user has another distribution, which
would look like drift on the first day. `Histograms.update` is therefore called with every vector of the log, or with a
sample and `weights` that say how many vectors each row stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float64]

BINS = 20
"""Most bins between the open ends; all hold about the same number of vectors."""

_SHIFT = 14
_FINE = 1 << (32 - _SHIFT)
"""Fine bins of a feature: the first 18 bits of a float32, so a bin is at most 1/512 of its value wide."""
_SIGN = np.uint32(0x8000_0000)


class Histogram(msgspec.Struct, frozen=True):
    """How one feature is distributed. Bin i holds edges[i-1] <= x < edges[i]; the first and last bins are open.

    >>> histogram = Histogram(edges=[0.0, 10.0], counts=[0, 3, 1])
    >>> histogram.count(np.array([-1, 0, 9.9, 10], np.float32)).tolist()
    [1.0, 2.0, 1.0]
    """

    edges: list[float]
    counts: list[float]
    """One more than edges. Rows, or weights."""
    minimum: float = 0.0
    maximum: float = 0.0
    mean: float = 0.0
    std: float = 0.0
    quartiles: list[float] = []
    """The quartiles, exact to 1/512 of their value."""

    @property
    def total(self) -> float:
        """Rows, or the sum of their weights."""
        return sum(self.counts)

    @property
    def shares(self) -> Counts:
        """float64[bins], which sum to 1 (or are all 0)."""
        return shares(np.asarray(self.counts))

    def count(self, values: npt.NDArray[np.floating[Any]], weights: Weights | None = None) -> Counts:
        """Return float64[bins]: how many values, NaN apart, fall into each bin; they are compared as float32."""
        values = np.asarray(values, np.float32)
        if np.isnan(values).any():
            known = ~np.isnan(values)
            values, weights = values[known], None if weights is None else weights[known]
        bins = np.searchsorted(np.asarray(self.edges, np.float32), values, side="right")
        return np.bincount(bins, weights, len(self.counts)).astype(np.float64)

    def mlrun_statistics(self) -> dict[str, object]:
        """Return what MLRun keeps of a feature in `feature_stats`, with `hist` as [counts, edges], ends closed."""
        count = self.total
        low, middle, high = self.quartiles or [self.mean] * 3
        described = {"count": count, "mean": self.mean, "std": self.std, "min": self.minimum}
        described |= {"25%": low, "50%": middle, "75%": high, "max": self.maximum}
        # The bins outside of what was seen are empty; MLRun adds its own.
        return {**described, "hist": [self.counts[1:-1], self.edges]}


class Histograms:
    """Counts the features of vectors in one pass, with fixed memory (2 MB per feature) and exact counts.

    The best edges of the bins are known only at the end. So vectors are first counted in fine bins that need no prior
    knowledge (the first 18 bits of a float32), and these are then joined into bins of about equal counts.

    >>> histograms = Histograms(["height"])
    >>> histograms.update(np.arange(100, dtype=np.float32)[:, None])
    >>> histogram = histograms.result()["height"]
    >>> histogram.total, histogram.minimum, histogram.maximum, histogram.mean
    (100.0, 0.0, 99.0, 49.5)
    """

    def __init__(self, features: Sequence[str]) -> None:
        self.features = tuple(features)
        self._fine = np.zeros((len(self.features), _FINE))
        self._minimum = np.full(len(self.features), np.inf)
        self._maximum = np.full(len(self.features), -np.inf)
        self._count = 0.0
        # Sums of the values and of their squares, from the first vector as the origin: few digits cancel.
        self._origin: npt.NDArray[np.float64] | None = None
        self._sums = np.zeros((2, len(self.features)))

    def update(self, vectors: Floats, weights: Weights | None = None) -> None:
        """Count vectors, float32[n, features] from `model.onnx.as_input`: all that were served, or a sample with the
        weight float64[n] of each (how many vectors as served it stands for)."""
        if not len(vectors):
            return
        if self._origin is None:
            self._origin = vectors[0].astype(np.float64)
        shifted = vectors - self._origin
        if weights is None:
            self._count += len(vectors)
            self._sums += (shifted.sum(0), np.einsum("nf,nf->f", shifted, shifted))
        else:
            self._count += float(weights.sum())
            self._sums += (weights @ shifted, weights @ (shifted * shifted))
        self._minimum = np.minimum(self._minimum, vectors.min(0))
        self._maximum = np.maximum(self._maximum, vectors.max(0))
        for fine, column in zip(self._fine, np.ascontiguousarray(vectors.T), strict=True):
            np.add.at(fine, _fine_bins(column), 1.0 if weights is None else weights)

    def result(self, bins: int = BINS) -> dict[str, Histogram]:
        """Return each feature's histogram, at most `bins` bins between the open ends. Empty without a vector."""
        return {name: self._of(i, bins) for i, name in enumerate(self.features)} if self._count else {}

    def _of(self, feature: int, bins: int) -> Histogram:
        assert self._origin is not None  # there are vectors
        fine = self._fine[feature]
        places = np.flatnonzero(fine)
        counts = fine[places]
        first = _cuts(counts, bins)
        edges = _lower_ends(np.append(places[first], places[-1] + 1)).tolist()
        joined = np.add.reduceat(counts, first)
        mean = self._sums[0, feature] / self._count
        variance = max(0.0, self._sums[1, feature] / self._count - mean**2)
        rank = np.searchsorted(np.cumsum(counts), np.array([0.25, 0.5, 0.75]) * counts.sum())
        return Histogram(
            edges=edges,
            counts=[0.0, *joined.tolist(), 0.0],
            minimum=float(self._minimum[feature]),
            maximum=float(self._maximum[feature]),
            mean=float(mean + self._origin[feature]),
            std=float(np.sqrt(variance)),
            quartiles=_lower_ends(places[np.minimum(rank, len(places) - 1)]).tolist(),
        )


def of_probabilities(probabilities: npt.NDArray[np.float64], weights: Weights | None = None) -> Histogram:
    """Return the histogram of probabilities, float64[n], in 20 bins of equal width, plus the two open bins, which stay
    empty.

    >>> of_probabilities(np.array([0.0, 0.04, 0.5, 1.0])).counts[:3], of_probabilities(np.ones(1)).counts[-2:]
    ([0.0, 2.0, 0.0], [1.0, 0.0])
    """
    edges = [i / BINS for i in range(BINS)] + [float(np.nextafter(np.float32(1), np.float32(2)))]
    empty = Histogram(edges, [0.0] * (BINS + 2))
    counts = empty.count(probabilities, weights).tolist()
    if not len(probabilities):
        return Histogram(edges, counts)
    mean = float(np.average(probabilities, weights=weights))
    std = float(np.sqrt(np.average((probabilities - mean) ** 2, weights=weights)))
    quartiles = np.quantile(probabilities, [0.25, 0.5, 0.75]).tolist() if weights is None else []
    return Histogram(edges, counts, float(probabilities.min()), float(probabilities.max()), mean, std, quartiles)


def _fine_bins(column: Floats) -> npt.NDArray[np.int64]:
    """Return the fine bin of each value, int64[n] from 0 to _FINE - 1: the order of bins is that of the values."""
    bits = (column + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (ordered >> np.uint32(_SHIFT)).astype(np.int64)


def _lower_ends(bins: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the least float32 of each fine bin, as float64."""
    ordered = (bins << _SHIFT).astype(np.uint32)
    bits = np.where(ordered & _SIGN, ordered & ~_SIGN, ~ordered)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def _cuts(counts: Counts, bins: int) -> npt.NDArray[np.int64]:
    """Return the indices at which bins begin, so that each has about 1/bins of the counts.

    A single value with that share (such as 0 before the first event) becomes a bin of its own.
    """
    if len(counts) <= bins:
        return np.arange(len(counts))
    part = counts.sum() / bins
    starts, filled = [0], 0.0
    for i, count in enumerate(counts.tolist()):
        alone = count >= part
        if i > starts[-1] and (filled >= part or alone):
            starts.append(i)
            filled = 0.0
        filled += count
    while len(starts) > bins:  # values that stand alone have split others: join the two neighbours with the least
        sizes = np.add.reduceat(counts, starts)
        del starts[int(np.argmin(sizes[1:] + sizes[:-1])) + 1]
    return np.array(starts)


def shares(counts: Counts) -> Counts:
    """Return counts as shares of their sum; all 0 if the sum is 0."""
    total = counts.sum()
    return counts / total if total else counts
