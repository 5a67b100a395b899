"""A version that MLRun has as an artifact is served from there; what is wrong with the artifact is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlrun
import msgspec
import pytest

from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.model.spec import SPEC_FILE, parse_spec
from modelstream.registry import artifact
from modelstream.registry.current import ALIAS
from modelstream.registry.registry import Registry
from modelstream.registry.watch import ModelWatch
from modelstream.training import tracking
from modelstream.training.report.card_text import card_files
from tests.cluster.mlrun_models import ModelsStandIn
from tests.model_files import CHURN
from tests.stages.test_endpoint import server
from tests.training.synthetic import card, examples
from tests.training.versions import version_files

__all__ = ["server"]
PROJECT = "modelstream"


@pytest.fixture
def registry(server: ModelsStandIn, tmp_path: Path) -> Iterator[Registry]:
    """A registry with the versions 1 and 2, which are logged to MLRun as trainings do, and with 1 promoted."""
    server.project = {"kind": "project", "metadata": {"name": PROJECT}, "spec": {}, "status": {}}
    made = Registry(tmp_path / "models", CHURN.model_name, CHURN.features, mlrun_project=PROJECT)
    log(made, 0.4)
    log(made, 0.8)
    made.promote("1")
    yield made
    objects().clear()


def log(registry: Registry, skill: float, storage: str = "memory://models") -> str:
    """Register a version, and log it as a training does; return it."""
    version = registry.register(lambda version: _files(version, skill))
    learned, _ = examples()
    content = registry.read(version, "model.onnx", 1 << 20)
    done: Any = SimpleNamespace(
        content=content, data=SimpleNamespace(use_case=CHURN), snapshot=SimpleNamespace(learn=learned)
    )
    run = {"metadata": {"name": "training", "project": PROJECT, "uid": f"{version:0>32}"}}
    context = mlrun.MLClientCtx.from_dict(run | {"spec": {"output_path": storage}}, rundb=mlrun.get_run_db())
    tracking.log(context, registry, done, version)
    return version


def _files(version: str, skill: float) -> dict[str, bytes]:
    files = version_files(version, skill)
    written = msgspec.structs.replace(card(version), sha256=parse_spec(files[SPEC_FILE], "spec").sha256)
    return files | card_files(written) | {"report.html": b"<html></html>"}


def objects() -> dict[str, Any]:
    """What is in the storage of artifacts: MLRun's own store, in the memory of this process."""
    found: dict[str, Any] = mlrun.datastore.datastore.in_memory_store._items
    return found


def file_of(version: str) -> str:
    return f"models/churn/v{version}/training/0/churn/model.onnx"


class Server:
    """A model server, as far as its model goes: with what it said."""

    def __init__(self, registry: Registry) -> None:
        self.said: list[tuple[str, str]] = []
        # It has no project, since it looks for no artifact.
        server = Registry(Path(registry.place()).parent, registry.name, registry.features)
        self.watch = ModelWatch(server, None, lambda what, why: self.said.append((what, why)))
        self.watch.begin()

    @property
    def source(self) -> str:
        """Where the model that serves was loaded from."""
        assert self.watch.model is not None
        return self.watch.model.source


def test_promoted_version_is_served_by_its_uri(registry: Registry, server: ModelsStandIn) -> None:
    served = Server(registry)
    stored = server.artifacts["churn", "v1"]["metadata"]
    uri = f"store://models/{PROJECT}/churn#0@{stored['tree']}^{stored['uid']}"
    assert (served.watch.version, served.source) == ("1", uri)
    registry.promote("2")
    assert served.watch.look()
    assert served.watch.version == "2"
    assert served.source.startswith("store://models/")
    file, described, _ = mlrun.artifacts.get_model(served.source, ".onnx")
    assert Path(file).read_bytes() == registry.read("2", "model.onnx", 1 << 20)
    assert described.metadata.labels["version"] == "2"
    Path(file).unlink()
    assert registry.rollback() == "1"
    assert served.watch.look()
    assert (served.watch.version, served.source) == ("1", uri)


def test_uri_means_the_same_after_its_tag_has_moved(registry: Registry, server: ModelsStandIn) -> None:
    server.artifacts["churn", "v1"] = server.artifacts["churn", "v2"]
    assert Server(registry).watch.version == "1"


def test_each_version_keeps_its_files(registry: Registry) -> None:
    """MLRun's paths have a run's name in them, which is the same for all trainings."""
    assert objects()[file_of("1")] == registry.read("1", "model.onnx", 1 << 20)
    assert objects()[file_of("2")] == registry.read("2", "model.onnx", 1 << 20)
    assert objects()[file_of("1")] != objects()[file_of("2")]


def test_process_without_an_api_loads_it_from_the_registry(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(artifact.ADDRESS)
    served = Server(registry)
    assert served.source == f"{registry.place('1')}/model.onnx"
    registry.promote("2")
    alias = registry.alias()
    assert alias is not None and alias.current.artifact == ""


def damage(registry: Registry, server: ModelsStandIn, how: str) -> None:
    """Damage what MLRun has of version 2."""
    stored = server.artifacts["churn", "v2"]
    if how == "artifact deleted":
        server.removed.append(stored["metadata"]["uid"])
    elif how == "file deleted":
        del objects()[file_of("2")]
    elif how == "another file":
        objects()[file_of("2")] = objects()[file_of("1")]
    elif how == "another model":
        stored["spec"] = server.artifacts["churn", "v1"]["spec"]
    elif how == "no model":
        stored["kind"] = "dataset"


DAMAGES = {
    "artifact deleted": "the artifact or its file is gone",
    "file deleted": "the artifact or its file is gone",
    "another file": "sha256 is",
    "another model": "is churn 1, not churn 2",
    "no model": "is not a model",
}


@pytest.mark.parametrize(("how", "told"), DAMAGES.items())
def test_damaged_artifact_is_told_and_the_last_good_version_serves(
    registry: Registry, server: ModelsStandIn, how: str, told: str
) -> None:
    served = Server(registry)
    registry.promote("2")
    damage(registry, server, how)
    assert served.watch.look()
    assert (served.watch.version, told in served.watch.refused) == ("1", True)
    assert served.watch.refused.startswith("version 2 is refused: store://models/")
    assert served.said[-1][1], "with a remedy"
    assert not served.watch.look(), "and said once"
    # A server that starts now has the version before it.
    assert Server(registry).watch.version == "1"
    # And this is what the remedy says.
    registry.mlrun_project = ""
    registry.promote("2")
    assert served.watch.look()
    assert (served.watch.version, served.watch.refused) == ("2", "")


@pytest.mark.parametrize("how", ["artifact deleted", "another model"])
def test_promotion_notes_no_artifact_but_the_versions_own(registry: Registry, server: ModelsStandIn, how: str) -> None:
    damage(registry, server, how)
    registry.promote("2")
    alias = registry.alias()
    assert alias is not None and (alias.current.version, alias.current.artifact) == ("2", "")


def test_promotion_of_a_version_whose_file_is_gone_is_refused(registry: Registry, server: ModelsStandIn) -> None:
    damage(registry, server, "file deleted")
    with pytest.raises(ConfigurationError, match="is gone") as raised:
        registry.promote("2")
    assert "train" in raised.value.remedy
    assert registry.current() == "1"


def test_artifact_on_somebodys_disk_is_not_noted(registry: Registry, tmp_path: Path) -> None:
    """Other machines can't read it; the registry is where they can."""
    version = log(registry, 0.6, str(tmp_path / "artifacts"))
    registry.promote(version)
    alias = registry.alias()
    assert alias is not None and alias.current.artifact == ""


def test_while_the_api_is_away_the_registry_has_the_same_file(registry: Registry, server: ModelsStandIn) -> None:
    served = Server(registry)
    registry.promote("2")
    server.status = 503
    assert served.watch.look()
    assert (served.watch.version, served.watch.refused) == ("2", "")
    assert served.source == f"{registry.place('2')}/model.onnx"
    (said, remedy), (serving, _) = served.said[-2:]
    assert said.startswith("version 2 is taken from") and "not from MLRun: store://models/" in said
    assert "MLRUN_DBPATH" in remedy
    assert serving == "serving version 2 from now on"
    with pytest.raises(UnavailableError, match="can't be read now"):
        registry.promote("1")


def test_without_access_it_is_refused_with_what_to_ask_for(registry: Registry, server: ModelsStandIn) -> None:
    server.status = 401
    with pytest.raises(ModelstreamError, match="MLRun refuses") as raised:
        registry.promote("2")
    assert "V3IO_ACCESS_KEY" in raised.value.remedy


def test_promotions_of_an_earlier_checkout_are_read(registry: Registry) -> None:
    path = Path(registry.place(ALIAS))
    known = json.loads(path.read_bytes())
    del known["current"]["artifact"]
    path.write_text(json.dumps(known))
    assert Server(registry).source == f"{registry.place('1')}/model.onnx"
