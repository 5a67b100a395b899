"""Model directories for tests: tiny models whose answer tells which one it is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from modelstream.registry.registry import Registry
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).parents[1]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
SHIPPED = ROOT / "assets" / "models" / "churn" / "1"

Change = Callable[[Any], Any]


def folder_of(registry: Registry) -> Path:
    """Return the folder of a registry's versions."""
    return Path(registry.place())


def probability_of(version: str) -> float:
    """Return what the model of a version says of every vector, to a float32's precision."""
    return int(version) / 1000


def constant_model(probability: float, width: int = len(CHURN.features), change: Change | None = None) -> bytes:
    """Return an ONNX file: the same probability for every vector float32[n, width]."""
    weights = np.zeros((width, 1), np.float32)
    bias = np.array([math.log(probability / (1 - probability))], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            helper.make_node("Add", ["s", "b"], ["t"]),
            helper.make_node("Sigmoid", ["t"], ["probabilities"]),
        ],
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if change:
        change(model)
    content: bytes = model.SerializeToString()
    return content


def directory(
    version: str,
    model: bytes | None = None,
    *,
    features: Sequence[str] = CHURN.features,
    change: Change | None = None,
) -> dict[str, bytes]:
    """Return the files of a model directory; `change` may alter what its model_spec.yaml says."""
    content = constant_model(probability_of(version)) if model is None else model
    described: dict[str, Any] = {
        "kind": "model",
        "metadata": {"key": CHURN.model_name},
        "spec": {
            "model_file": "model.onnx",
            "algorithm": "Constant",
            "parameters": {"version": version, "sha256": hashlib.sha256(content).hexdigest()},
            "metrics": {"auc": 0.5},
            "inputs": [{"name": name, "value_type": "float"} for name in features],
            "outputs": [{"name": CHURN.prediction, "value_type": "int"}],
        },
    }
    if change:
        change(described)
    return {"model_spec.yaml": yaml.safe_dump(described).encode(), "model.onnx": content, "README.md": b"# A card\n"}


def edited(content: bytes, change: Change) -> bytes:
    """Return an ONNX file with a change."""
    model = onnx.load_model_from_string(content)
    change(model)
    result: bytes = model.SerializeToString()
    return result
