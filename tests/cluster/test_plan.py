"""What would be deployed: triggers, login, the plan in the docs."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from modelstream.cluster import config_check, deploy, functions, kafka_login, plan
from modelstream.cluster.config import Generator
from modelstream.cluster.deploy import Deployment
from modelstream.cluster.file import load_cluster
from modelstream.cluster.options import WorkflowOptions
from modelstream.cluster.summary import summary
from modelstream.errors import ModelstreamError
from tests.cluster.deploying import (
    KINDS,
    ORDER,
    ROOT,
    SECRET,
    loaded,
)

pytestmark = pytest.mark.xdist_group("mlrun")


@pytest.mark.parametrize("kind", KINDS)
def test_triggers_acknowledge_explicitly_from_the_beginning(written: dict[str, Any], kind: str) -> None:
    deployment = loaded(written, kind)
    for name in ORDER:
        spec = deployment.runtimes[name].to_dict()["spec"]
        stream = deployment.project.params.wiring[name].reads
        trigger = spec["config"][f"spec.triggers.{stream}"]
        attributes = trigger["attributes"]
        assert trigger["explicitAckMode"] == "explicitOnly"
        assert attributes["workerAllocationMode"] == "static"
        size = deployment.cluster.size(name)
        assert (spec["min_replicas"], spec["max_replicas"], trigger["maxWorkers"]) == (
            size.replicas,
            size.replicas,
            size.workers,
        )
        if kind == "kafka":
            assert (trigger["kind"], attributes["initialOffset"]) == ("kafka-cluster", "earliest")
            assert attributes["topics"] == [f"churn.{stream}"]
            assert attributes["consumerGroup"] == f"churn.{name}"
        else:
            assert (trigger["kind"], attributes["seekTo"]) == ("v3ioStream", "earliest")
            assert (attributes["containerName"], attributes["streamPath"]) == (
                "projects",
                f"modelstream/streams/{stream}",
            )
            assert re.fullmatch(r"(?!_)[a-zA-Z0-9_]{1,256}", attributes["consumerGroup"])
            assert (trigger["url"], trigger["password"]) == ("http://v3io-webapi:8081", "$generate")


@pytest.mark.parametrize("kind", KINDS)
def test_plan_is_the_one_in_the_docs_and_holds_no_secret(written: dict[str, Any], kind: str) -> None:
    deployment = loaded(written, kind)
    printed = deployment.describe()
    assert SECRET not in printed
    assert SECRET not in json.dumps(deployment.mlrun_project.to_dict(), default=str)
    docs = (ROOT / "docs" / "cluster-plans.md").read_text()
    told = summary(deployment.project, deployment.cluster, WorkflowOptions())
    again = f"print it again: deploy --config clusters/{kind}.yaml --dry-run"
    assert f"```yaml\n{printed}```\n" in docs, again
    assert f"```\n{told}\n" in docs, again
    plan = yaml.safe_load(printed)
    steps = [key for step in plan["steps"] for key in step]
    assert steps[:6] == ["run prepare", *(f"deploy {name}" for name in ORDER), "run data-generator"]


def test_plan_without_a_model_says_so(written: dict[str, Any]) -> None:
    deployment = loaded(written, "kafka")
    assert "model" not in yaml.safe_load(deployment.describe())
    bare = msgspec.structs.replace(deployment.project.params, model="")
    deployment.project = msgspec.structs.replace(deployment.project, params=bare)
    said = yaml.safe_load(deployment.describe())["model"]
    assert said.startswith("none comes with the project: until one is promoted (--train)")


def test_login_to_kafka_is_a_file_of_a_secret(written: dict[str, Any], tmp_path: Path) -> None:
    line = "kafka: {secret: kafka-login, user: modelstream, password_file: password, tls: true, ca_file: ca.crt}"
    text = (ROOT / "clusters" / "kafka.yaml").read_text()
    assert f"# {line}" in text
    path = tmp_path / "kafka.yaml"
    path.write_text(text.replace(f"# {line}", line))
    deployment = loaded(written, "kafka")
    deployment.cluster = load_cluster(path, deployment.project)
    runtimes = functions.configure(deployment.mlrun_project, deployment.project, deployment.cluster)
    annotations = runtimes["event-handler"].to_dict()["spec"]["base_spec"]["metadata"]["annotations"]
    assert annotations["nuclio.io/kafka-sasl-password"] == "password"
    assert annotations["nuclio.io/kafka-sasl-handshake"] == "true"
    assert annotations["nuclio.io/kafka-secret-path"] == kafka_login.PATH
    for name in ("event-handler", "data-generator", "prepare", "trim"):
        assert (
            plan.environment(runtimes[name]).items()
            >= {
                "MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "MODELSTREAM_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
                "MODELSTREAM_KAFKA_SASL_USERNAME": "modelstream",
                "MODELSTREAM_KAFKA_SSL_CA_LOCATION": "/etc/modelstream/kafka/ca.crt",
                "MODELSTREAM_KAFKA_SASL_PASSWORD": "from the secret kafka-login, key password",
            }.items()
        )
    volumes = runtimes["event-handler"].to_dict()["spec"]["volumes"]
    assert {"kafka-login", "modelstream"} == {volume["name"] for volume in volumes}


def test_what_deploy_sets_is_refused_in_the_file(written: dict[str, Any]) -> None:
    deployment = loaded(written, "kafka")
    bare = msgspec.structs.replace(deployment.cluster, env={}, functions={})
    names = {name for each in deployment.runtimes for name in functions.environment(deployment.project, bare, each)}
    assert {name for name in names if name.startswith("MODELSTREAM_")} <= config_check.OURS


def test_generator_has_parameters_of_the_workflow(written: dict[str, Any]) -> None:
    import workflow

    asked = set(inspect.signature(workflow.pipeline).parameters) - set(WorkflowOptions().arguments())
    assert {field.name for field in msgspec.structs.fields(Generator)} == asked


def test_what_mlrun_refuses_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("an unheard-of mistake")

    monkeypatch.setattr(deploy, "configure", refuse)
    monkeypatch.setattr("mlrun.load_project", lambda *_, **__: None)
    with pytest.raises(ModelstreamError, match="loading the project: an unheard-of mistake"):
        Deployment(ROOT, ROOT / "clusters" / "kafka.yaml").load()
    told = capsys.readouterr()
    assert told.err == "loading 6 functions from their notebooks …\n"
    assert told.out == ""
