"""Histograms count every vector once, in whatever batches it comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modelstream.model.onnx import BOUND, as_input
from modelstream.training.snapshot.histograms import (
    BINS,
    Histogram,
    Histograms,
    of_probabilities,
)

SPECIAL = [0.0, -0.0, 1.0, -1.0, float(BOUND), -float(BOUND), 1e-45, -1e-45, 1.1754944e-38]
VALUES = st.one_of(
    st.sampled_from(SPECIAL), st.floats(-float(BOUND), float(BOUND), width=32), st.integers(-5, 5).map(float)
)


def columns(values: list[float]) -> npt.NDArray[np.float32]:
    return as_input([np.array(values, np.float64)])


@given(st.lists(VALUES, min_size=1, max_size=200), st.integers(1, 25))
def test_counts_are_those_of_the_values_in_the_bins(values: list[float], bins: int) -> None:
    vectors = columns(values)
    histograms = Histograms(["x"])
    histograms.update(vectors)
    found = histograms.result(bins)["x"]
    assert found.counts == found.count(vectors[:, 0]).tolist()
    assert (found.total, found.counts[0], found.counts[-1]) == (len(values), 0, 0)
    assert found.edges == sorted(set(found.edges))
    assert len(found.counts) == len(found.edges) + 1 <= bins + 2
    assert (found.minimum, found.maximum) == (vectors.min(), vectors.max())


@given(st.lists(VALUES, min_size=1, max_size=100), st.lists(st.integers(0, 100), max_size=4))
def test_batches_change_nothing(values: list[float], cuts: list[int]) -> None:
    vectors = columns(values)
    whole, parts = Histograms(["x"]), Histograms(["x"])
    whole.update(vectors)
    for batch in np.split(vectors, sorted(min(cut, len(vectors)) for cut in cuts)):
        parts.update(batch)
    found, expected = parts.result()["x"], whole.result()["x"]
    assert (found.edges, found.counts, found.quartiles) == (expected.edges, expected.counts, expected.quartiles)
    scale = max(abs(expected.minimum), abs(expected.maximum))
    assert found.mean == pytest.approx(expected.mean, rel=1e-9, abs=1e-9 * scale)


@given(st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(1, 5)), min_size=1, max_size=50))
def test_a_weight_stands_for_so_many_vectors(rows: list[tuple[float, int]]) -> None:
    values, weights = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    weighted, repeated = Histograms(["x"]), Histograms(["x"])
    weighted.update(as_input([values]), weights.astype(np.float64))
    repeated.update(as_input([np.repeat(values, weights)]))
    found, expected = weighted.result()["x"], repeated.result()["x"]
    assert (found.edges, found.counts) == (expected.edges, expected.counts)
    assert (found.mean, found.std) == pytest.approx((expected.mean, expected.std), rel=1e-6, abs=1e-5)


def test_moments_and_quartiles_are_numpys() -> None:
    values = np.random.default_rng(1).lognormal(3, 1, 20_000) + 1000
    histograms = Histograms(["x"])
    for batch in np.array_split(as_input([np.sort(values)]), 7):
        histograms.update(batch)
    found = histograms.result()["x"]
    assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()), rel=1e-5)
    assert found.quartiles == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]), rel=1 / 500)


def test_bins_hold_about_equally_many() -> None:
    histograms = Histograms(["x"])
    histograms.update(as_input([np.random.default_rng(1).lognormal(0, 3, 50_000)]))
    inner = histograms.result()["x"].counts[1:-1]
    assert len(inner) in (BINS - 1, BINS)
    assert max(inner) < 1.1 * 50_000 / BINS


def test_a_value_that_many_share_has_a_bin_of_its_own() -> None:
    values = np.append(np.zeros(5_000), np.random.default_rng(1).uniform(-50, 100, 10_000))
    histograms = Histograms(["x"])
    histograms.update(as_input([values]))
    found = histograms.result()["x"]
    assert found.count(np.zeros(1, np.float32)).argmax() == np.argmax(found.counts)
    assert max(found.counts) == pytest.approx(5_000, abs=2)


def test_few_values_have_a_bin_each() -> None:
    histograms = Histograms(["x"])
    histograms.update(as_input([np.array([1.0, 2, 2, 7])]))
    found = histograms.result()["x"]
    assert (found.edges[:-1], found.counts) == ([1.0, 2.0, 7.0], [0, 1, 2, 1, 0])


def test_what_lies_outside_and_what_is_unknown() -> None:
    histogram = Histogram([0.0, 1.0], [0, 1, 0])
    assert histogram.count(np.array([-np.inf, np.inf, np.nan, -1e-30], np.float32)).tolist() == [2, 0, 1]
    assert histogram.count(np.array([np.nan, 0.5]), np.array([3.0, 2.0])).tolist() == [0, 2, 0]


def test_no_vectors_no_histograms() -> None:
    histograms = Histograms(["x"])
    histograms.update(np.empty((0, 1), np.float32))
    assert histograms.result() == {}


def test_statistics_for_mlrun_have_one_edge_more_than_counts() -> None:
    histograms = Histograms(["x"])
    histograms.update(as_input([np.arange(1000.0)]))
    found: dict[str, Any] = histograms.result()["x"].mlrun_statistics()
    counts, edges = found["hist"]
    assert len(edges) == len(counts) + 1
    assert sum(counts) == found["count"] == 1000
    assert np.histogram(np.arange(1000.0), edges)[0].tolist() == counts


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 1)))
def test_probabilities_lie_within(values: npt.NDArray[np.float64]) -> None:
    found = of_probabilities(values)
    assert (found.total, found.counts[0], found.counts[-1]) == (len(values), 0, 0)
