"""Loads and runs models: an MLRun model directory with an ONNX file, run by onnxruntime. No pickles.

The directory holds `model.onnx` and `model_spec.yaml` (`kind: model`, as MLRun's `log_model` writes it): its
`spec.inputs` name the features in order, its `spec.parameters` hold `version` and the file's `sha256`.
The graph has one input, float32[n, features], and an output `probabilities`: float[n, 2], whose second column
is the probability of the positive class (as scikit-learn's converters give it), or float[n] or float[n, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.model.spec import SPEC_FILE, ModelSpec, check_features, parse_spec

OUTPUT = "probabilities"
BOUND = np.float32(1e30)
"""Inputs are limited to ±1e30: float32 ends at 3.4e38, and products or sums of larger inputs become NaN."""
ROUNDING = 1e-6
"""How far a float32 result may be outside of 0 to 1: onnxruntime's logistic function of 17.844 is 1.0000001."""

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_RETRAIN = "train the model again, or restore the last good version of the folder"

Floats = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]


class ModelError(ModelstreamError):
    """The model did not give a probability for each vector.

    `OnnxModel.predict` raises it.
    """


class OnnxModel:
    """A loaded model: vectors in, probabilities out, on one thread.

    >>> import onnx.parser
    >>> graph = '''<ir_version: 8, opset_import: ["": 17]> frost (float[n, 1] vectors) => (float[n, 1] probabilities)
    ... {probabilities = Sigmoid(vectors)}'''
    >>> content = onnx.parser.parse_model(graph).SerializeToString()
    >>> spec = ModelSpec("frost", "1", "model.onnx", hashlib.sha256(content).hexdigest(), ("celsius",))
    >>> model = OnnxModel(spec, content, "an example")
    >>> model.predict(as_input([np.array([0.0, -2.0])])).round(3).tolist()
    [0.5, 0.119]
    """

    def __init__(self, spec: ModelSpec, content: bytes, source: str) -> None:
        """Check and load the content of an ONNX file; `source` is what errors call it.

        Raises ConfigurationError if it differs from the spec, refers to anything outside of the file, or does not
        return probabilities.
        """
        self.spec = spec
        self.features = len(spec.features)
        self.source = source
        """Where it was loaded from."""
        found = hashlib.sha256(content).hexdigest()
        if found != spec.sha256:
            raise ConfigurationError(
                f"{source}: sha256 is {found}, but {SPEC_FILE} says {spec.sha256 or 'none'}", remedy=_RETRAIN
            )
        _refuse_foreign(content, source)
        self._session = _session(content, source)
        self._input = self._checked_input()
        self._check_output()
        self._probe()

    def predict(self, vectors: Floats) -> Probabilities:
        """Return the probability of the positive class, float64[n], for vectors float32[n, features].

        Vectors come from `as_input`. Raises ModelError when a result is not a probability.
        """
        count = len(vectors)
        if count == 1:
            # onnxruntime multiplies one row by another routine, whose last bit differs: what a vector gets must
            # not depend on how it was batched.
            vectors = np.repeat(vectors, 2, axis=0)
        (result,) = self._session.run([OUTPUT], {self._input: vectors})
        column = result[:, -1] if result.ndim == 2 else result
        probability: Probabilities = column[:count].astype(np.float64)
        # NaN compares as false.
        if len(result) != len(vectors) or not (np.abs(probability - 0.5) <= 0.5 + ROUNDING).all():
            raise ModelError(f"{self.source}: the model returned something other than probabilities", remedy=_RETRAIN)
        return np.clip(probability, 0.0, 1.0, out=probability)

    def _checked_input(self) -> str:
        inputs = self._session.get_inputs()
        shapes = [(i.type, i.shape[1:] if len(i.shape) == 2 else i.shape) for i in inputs]
        if shapes != [("tensor(float)", [self.features])] or isinstance(inputs[0].shape[0], int):
            described = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)
            raise ConfigurationError(
                f"{self.source}: takes {described}; {SPEC_FILE} has {self.features} features, "
                f"so it must take one tensor(float) [None, {self.features}]",
                remedy=_RETRAIN,
            )
        name: str = inputs[0].name
        return name

    def _check_output(self) -> None:
        outputs = {o.name: (o.type, o.shape[1:]) for o in self._session.get_outputs()}
        kind, shape = outputs.get(OUTPUT, ("", None))
        if kind not in ("tensor(float)", "tensor(double)") or shape not in ([], [1], [2]):
            raise ConfigurationError(
                f"{self.source}: has the outputs {outputs}; it needs an output {OUTPUT!r} of float [None], "
                "[None, 1] or [None, 2]",
                remedy="convert a classifier with `options={'zipmap': False}`",
            )

    def _probe(self) -> None:
        """Try extreme inputs, so that a bad model is refused here and not in the middle of a stream."""
        vectors = np.zeros((4, self.features), np.float32)
        vectors[1:] = np.array([[BOUND], [-BOUND], [1]], np.float32)
        try:
            self.predict(vectors)
        except ModelError as error:
            raise ConfigurationError(f"{error}, for vectors of 0, 1 and ±1e30", remedy=_RETRAIN) from None
        except Exception as error:  # onnxruntime has its own exceptions, all below RuntimeError or Exception
            raise ConfigurationError(f"{self.source}: does not run: {error}", remedy=_RETRAIN) from error


def load_model(folder: str | Path, features: Sequence[str] | None = None) -> OnnxModel:
    """Return the model in a local MLRun model directory, checked against `features` if they are given.

    Raises ConfigurationError: which file, what is wrong with it, and a remedy.

    >>> load_model("nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: nowhere/model_spec.yaml: can't be read: ...
    """
    folder = Path(folder)
    path = folder / SPEC_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: can't be read: {error}", remedy=f"a model is a folder with {SPEC_FILE} and an ONNX file"
        ) from None
    spec = parse_spec(content, str(path))
    return load_model_file(folder / spec.file, spec, features)


def load_model_file(path: str | Path, spec: ModelSpec, features: Sequence[str] | None = None) -> OnnxModel:
    """Return the model that a spec describes, from the ONNX file at `path`. Raises ConfigurationError.

    `OnnxModel` has an example.
    """
    if features is not None:
        check_features(spec, features, str(path))
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}", remedy=_RETRAIN) from None
    return OnnxModel(spec, content, str(path))


def as_input(columns: Sequence[npt.NDArray[np.float64]]) -> Floats:
    """Return columns float64[n], one a feature, as a model takes them: float32[n, features] within ±BOUND.

    Training and serving both use it. Infinity becomes the bound, NaN becomes 0.

    >>> as_input([np.array([0.1, 1e300]), np.array([-np.inf, np.nan])]).tolist()
    [[0.10000000149011612, -1.0000000150474662e+30], [1.0000000150474662e+30, 0.0]]
    """
    vectors = np.empty((len(columns[0]) if columns else 0, len(columns)), np.float32)
    with np.errstate(over="ignore"):
        for i, column in enumerate(columns):
            vectors[:, i] = column
    np.clip(vectors, -BOUND, BOUND, out=vectors)
    # One NaN makes the sum NaN; finding out costs 3 µs a thousand vectors, replacing 60.
    if np.isnan(vectors.sum(dtype=np.float64)):
        np.nan_to_num(vectors, copy=False, nan=0.0)
    return vectors


def _session(content: bytes, source: str) -> Any:
    options = onnxruntime.SessionOptions()
    # One thread: two are slower for trees (141 against 184 krows/s), and other functions need the other core.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise ConfigurationError(f"{source}: onnxruntime can't load it: {error}", remedy=_RETRAIN) from error


def _refuse_foreign(content: bytes, source: str) -> None:
    """Raise for operators that are not ONNX's own, and for weights in other files."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError, which is no exception class that onnx exports
        raise ConfigurationError(f"{source}: not an ONNX file: {error}", remedy=_RETRAIN) from error
    foreign: set[object] = set()  # protobuf gives bytes for what is no UTF-8
    for graph in _graphs(model):
        foreign |= {node.domain for node in graph.node} - _DOMAINS
        for tensor in _tensors(graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ConfigurationError(
                    f"{source}: keeps the weights {tensor.name!r} in another file",
                    remedy="save the model with its weights inside",
                )
    if foreign:
        raise ConfigurationError(
            f"{source}: uses operators of {', '.join(sorted(map(str, foreign)))}",
            remedy="use the standard operators of ONNX",
        )


def _graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """Yield the graph, the functions, and the graphs that stand inside of nodes."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*attribute.graphs, attribute.g] if attribute.HasField("g") else attribute.graphs


def _tensors(graph: Any) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a graph or function: weights and attributes."""
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
