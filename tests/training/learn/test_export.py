"""ONNX gives what scikit-learn gives for the same float32 input."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from modelstream.errors import ConfigurationError
from modelstream.model.onnx import OnnxModel
from modelstream.training.learn.calibration import Platt
from modelstream.training.learn.export import ConversionError, Trained, as_model, compare, to_onnx

FEATURES = ("a", "b", "c")

MAKERS: dict[str, Any] = {
    "scaled logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=100)),
    "logistic regression": lambda: LogisticRegression(max_iter=10_000),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=40, random_state=1),
    "forest": lambda: RandomForestClassifier(20, random_state=1),
    "extra trees": lambda: ExtraTreesClassifier(20, random_state=1),
}


def data(count: int = 3000) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Return vectors of sums in the thousands with few values each, so that thresholds lie between neighbours."""
    draw = np.random.default_rng(1)
    vectors = np.column_stack(
        [draw.normal(3000, 1000, count), draw.integers(0, 30, count) / 7, draw.exponential(50, count)]
    ).astype(np.float32)
    odds = (vectors[:, 0] - 3000) / 500 + vectors[:, 1] - 2 + draw.logistic(size=count)
    return vectors, (odds > 0).astype(np.int8)


def model_of(trained: Trained) -> OnnxModel:
    return as_model(to_onnx(trained, len(FEATURES)), "tried", FEATURES)


@pytest.mark.parametrize("platt", [Platt(), Platt(1.7, -0.3)], ids=["plain", "calibrated"])
@pytest.mark.parametrize("name", MAKERS)
def test_onnx_is_scikit_learn_row_by_row(name: str, platt: Platt) -> None:
    vectors, labels = data()
    trained = Trained(MAKERS[name]().fit(vectors.astype(np.float64), labels), platt)
    # The vectors that were learned from lie at the thresholds' edges; the others in between.
    more = np.concatenate([vectors, np.nextafter(vectors, np.float32(np.inf)), data(5000)[0][::-1]])
    found = compare(trained, model_of(trained), more, 0.5)
    assert (found.vectors, found.other_class) == (11_000, 0)
    assert found.most_apart <= 1e-6
    assert ((trained.probabilities(vectors) >= 0.5) == labels).mean() > 0.8, "it has learned something"


@pytest.mark.parametrize("name", MAKERS)
def test_probability_does_not_depend_on_the_batch(name: str) -> None:
    vectors, labels = data()
    model = model_of(Trained(MAKERS[name]().fit(vectors.astype(np.float64), labels)))
    whole = model.predict(vectors[:600])
    for size in (1, 2, 3, 7, 64, 599):
        parts = [model.predict(vectors[start : start + size]) for start in range(0, 600, size)]
        assert (np.concatenate(parts)[:600] == whole[: len(np.concatenate(parts))][:600]).all()


def test_same_model_is_the_same_file() -> None:
    vectors, labels = data(1000)
    for make in MAKERS.values():
        files = {to_onnx(Trained(make().fit(vectors.astype(np.float64), labels)), 3) for _ in range(2)}
        assert len({hashlib.sha256(file).digest() for file in files}) == 1


def test_calibrated_forest_says_no_certainty_it_does_not_have() -> None:
    vectors, labels = data()
    trained = Trained(MAKERS["forest"]().fit(vectors, labels), Platt(0.5, 0.0))
    probability = model_of(trained).predict(vectors)
    assert (probability > 0).all()
    assert (probability < 1).all()


def test_other_classifiers_go_through_skl2onnx_and_are_compared_as_well() -> None:
    vectors, labels = data(500)
    vectors = (np.round(vectors / 16) * 16).astype(np.float32)  # skl2onnx rounds thresholds: these are exact
    trained = Trained(DecisionTreeClassifier().fit(vectors.astype(np.float64), labels))
    assert compare(trained, model_of(trained), vectors, 0.5).other_class == 0
    with pytest.raises(ConversionError, match="only linear models and trees"):
        to_onnx(Trained(trained.estimator, Platt(2.0)), 3)


def test_classifier_that_gives_no_probability_for_extremes_is_refused() -> None:
    vectors, labels = data(500)
    with pytest.raises(ConfigurationError, match="something other than probabilities"):
        model_of(Trained(GaussianNB().fit(vectors.astype(np.float64), labels)))


def test_conversion_that_differs_is_refused() -> None:
    vectors, labels = data(500)
    one = Trained(LogisticRegression().fit(vectors.astype(np.float64), labels))
    with pytest.raises(ConversionError, match=r"the vector .* gets"):
        compare(Trained(one.estimator, Platt(1.0, 1e-5)), model_of(one), vectors, 0.5)


@given(st.floats(-1e30, 1e30), st.integers(-3, 3))
def test_threshold_rounded_down_parts_float32_values_as_the_exact_one(threshold: float, steps: int) -> None:
    from modelstream.training.learn.export import _rounded_down

    rounded = _rounded_down(np.array([threshold]))[0]
    assert np.float64(np.float32(rounded)) == rounded
    value = np.float32(threshold)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.inf if steps > 0 else -np.inf))
    assert (np.float64(value) <= threshold) == (np.float64(value) <= rounded)


class Linear:
    """A logistic regression with given weights: one feature, any log odds."""

    @staticmethod
    def of(weight: float, intercept: float) -> LogisticRegression:
        made = LogisticRegression().fit(np.array([[0.0], [1.0]]), np.array([0, 1]))
        made.coef_, made.intercept_ = np.array([[weight]]), np.array([intercept])
        return made


def extremes() -> npt.NDArray[np.float32]:
    """Return one feature float32[n, 1] from 0 to the bound of the model's input, both signs."""
    sizes = np.concatenate([np.linspace(0, 60, 241), 10.0 ** np.arange(2, 31)])
    found: npt.NDArray[np.float32] = np.concatenate([-sizes[::-1], sizes]).astype(np.float32)[:, None]
    return found


PLATTS = st.builds(Platt, st.floats(0.01, 4), st.floats(-8, 8))


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(-40, 40), st.one_of(st.just(Platt()), PLATTS))
def test_linear_model_of_extreme_scores_is_scikit_learn_in_onnx(weight: float, intercept: float, platt: Platt) -> None:
    trained = Trained(Linear.of(weight, intercept), platt)
    model = as_model(to_onnx(trained, 1), "tried", ("a",))
    assert compare(trained, model, extremes(), 0.5).most_apart <= 1e-6


@pytest.mark.parametrize("name", [name for name in MAKERS if "logistic" not in name])
@settings(max_examples=10, deadline=None)
@given(platt=PLATTS)
def test_trees_certain_of_everything_are_scikit_learn_in_onnx(name: str, platt: Platt) -> None:
    trained = Trained(CERTAIN[name], platt)
    model = as_model(to_onnx(trained, 1), "tried", ("a",))
    assert compare(trained, model, extremes(), 0.5).most_apart <= 1e-6


def certain(make: Any) -> Any:
    """Return trees that part two classes without an error, with log odds up to infinity."""
    made = make()
    values = np.linspace(-1, 1, 200)[:, None]
    made.fit(values, (values[:, 0] > 0).astype(int))
    for (predictor,) in getattr(made, "_predictors", []):
        predictor.nodes["value"] *= 8  # log odds of ±30 and more
    return made


CERTAIN = {name: certain(make) for name, make in MAKERS.items() if "logistic" not in name}
