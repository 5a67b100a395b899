"""Models: only what the spec says is loaded, nothing from outside the file, and probabilities come out."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelstream.errors import ConfigurationError
from modelstream.model.onnx import BOUND, OnnxModel, as_input, load_model
from modelstream.model.spec import SPEC_FILE, ModelSpec
from modelstream.training.report.card import read_card
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "assets" / "models" / "churn" / "1"
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
WEIGHTS = np.array([[2.0], [-1.0]], np.float32)


def logistic(
    weights: np.ndarray[Any, Any] = WEIGHTS,
    *,
    output: str = "probabilities",
    last: str = "Sigmoid",
    domain: str = "",
    change: Callable[[onnx.ModelProto], None] | None = None,
) -> bytes:
    """Return a tiny model: sigmoid(x @ weights)."""
    width, outputs = weights.shape
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            helper.make_node(last, ["s"], [output], domain=domain),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, outputs])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if change:
        change(model)
    content: bytes = model.SerializeToString()
    return content


def spec_of(content: bytes, **changes: Any) -> ModelSpec:
    sha256 = hashlib.sha256(content).hexdigest()
    values = {"name": "tiny", "version": "3", "file": "model.onnx", "sha256": sha256, "features": ("a", "b")}
    return ModelSpec(**{**values, **changes})


def open_content(content: bytes, **changes: Any) -> OnnxModel:
    return OnnxModel(spec_of(content, **changes), content, "tiny/model.onnx")


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_predicts_the_positive_class() -> None:
    vectors = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    one_column = open_content(logistic()).predict(vectors)
    two_columns = open_content(logistic(np.hstack([-WEIGHTS, WEIGHTS]))).predict(vectors)
    np.testing.assert_allclose(one_column, sigmoid([0, 2, -1]), rtol=1e-6)
    np.testing.assert_allclose(two_columns, sigmoid([0, 2, -1]), rtol=1e-6)
    assert one_column.dtype == two_columns.dtype == np.float64
    assert one_column.shape == two_columns.shape == (3,)


def test_result_just_above_one_is_one() -> None:
    """The logistic function of a linear classifier gives 1.0000001 for some inputs near 17.9."""
    classifier = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        coefficients=[-1.0, 1.0],
        intercepts=[0.0, 0.0],
        classlabels_ints=[0, 1],
        post_transform="LOGISTIC",
    )
    graph = helper.make_graph(
        [classifier],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    model = open_content(content, features=("a",))
    vectors = np.linspace(-40, 40, 1_000_001, dtype=np.float32)[:, None]
    probability = model.predict(vectors)
    assert (probability.min(), probability.max()) == (0.0, 1.0)
    np.testing.assert_allclose(probability, sigmoid(vectors[:, 0]), atol=1e-6)


def test_file_of_another_hash_is_refused() -> None:
    content = logistic()
    with pytest.raises(ConfigurationError, match=r"tiny/model\.onnx: sha256 is"):
        OnnxModel(spec_of(content), logistic(WEIGHTS * 2), "tiny/model.onnx")


def test_file_that_is_no_model_is_refused() -> None:
    for content in (b"", b"not a model", logistic()[:-20]):
        with pytest.raises(ConfigurationError, match=r"tiny/model\.onnx: "):
            open_content(content)


def test_custom_operator_is_refused() -> None:
    for domain in ("com.example", "com.microsoft"):
        with pytest.raises(ConfigurationError, match=f"uses operators of {domain}"):
            open_content(logistic(last="Gelu", domain=domain))


def test_custom_operator_inside_of_a_branch_is_refused() -> None:
    def hide(model: onnx.ModelProto) -> None:
        inner = helper.make_graph(
            [helper.make_node("Evil", ["s"], ["y"], domain="com.example")],
            "inner",
            [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        )
        model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))

    with pytest.raises(ConfigurationError, match=r"uses operators of com\.example"):
        open_content(logistic(change=hide))


def test_weights_in_another_file_are_refused() -> None:
    def move_weights(model: onnx.ModelProto) -> None:
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../../etc/passwd")

    with pytest.raises(ConfigurationError, match="keeps the weights 'w' in another file"):
        open_content(logistic(change=move_weights))


def test_other_width_than_the_features_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"model_spec.yaml has 3 features"):
        open_content(logistic(), features=("a", "b", "c"))


def test_other_output_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"it needs an output 'probabilities' of"):
        open_content(logistic(output="score"))
    with pytest.raises(ConfigurationError, match=r"it needs an output 'probabilities' of"):
        open_content(logistic(np.ones((2, 3), np.float32)))


@pytest.mark.parametrize("last", ["Identity", "Log", "Relu"])
def test_model_that_gives_no_probabilities_is_refused(last: str) -> None:
    with pytest.raises(ConfigurationError, match="something other than probabilities, for vectors of 0, 1 and"):
        open_content(logistic(last=last))


def test_shipped_model_is_the_use_cases() -> None:
    model = load_model(SHIPPED, CHURN.features)
    assert (model.spec.name, model.spec.version) == ("churn", "1")
    assert model.spec.name == CHURN.model_name


def test_shipped_model_gives_finite_probabilities_for_any_vector() -> None:
    model = load_model(SHIPPED)
    extremes = [0.0, 1e9, -1e15, 1e29, 1e300, -1e308, float("inf"), float("-inf"), float("nan")]
    rng = np.random.default_rng(0)
    columns = [rng.choice(extremes, 20_000) for _ in CHURN.features]
    probability = model.predict(as_input(columns))
    assert np.isfinite(probability).all()
    assert ((probability >= 0) & (probability <= 1)).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "model"))


def change_spec(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / SPEC_FILE
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def test_changed_byte_is_noticed(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"model.onnx: sha256 is .*, but model_spec.yaml says"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data["spec"]["parameters"].pop("sha256"), "spec.parameters.sha256"),
        (lambda data: data["spec"]["parameters"].pop("version"), "spec.parameters.version"),
        (lambda data: data.update(kind="dataset"), "does not describe a model"),
        (lambda data: data["spec"].pop("inputs"), "missing required field `inputs`"),
        (lambda data: data["spec"].update(model_file="../model.onnx"), "only an .onnx file in the same folder"),
        (lambda data: data["spec"].update(model_file="model.pkl"), "only an .onnx file in the same folder"),
        (lambda data: data["spec"].update(model_file="other.onnx"), "other.onnx: No such file"),
    ],
)
def test_error_in_the_spec_is_named(folder: Path, change: Callable[[Any], Any], expected: str) -> None:
    change_spec(folder, change)
    with pytest.raises(ConfigurationError) as raised:
        load_model(folder)
    assert str(folder) in str(raised.value)
    assert expected in str(raised.value)
    assert raised.value.remedy


def test_folder_without_a_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model_spec.yaml: can't be read"):
        load_model(tmp_path)


def test_model_of_another_use_case_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="it lacks frost_count; it wants win_var"):
        load_model(folder, (*CHURN.features[:-1], "frost_count"))
    with pytest.raises(ConfigurationError, match="the order differs"):
        load_model(folder, CHURN.features[::-1])


@given(st.lists(st.floats(width=64), max_size=30), st.integers(1, 3))
def test_input_is_finite_and_else_rounded_to_float32(values: list[float], width: int) -> None:
    columns = [np.array(values)] * width
    vectors = as_input(columns)
    assert vectors.shape == (len(values), width)
    assert vectors.dtype == np.float32
    for value, row in zip(values, vectors, strict=True):
        for given_ in row:
            if value != value:
                assert given_ == 0
            elif abs(value) > float(BOUND):
                assert given_ == (BOUND if value > 0 else -BOUND)
            else:
                assert given_ == np.float32(value)


def test_shipped_model_has_the_card_of_its_own_file_and_is_good_enough() -> None:
    """assets/make_model.py makes all of them together; the goals are those of docs/training.md."""
    card = read_card(SHIPPED)
    spec = load_model(SHIPPED).spec
    assert (card.sha256, card.version, card.name) == (spec.sha256, spec.version, spec.name)
    assert tuple(card.features) == CHURN.features
    assert spec.metrics == {name: round(getattr(card.evaluation.metrics, name).value, 4) for name in spec.metrics}
    found = {name: getattr(card.evaluation.metrics, name).value for name in ("auc", "accuracy", "log_loss", "ece")}
    assert found["auc"] > 0.995
    assert found["accuracy"] > 0.97
    assert found["log_loss"] < 0.06
    assert found["ece"] < 0.02
