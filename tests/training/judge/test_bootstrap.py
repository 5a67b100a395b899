"""Metrics are scikit-learn's; intervals are over users, not over vectors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from modelstream.training.judge.bootstrap import (
    LEAST,
    Array,
    Estimate,
    Labels,
    Metrics,
    Users,
    expected_calibration_error,
    measure,
    roc_auc,
)

ROWS = st.lists(
    st.tuples(
        st.integers(0, 1), st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)), st.integers(-3, 9)
    ),
    min_size=1,
    max_size=80,
)


def columns(rows: list[tuple[int, float, int]]) -> tuple[Labels, Array, Users]:
    label, probability, user = zip(*rows, strict=True)
    return np.array(label, np.int8), np.array(probability), np.array(user, np.int32)


def measured(labels: Labels, probabilities: Array, users: Users, **options: int) -> Metrics:
    return measure(labels, probabilities, users, threshold=0.5, **{"seed": 1, "replicates": 50, **options}).metrics


@settings(max_examples=150)
@given(ROWS)
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[int, float, int]]) -> None:
    labels, probabilities, users = columns(rows)
    assume(0 < labels.sum() < len(labels))
    found = measured(labels, probabilities, users)
    decided = probabilities >= 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "auc": sklearn_metrics.roc_auc_score(labels, probabilities),
            "accuracy": sklearn_metrics.accuracy_score(labels, decided),
            "log_loss": sklearn_metrics.log_loss(labels, np.clip(probabilities, LEAST, 1 - LEAST)),
            "brier": sklearn_metrics.brier_score_loss(labels, probabilities),
            "recall": sklearn_metrics.recall_score(labels, decided),
        }
        if decided.any():
            expected["precision"] = sklearn_metrics.precision_score(labels, decided)
    assert {name: getattr(found, name).value for name in expected} == pytest.approx(expected, abs=1e-9)
    assert (found.vectors, found.users) == (len(labels), len(np.unique(users)))


@given(ROWS)
def test_calibration_error_is_that_of_the_definition(rows: list[tuple[int, float, int]]) -> None:
    labels, probabilities, users = columns(rows)
    expected = 0.0
    for b in range(15):
        inside = (probabilities >= b / 15) & ((probabilities < (b + 1) / 15) | (b == 14))
        # A probability at an edge may round to either side of it.
        assume(
            not np.any(np.abs(probabilities * 15 - np.round(probabilities * 15))[probabilities * 15 % 1 != 0] < 1e-9)
        )
        if inside.any():
            expected += inside.mean() * abs(labels[inside].mean() - probabilities[inside].mean())
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected, abs=1e-9)
    assert measured(labels, probabilities, users).ece.value == pytest.approx(expected, abs=1e-9)


@given(ROWS)
def test_intervals_hold_their_value(rows: list[tuple[int, float, int]]) -> None:
    found = measured(*columns(rows))
    for name in ("auc", "accuracy", "log_loss", "ece", "brier", "recall", "precision"):
        one: Estimate = getattr(found, name)
        if one.value is not None:
            assert one.low is not None and one.high is not None
            assert one.low <= one.value <= one.high


def test_one_class_has_no_auc_and_no_recall() -> None:
    found = measured(np.zeros(4, np.int8), np.full(4, 0.1), np.arange(4))
    assert (found.auc, found.recall, found.precision) == (Estimate(None), Estimate(None), Estimate(None))
    assert found.accuracy.value == 1
    assert np.isnan(roc_auc(np.zeros(0, np.int8), np.zeros(0)))


def test_repeating_vectors_of_the_same_users_does_not_narrow_an_interval() -> None:
    draw = np.random.default_rng(1)
    labels, probabilities, users = draw.integers(0, 2, 200), draw.random(200), np.arange(200)
    once = measured(labels, probabilities, users, replicates=500)
    often = measured(np.tile(labels, 30), np.tile(probabilities, 30), np.tile(users, 30), replicates=500)
    as_if = measured(np.tile(labels, 30), np.tile(probabilities, 30), np.arange(6000), replicates=500)
    assert width(often.accuracy) == pytest.approx(width(once.accuracy), rel=0.01)
    assert width(often.auc) == pytest.approx(width(once.auc), rel=0.02)
    assert width(as_if.accuracy) < width(often.accuracy) / 4


def test_an_interval_is_as_wide_as_theory_says() -> None:
    draw = np.random.default_rng(2)
    probabilities = draw.random(2000)
    labels = (draw.random(2000) < probabilities).astype(np.int8)
    found = measured(labels, probabilities, np.arange(2000), replicates=500)
    share = found.accuracy.value
    assert share is not None
    assert width(found.accuracy) == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 2000), rel=0.15)


def test_the_result_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    draw = np.random.default_rng(3)
    labels, probabilities, users = draw.integers(0, 2, 300), draw.random(300), draw.integers(0, 50, 300)
    found = measured(labels, probabilities, users)
    order = draw.permutation(300)
    again = measured(labels[order], probabilities[order], users[order])
    assert again.accuracy.low == pytest.approx(found.accuracy.low)
    assert again.auc.high == pytest.approx(found.auc.high)
    assert measured(labels, probabilities, users, seed=2) != found


def test_users_beyond_one_block_count_too() -> None:
    count = 2500
    labels = (np.arange(count) % 2).astype(np.int8)
    found = measured(labels, np.where(np.arange(count) < 1200, labels, 1 - labels).astype(float), np.arange(count))
    assert found.users == count
    assert found.accuracy.value == pytest.approx(1200 / count)
    assert found.accuracy.low is not None and found.accuracy.low > 0.44


def test_reliability_bins_hold_every_vector() -> None:
    labels, probabilities = np.array([0, 1, 1, 1]), np.array([0.0, 0.03, 0.5, 1.0])
    found = measure(labels, probabilities, np.arange(4), threshold=0.5, seed=1).reliability
    assert [one.vectors for one in found] == [2, 1, 1]
    assert [one.predicted for one in found] == pytest.approx([0.015, 0.5, 1.0])
    assert [one.observed.value for one in found] == [0.5, 1.0, 1.0]
    assert found[-1].high == 1


def width(one: Estimate) -> float:
    assert one.low is not None and one.high is not None
    return one.high - one.low
