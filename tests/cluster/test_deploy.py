"""`deploy` and `undeploy`, up to the cluster's door: MLRun's own loader and client, a stand-in for its API."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelstream import notebooks
from modelstream.cluster import api as mlrun_client
from modelstream.cluster import deploy, functions, plan
from modelstream.cluster.deploy import Interrupted
from modelstream.cluster.options import WorkflowOptions
from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.stages import model_server
from tests.cluster.deploying import (
    KINDS,
    ORDER,
    ROOT,
    SECRET,
    asked,
    load_what_is_written,
    loaded,
    without_placeholders,
)
from tests.cluster.mlrun_api import StandIn

pytestmark = pytest.mark.xdist_group("mlrun")


@pytest.mark.parametrize("kind", KINDS)
def test_functions_are_deployed_from_the_last_to_the_first(
    written: dict[str, Any], api: StandIn, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    deployment = loaded(written, kind)
    mlrun_client.connect()
    assert deployment.run("local", WorkflowOptions(generate=True)).startswith("the workflow is done")
    assert set(api.schedules) == ({"trim"} if kind == "kafka" else set())
    assert api.steps == [("run", "prepare"), *(("deploy", name) for name in ORDER), ("run", "data-generator")]
    for name, body in api.functions.items():
        spec = body["spec"]
        ours = notebooks.code(deployment.project.notebook(name))
        if deployment.project.functions[name].kind == "serving":
            ours += model_server.entry_points()
        assert base64.b64decode(spec["build"]["functionSourceCode"]).decode() == ours
        assert spec["image"] == deployment.cluster.image
        environment = {each["name"]: each.get("value") for each in spec["env"]}
        assert environment["MODELSTREAM_STREAMS"] == deployment.cluster.streams
    assert SECRET not in json.dumps([api.project, api.functions, api.runs])
    assert SECRET not in "".join(capfd.readouterr())


def test_nothing_is_generated_when_it_is_not_asked_for(written: dict[str, Any], api: StandIn) -> None:
    mlrun_client.connect()
    loaded(written, "kafka").run("local", WorkflowOptions(model_version="7"))
    assert api.steps == [("run", "prepare"), ("run", "promote"), *(("deploy", name) for name in ORDER)]
    assert next(run for run in api.runs.values())["metadata"]["name"] == "prepare"


def test_remote_engine_gets_the_source_and_whole_functions(written: dict[str, Any], api: StandIn) -> None:
    mlrun_client.connect()
    deployment = loaded(written, "kafka")
    assert deployment.run("remote", WorkflowOptions(train=True)).startswith("MLRun runs it: kfp-1")
    assert api.workflow["source"] == deployment.cluster.source
    assert api.workflow["spec"]["args"]["train"] == "yes"
    stored = {each["name"]: each["spec"]["spec"] for each in api.project["spec"]["functions"]}
    for name in ORDER:
        assert "spec.triggers." + deployment.project.params.wiring[name].reads in stored[name]["config"]
        assert stored[name]["build"]["functionSourceCode"]


def test_functions_are_taken_down_from_the_first_to_the_last(written: dict[str, Any], api: StandIn) -> None:
    api.stored = {name: {} for name in ORDER}
    api.schedules = {"trim": {}, "drift": {}}
    told = deploy.undeploy(ROOT / "clusters" / "kafka.yaml", delete_data=False, folder=ROOT)
    assert api.steps == [
        ("unschedule", "trim"),
        ("unschedule", "drift"),
        *(("delete", name) for name in reversed(ORDER)),
    ]
    assert told[-1].startswith("kept: streams at kafka://")
    assert api.stored == {}


@pytest.mark.parametrize("delete_data", [False, True])
def test_function_that_mlrun_could_not_delete_is_told_and_data_stay(
    written: dict[str, Any], api: StandIn, delete_data: bool
) -> None:
    api.stored = {name: {} for name in ORDER}
    api.failing["stream-to-features"] = "timed out"
    with pytest.raises(ModelstreamError, match=r"event-handler is deleted; .*could not delete stream-to-features"):
        deploy.undeploy(ROOT / "clusters" / "kafka.yaml", delete_data=delete_data, folder=ROOT)
    assert [name for what, name in api.steps if what == "delete"] == ["event-handler", "stream-to-features"]
    assert api.runs == {}


def test_kafka_is_trimmed_every_hour_as_the_file_says(written: dict[str, Any], api: StandIn) -> None:
    mlrun_client.connect()
    deployment = loaded(written, "kafka")
    deployment.cluster = msgspec.structs.replace(deployment.cluster, retention_hours=5)
    assert deployment.run("remote", WorkflowOptions()).endswith("older than 5 h are deleted")
    asked = api.schedules["trim"]
    assert asked["schedule"] == "17 * * * *"
    assert asked["task"]["spec"]["parameters"] == {"hours": 5}
    assert asked["task"]["spec"]["handler"] == "modelstream.cluster.jobs.trim"


def test_monitoring_is_switched_on_and_off_in_the_clusters_file(written: dict[str, Any], api: StandIn) -> None:
    mlrun_client.connect()
    deployment = loaded(written, "v3io")
    assert "MODELSTREAM_MONITORING" not in plan.environment(deployment.runtimes["model-server"])
    deployment.cluster = msgspec.structs.replace(deployment.cluster, monitoring=True)
    deployment.runtimes = functions.configure(deployment.mlrun_project, deployment.project, deployment.cluster)
    told = {name: plan.environment(each).get("MODELSTREAM_MONITORING") for name, each in deployment.runtimes.items()}
    assert {name for name, value in told.items() if value} == {"model-server"}
    assert {"schedule drift": {"when": "47 * * * *"}} in plan.describe(
        deployment.runtimes, deployment.project, deployment.cluster
    )["steps"]
    deployment.run("remote", WorkflowOptions())
    assert api.schedules["drift"]["task"]["spec"]["handler"] == "modelstream.cluster.jobs.drift"
    deployment.cluster = msgspec.structs.replace(deployment.cluster, monitoring=False)
    deployment.run("remote", WorkflowOptions())
    assert "drift" not in api.schedules


def test_job_that_mlrun_did_not_schedule_is_told(written: dict[str, Any], api: StandIn) -> None:
    mlrun_client.connect()
    api.failing["trim"] = "no cron today"
    with pytest.raises(RuntimeError, match="has not scheduled the job trim"):
        loaded(written, "kafka").run("remote", WorkflowOptions())


def test_placeholder_is_refused_with_its_line_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing was deployed:\n.*kafka.yaml, line 10, image") as raised:
        asked("kafka", output=tmp_path)
    assert "change this line" in raised.value.remedy
    with pytest.raises(ConfigurationError, match=r"line 12, source: git://github.com/ORG/REPO.git#main"):
        asked("kafka", engine="remote", output=tmp_path)


@pytest.mark.usefixtures("heeded")
def test_interrupted_deployment_says_what_is_done(
    written: dict[str, Any], api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_what_is_written(written, monkeypatch)
    api.interrupting = "stream-to-features"
    with pytest.raises(Interrupted) as raised:
        asked(without_placeholders(tmp_path), output=tmp_path)
    assert str(raised.value) == (
        "the project is stored in MLRun; prepare has run; inference-logger is deployed; model-server is deployed"
    )
    assert "run the same command again" in raised.value.remedy


@pytest.mark.usefixtures("heeded")
def test_interrupted_undeployment_says_what_is_done(written: dict[str, Any], api: StandIn) -> None:
    api.stored = {name: {} for name in ORDER}
    api.interrupting = "stream-to-features"
    with pytest.raises(Interrupted, match=r"^event-handler is deleted$"):
        deploy.undeploy(ROOT / "clusters" / "kafka.yaml", delete_data=False, folder=ROOT)
