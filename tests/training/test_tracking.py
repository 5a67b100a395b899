"""The model's artifact in MLRun: logged by a run, found by its `store://` URI, and served from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlrun
import msgspec
import numpy as np
import pandas as pd
import pytest
from mlrun.serving import V2ModelServer

from modelstream.model.onnx import OnnxModel
from modelstream.model.spec import SPEC_FILE, parse_spec, read_spec
from modelstream.registry.artifact import store_uri
from modelstream.registry.registry import Registry
from modelstream.training import tracking
from modelstream.training.report.card import CARD_FILE, parse_card
from modelstream.training.report.card_text import card_files
from tests.cluster.mlrun_models import ModelsStandIn
from tests.model_files import CHURN
from tests.stages.test_endpoint import server
from tests.test_project import folder, loaded, mlrun_code
from tests.training.synthetic import card, examples
from tests.training.versions import version_files

__all__ = ["folder", "loaded", "server"]
URI = store_uri("modelstream", "churn", "1")


@pytest.fixture
def logged(server: ModelsStandIn, tmp_path: Path) -> Iterator[OnnxModel]:
    """Log a registered version in an MLRun run, with an API; give the model."""
    server.project = {"kind": "project", "metadata": {"name": "modelstream"}, "spec": {}, "status": {}}
    registry = Registry(tmp_path / "models", CHURN.model_name, CHURN.features)
    files = version_files("1", 0.4)
    described = parse_spec(files[SPEC_FILE], "spec")
    written = msgspec.structs.replace(card("1"), sha256=described.sha256)
    registry.register(lambda _: files | card_files(written) | {"report.html": b"<html></html>"})
    model = registry.load("1")
    learned, _ = examples()
    done: Any = SimpleNamespace(
        content=files["model.onnx"], data=SimpleNamespace(use_case=CHURN), snapshot=SimpleNamespace(learn=learned)
    )

    context = mlrun.get_or_create_ctx("training", project="modelstream")
    context.artifact_path = str(tmp_path / "artifacts")
    tracking.log(context, registry, done, "1")
    yield model


def test_artifact_says_what_the_model_is(logged: OnnxModel, server: ModelsStandIn, tmp_path: Path) -> None:
    artifact, _ = mlrun.datastore.store_manager.get_store_artifact(URI)
    assert artifact.metadata.labels["version"] == "1"
    registry = Registry(tmp_path / "models", CHURN.model_name, CHURN.features)
    written = parse_card(registry.read("1", CARD_FILE), CARD_FILE)
    assert artifact.spec.metrics == tracking.metrics_of(written) != {}
    assert artifact.spec.feature_stats == tracking.feature_stats_of(written)
    assert list(artifact.spec.feature_stats) == [one.name for one in artifact.spec.inputs] == list(CHURN.features)
    assert [one.name for one in artifact.spec.outputs] == [CHURN.prediction]
    for stats in artifact.spec.feature_stats.values():
        counts, edges = stats["hist"]
        assert len(edges) == len(counts) + 1
    label = artifact.spec.parameters["label_column"]
    dataset = mlrun.get_dataitem(artifact.spec.extra_data["training-set"]).as_df()
    assert isinstance(dataset, pd.DataFrame)
    assert set(dataset[label].unique()) == {0, 1}
    assert {*CHURN.features} <= {*dataset.columns}
    assert server.artifacts["training_training-set", "latest"]["spec"]["label_column"] == label
    found = read_spec(artifact.to_dict(), URI)
    ours = logged.spec
    assert (found.name, found.version, found.sha256, found.features) == (
        ours.name,
        ours.version,
        ours.sha256,
        ours.features,
    )


def test_mlruns_get_model_and_a_plain_model_server_load_it(logged: OnnxModel) -> None:
    file, artifact, extra = mlrun.artifacts.get_model(URI, ".onnx")
    assert hashlib.sha256(Path(file).read_bytes()).hexdigest() == logged.spec.sha256
    assert json.loads(extra["card.json"].get())["name"] == artifact.metadata.key == "churn"

    class Plain(V2ModelServer):  # type: ignore[misc]
        def load(self) -> None:
            import onnxruntime

            path, _ = self.get_model(".onnx")
            self.session = onnxruntime.InferenceSession(path)

        def predict(self, request: dict[str, Any]) -> list[Any]:
            vectors = np.array(request["inputs"], np.float32)
            outputs = self.session.run(None, {self.session.get_inputs()[0].name: vectors})
            return [float(value) for value in np.ravel(outputs[-1])[-len(vectors) :]]

    function = mlrun.new_function("plain", project="modelstream", kind="serving", image="none")
    function.set_topology("router")
    function.add_model("churn", class_name="Plain", model_path=URI)
    rows = np.random.default_rng(1).normal(size=(4, len(CHURN.features))).astype(np.float32)
    server = function.to_mock_server(namespace={"Plain": Plain})
    found = server.test("/v2/models/churn/infer", {"inputs": rows.tolist()})
    assert len(found["outputs"]) == 4
    assert found["outputs"] == pytest.approx(logged.predict(rows).tolist(), rel=1e-5)


def test_the_notebooks_server_serves_it_by_its_uri(logged: OnnxModel, loaded: Any, folder: Path) -> None:
    block: dict[str, Any] = {}
    exec(compile(mlrun_code(loaded, "model-server"), "model-server", "exec"), block)
    function = mlrun.new_function("served", project="modelstream", kind="serving", image="none")
    flow = function.set_topology("flow", engine="sync")
    arguments = {"model_path": URI, "use_case": str(folder / "use_cases" / "churn.yaml")}
    flow.to("Model", name="model", **arguments).respond()
    rows = np.random.default_rng(2).normal(size=(3, len(CHURN.features))).astype(np.float32)
    found = function.to_mock_server(namespace=block).test("/v2/models/churn/infer", {"inputs": rows.tolist()})
    assert found["model_version"] == "1"
    assert found["probabilities"] == pytest.approx(logged.predict(rows).tolist(), rel=1e-5)
