"""From scikit-learn to ONNX: a graph that gives what scikit-learn gives for the same float32 input.

Linear models and ensembles of trees are converted here rather than by skl2onnx, whose graphs are less exact: they add
up in float32, which moves a probability by up to 1e-5 where sums are in the thousands; and they round thresholds to
float32, half of them upwards, so that a value just below one takes the other branch. Here a scaler is folded into the
weights, sums are in float64, and thresholds are rounded down, which no float32 value can tell from the exact one.
skl2onnx converts everything else, in float32.

The graph holds no name, version or time: the same model is the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_limits

from modelstream.errors import ModelstreamError
from modelstream.model.onnx import OUTPUT, OnnxModel
from modelstream.model.spec import ModelSpec
from modelstream.training.learn.calibration import EDGE, MOST_ODDS, Platt
from modelstream.training.snapshot.examples import Floats

Array = npt.NDArray[np.float64]
Probabilities = Callable[[Floats], Array]

OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8
INPUT = "vectors"
MODEL_FILE = "model.onnx"
MOST_APART = 1e-6
"""How far a probability may be from scikit-learn's: a float32 between 0.5 and 1 is exact to 3e-8."""
AT = 6e-8
"""One float32 step below 1: a probability closer than this to the threshold counts as equal to it."""


@dataclass(frozen=True)
class Trained:
    """A fitted scikit-learn classifier, and its calibration."""

    estimator: Any
    platt: Platt = Platt()  # noqa: RUF009 (frozen)

    def probabilities(self, vectors: Floats) -> Array:
        """Return the probability of the positive class, float64[n], for float32[n, features], as scikit-learn does."""
        # As float64 the values are the same, and a scaler computes in float64.
        with threadpool_limits(1):
            raw: Array = self.estimator.predict_proba(vectors.astype(np.float64))[:, 1]
        return self.platt.apply(raw)


@dataclass(frozen=True)
class Comparison:
    """How ONNX compares with scikit-learn."""

    vectors: int
    other_class: int
    """Vectors that one puts at or above the threshold and the other below it; those within `AT` of the threshold don't
    count."""
    most_apart: float
    """The greatest difference of a probability."""

    def told(self) -> str:
        """Return it in words."""
        return (
            f"ONNX and scikit-learn on the same {self.vectors:,} float32 vectors: {self.other_class:,} of another "
            f"class, probabilities at most {self.most_apart:.1e} apart"
        )


class ConversionError(ModelstreamError):
    """The ONNX graph does not give the same probabilities as the trained model."""


def to_onnx(trained: Trained, features: int) -> bytes:
    """Return a model as ONNX: `vectors` float32[n, features] to `probabilities`, [n, 1] or [n, 2]."""
    graph = _Graph(features)
    estimator, platt = trained.estimator, trained.platt
    linear = _linear(estimator)
    if linear is not None:
        weights, intercept = linear
        graph.sigmoid(graph.scaled(graph.weighted(weights, intercept), platt))
    elif hasattr(estimator, "_predictors"):
        graph.sigmoid(graph.scaled(graph.trees(*_boosted(estimator)), platt))
    elif _is_forest(estimator):
        graph.calibrated(graph.trees(*_forest(estimator)), platt)
    else:
        return _foreign(estimator, features, platt)
    return graph.content()


def as_model(content: bytes, name: str, features: tuple[str, ...], version: str = "new") -> OnnxModel:
    """Return ONNX content as the model server would run it."""
    return OnnxModel(ModelSpec(name, version, MODEL_FILE, hashlib.sha256(content).hexdigest(), features), content, name)


def compare(trained: Trained, model: OnnxModel, vectors: Floats, threshold: float) -> Comparison:
    """Compare ONNX with scikit-learn, row by row. Raises ConversionError where they differ by more than rounding."""
    expected, actual = trained.probabilities(vectors), model.predict(vectors)
    apart = float(np.abs(expected - actual).max(initial=0.0))
    differ = (expected >= threshold) != (actual >= threshold)
    other = int(np.count_nonzero(differ & (np.abs(expected - threshold) > AT)))
    found = Comparison(len(vectors), other, apart)
    if other or apart > MOST_APART:
        row = int(np.abs(expected - actual).argmax())
        raise ConversionError(
            f"{found.told()}: the vector {vectors[row].tolist()} gets {actual[row]!r} and {expected[row]!r}",
            remedy="leave this candidate out (--candidates), or convert it in modelstream/training/learn/export.py",
        )
    return found


class _Graph:
    """An ONNX graph in the making: each method adds nodes, and returns the name of what they give."""

    def __init__(self, features: int) -> None:
        self._features = features
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._input = self._add("Cast", INPUT, to=TensorProto.DOUBLE)

    def weighted(self, weights: Array, intercept: float) -> str:
        """Add up weighted features. (With ReduceSum the last bit would depend on how many rows are summed at once.)"""
        product = self._add("MatMul", self._input, self._constant(weights.reshape(-1, 1)))
        return self._add("Add", product, self._constant([[intercept]]))

    def trees(self, attributes: dict[str, Any], base: float) -> str:
        """Add up the trees' values in float64; the result is rounded to float32, as ONNX requires."""
        name = self._add("TreeEnsembleRegressor", self._input, domain="ai.onnx.ml", **attributes)
        return self._add("Add", self._add("Cast", name, to=TensorProto.DOUBLE), self._constant([[base]]))

    def scaled(self, name: str, platt: Platt) -> str:
        """Stretch and move log odds: `Platt.apply`, node by node."""
        if platt == Platt():
            return name
        inner = self._add("Clip", name, self._constant(-MOST_ODDS), self._constant(MOST_ODDS))
        stretched = self._add("Mul", inner, self._constant([[platt.slope]]))
        return self._add("Add", stretched, self._constant([[platt.intercept]]))

    def sigmoid(self, name: str) -> None:
        """Make log odds the result, as probabilities."""
        self.result(self._add("Sigmoid", name))

    def result(self, name: str) -> None:
        """Output probabilities as float32, which rounds off a last bit that may depend on the other rows."""
        self._add("Cast", name, output=OUTPUT, to=TensorProto.FLOAT)

    def calibrated(self, name: str, platt: Platt) -> None:
        """Make probabilities the result, calibrated."""
        if platt == Platt():
            self.result(name)
            return
        inner = self._add("Clip", name, self._constant(EDGE), self._constant(1 - EDGE))
        rest = self._add("Sub", self._constant([[1.0]]), inner)
        self.sigmoid(self.scaled(self._add("Log", self._add("Div", inner, rest)), platt))

    def content(self) -> bytes:
        """Return the graph as a file."""
        return _content(self._nodes, self._constants, self._features)

    def _constant(self, values: Any) -> str:
        array = np.asarray(values)
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, kind: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output


def _content(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], features: int) -> bytes:
    vectors = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, features])
    result = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph(nodes, "model", [vectors], [result], constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="modelstream")
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _linear(estimator: Any) -> tuple[Array, float] | None:
    """Return the weights float64[features] and intercept of a logistic regression, its scaler folded in."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    if not isinstance(steps[-1], LogisticRegression):
        return None
    weights, intercept = steps[-1].coef_[0].astype(np.float64), float(steps[-1].intercept_[0])
    for scaler in steps[:-1]:
        if not isinstance(scaler, StandardScaler) or not scaler.with_mean or not scaler.with_std:
            return None
        weights = weights / scaler.scale_
        intercept -= float(weights @ scaler.mean_)
    return weights, intercept


def _is_forest(estimator: Any) -> bool:
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    return isinstance(estimator, RandomForestClassifier | ExtraTreesClassifier)


class _Trees:
    """The nodes of trees, as ONNX lists them: one after the other, with the number of their tree."""

    def __init__(self) -> None:
        self._parts: list[dict[str, npt.NDArray[Any]]] = []
        self._weights: list[Array] = []

    def add(self, left: Any, right: Any, feature: Any, threshold: Any, value: Array) -> None:
        """Add a tree: arrays over its nodes; a leaf has no left child (-1) and a value."""
        leaf = np.asarray(left) < 0
        count = len(leaf)
        self._parts.append(
            {
                "nodes_treeids": np.full(count, len(self._parts)),
                "nodes_nodeids": np.arange(count),
                "nodes_featureids": np.where(leaf, 0, feature),
                "nodes_truenodeids": np.where(leaf, 0, left),
                "nodes_falsenodeids": np.where(leaf, 0, right),
                "threshold": np.where(leaf, 0.0, _rounded_down(np.asarray(threshold, np.float64))),
                "leaf": leaf,
            }
        )
        self._weights.append(np.asarray(value, np.float64)[leaf])

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of a TreeEnsembleRegressor."""
        joined = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        leaf, threshold = joined.pop("leaf"), joined.pop("threshold")
        weights = np.concatenate(self._weights)
        return {
            **{name: values.astype(np.int64).tolist() for name, values in joined.items()},
            "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
            "nodes_values_as_tensor": numpy_helper.from_array(threshold),
            "target_treeids": joined["nodes_treeids"][leaf].tolist(),
            "target_nodeids": joined["nodes_nodeids"][leaf].tolist(),
            "target_ids": [0] * len(weights),
            "target_weights_as_tensor": numpy_helper.from_array(weights),
            "n_targets": 1,
            "post_transform": "NONE",
        }


def _rounded_down(values: Array) -> Array:
    """Return the greatest float32 at or below each value; for any float32 x, `x <= value` is the same with either."""
    nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest).astype(np.float64)


def _boosted(estimator: Any) -> tuple[dict[str, Any], float]:
    trees = _Trees()
    for (predictor,) in estimator._predictors:
        nodes = predictor.nodes
        left = np.where(nodes["is_leaf"], -1, nodes["left"].astype(np.int64))
        trees.add(left, nodes["right"], nodes["feature_idx"], nodes["num_threshold"], nodes["value"])
    return trees.attributes(), float(np.ravel(estimator._baseline_prediction)[0])


def _forest(estimator: Any) -> tuple[dict[str, Any], float]:
    trees = _Trees()
    for one in estimator.estimators_:
        tree = one.tree_
        positive = tree.value[:, 0, 1] / tree.value[:, 0, :].sum(axis=1) / len(estimator.estimators_)
        trees.add(tree.children_left, tree.children_right, tree.feature, tree.threshold, positive)
    return trees.attributes(), 0.0


def _foreign(estimator: Any, features: int, platt: Platt) -> bytes:
    """Return a classifier as converted by skl2onnx."""
    from skl2onnx import to_onnx as convert

    if platt != Platt():
        raise ConversionError(
            f"{type(estimator).__name__} needs a calibration, which only linear models and trees can be converted with",
            remedy="leave this candidate out (--candidates)",
        )
    sample = np.zeros((1, features), np.float32)
    model = convert(estimator, sample, options={"zipmap": False}, target_opset=OPSETS)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
