"""Distances between two histograms, given as shares: float64[bins] that sum to 1.

The distances are those of MLRun's model monitoring (`mlrun.model_monitoring.metrics.histogram_distance`), and the
population stability index.
"""

from __future__ import annotations

import numpy as np

from modelstream.training.snapshot.histograms import Counts

EMPTY = 1e-4
"""The share used for an empty bin within a logarithm, as in MLRun's Kullback-Leibler divergence."""


def population_stability_index(now: Counts, then: Counts) -> float:
    """Return the PSI of two distributions (shares): 0 if they are the same.

    It is the symmetric Kullback-Leibler divergence, except that `EMPTY` stands in for every empty share.

    >>> round(population_stability_index(np.array([0.2, 0.8]), np.array([0.5, 0.5])), 3)
    0.416
    """
    now, then = np.where(now == 0, EMPTY, now), np.where(then == 0, EMPTY, then)
    return float(np.sum((now - then) * np.log(now / then)))


def total_variation(now: Counts, then: Counts) -> float:
    """Return half the sum of the absolute differences: the share of rows that are in other bins, 0 to 1.

    >>> round(total_variation(np.array([0.2, 0.8]), np.array([0.5, 0.5])), 3)
    0.3
    """
    return float(np.sum(np.abs(now - then)) / 2)


def hellinger(now: Counts, then: Counts) -> float:
    """Return the Hellinger distance, 0 to 1.

    >>> round(hellinger(np.array([0.2, 0.8]), np.array([0.5, 0.5])), 4)
    0.2265
    """
    return float(np.sqrt(max(1 - np.sum(np.sqrt(now * then)), 0.0)))


def kullback_leibler(now: Counts, then: Counts) -> float:
    """Return the sum of the divergences in both directions (0 or more), as MLRun does.

    >>> round(kullback_leibler(np.array([0.2, 0.8]), np.array([0.5, 0.5])), 3)
    0.416
    """
    return _divergence(now, then) + _divergence(then, now)


def _divergence(actual: Counts, expected: Counts) -> float:
    known = actual != 0
    actual, expected = actual[known], expected[known]
    return float(np.sum(actual * np.log(actual / np.where(expected != 0, expected, EMPTY))))
