"""Distances of histograms are MLRun's, and the stability index what it is elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modelstream.training.drift.distances import (
    hellinger,
    kullback_leibler,
    population_stability_index,
    total_variation,
)

Counts = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def mlrun_distances() -> ModuleType:
    """MLRun's module, without importing the rest of MLRun (6 s)."""
    package = importlib.util.find_spec("mlrun")
    assert package is not None and package.submodule_search_locations
    path = f"{package.submodule_search_locations[0]}/model_monitoring/metrics/histogram_distance.py"
    spec = importlib.util.spec_from_file_location("mlrun_histogram_distance", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


COUNTS = st.integers(1, 30).flatmap(
    lambda bins: st.tuples(*[arrays(np.float64, bins, elements=st.integers(0, 1000).map(float))] * 2)
)


@settings(max_examples=300)
@given(counts=COUNTS)
def test_distances_are_mlruns(mlrun_distances: ModuleType, counts: tuple[Counts, Counts]) -> None:
    now, then = ((one + (one.sum() == 0)) / (one + (one.sum() == 0)).sum() for one in counts)
    found = (total_variation(now, then), hellinger(now, then), kullback_leibler(now, then))
    theirs = (
        mlrun_distances.TotalVarianceDistance,
        mlrun_distances.HellingerDistance,
        mlrun_distances.KullbackLeiblerDivergence,
    )
    assert found == tuple(one(distrib_t=now, distrib_u=then).compute() for one in theirs)


@given(COUNTS)
def test_the_stability_index_is_symmetric_and_zero_for_equals(counts: tuple[Counts, Counts]) -> None:
    now, then = ((one + 1) / (one + 1).sum() for one in counts)
    assert population_stability_index(now, now) == 0
    assert population_stability_index(now, then) == pytest.approx(population_stability_index(then, now))
    assert population_stability_index(now, then) == pytest.approx(kullback_leibler(now, then), abs=1e-9)
