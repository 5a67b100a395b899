"""Errors of a deployment, each with what to do about it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from modelstream.cluster import api as mlrun_client
from modelstream.cluster import deploy, failures
from modelstream.cluster.compiler import COMPILER, SUBMIT, Compiler
from modelstream.cluster.options import WorkflowOptions
from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from tests.cluster.deploying import (
    ROOT,
    asked,
    loaded,
)
from tests.cluster.mlrun_api import StandIn

pytestmark = pytest.mark.xdist_group("mlrun")


def test_no_address_of_an_api_is_told(written: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="MLRUN_DBPATH is not set") as raised:
        mlrun_client.connect()
    assert "export MLRUN_DBPATH" in raised.value.remedy
    with pytest.raises(ConfigurationError, match="MLRUN_DBPATH is not set") as raised:
        deploy.undeploy(ROOT / "clusters" / "kafka.yaml", delete_data=False, folder=ROOT)
    assert "--dry-run" not in raised.value.remedy, "undeploy has none"


def test_api_that_is_away_is_told(
    written: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlrun

    monkeypatch.delenv("MLRUN_LOG_LEVEL")
    mlrun.utils.logger.set_logger_level("INFO")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        mlrun.mlconf.dbpath = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UnavailableError) as raised:
            mlrun_client.connect()
        address = mlrun.mlconf.dbpath
    said = [record.message for record in caplog.records if record.name.startswith("mlrun")]
    assert said == [], "nothing of MLRun's own before our words"
    assert f"the MLRun API at {address} (MLRUN_DBPATH)" in str(raised.value)
    assert "curl $MLRUN_DBPATH" in raised.value.remedy
    mlrun.mlconf.reload()


def test_missing_login_is_told(written: dict[str, Any], api: StandIn) -> None:
    api.status = 401
    with pytest.raises(ConfigurationError) as raised:
        mlrun_client.connect()
    assert "V3IO_ACCESS_KEY" in raised.value.remedy


@pytest.mark.parametrize(
    ("failing", "words", "remedy"),
    [
        ("model-server", "Back-off pulling image: ImagePullBackOff", "push the image"),
        ("event-handler", 'secret "kafka-login" not found', "make the Kubernetes secret"),
        ("prepare", "kafka://x:1/churn: can't list topics: no broker; see that it runs", "pods can reach the address"),
    ],
)
def test_failure_on_the_cluster_says_what_to_do(
    written: dict[str, Any], api: StandIn, failing: str, words: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    api.failing[failing] = words
    mlrun_client.connect()
    deployment = loaded(written, "kafka")
    with pytest.raises(Exception) as raised:
        deployment.run("local", WorkflowOptions())
    told = failures.explained(raised.value, "deploying")
    assert isinstance(told, ModelstreamError)
    assert remedy in told.remedy
    assert api.steps[-1][1] == failing


def test_train_needs_a_function_that_trains(tmp_path: Path) -> None:
    lines = (ROOT / "project.yaml").read_text().splitlines(keepends=True)
    (tmp_path / "project.yaml").write_text("".join(line for line in lines if "training" not in line))
    with pytest.raises(ConfigurationError, match="no function that trains a model"):
        asked("kafka", dry_run=True, output=tmp_path, folder=tmp_path, options=WorkflowOptions(train=True))


def test_missing_compiler_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPILER, str(tmp_path / "python"))
    with pytest.raises(ConfigurationError) as raised:
        Compiler(ROOT, SUBMIT)
    assert "make kfp" in raised.value.remedy
