"""The workflow, compiled by Kubeflow's own compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelstream.cluster import api as mlrun_client
from modelstream.cluster.compiler import SUBMIT, Compiler
from modelstream.cluster.options import WorkflowOptions
from tests.cluster.deploying import (
    KINDS,
    ORDER,
    ROOT,
    SECRET,
    loaded,
)
from tests.cluster.mlrun_api import StandIn

pytestmark = pytest.mark.xdist_group("mlrun")


def tasks_of(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tasks of all DAGs by name."""
    found: dict[str, dict[str, Any]] = {}
    for template in workflow["spec"]["templates"]:
        for task in template.get("dag", {}).get("tasks", []):
            found[task["name"]] = task
    return found


@pytest.mark.usefixtures("compiler")
def test_workflow_deploys_in_order_then_generates_then_trains(written: dict[str, Any], tmp_path: Path) -> None:
    deployment = loaded(written, "kafka")
    with Compiler(ROOT, str(tmp_path / "workflow.yaml")) as process:
        deployment.compile(process)
    workflow = yaml.safe_load((tmp_path / "workflow.yaml").read_text())
    tasks = tasks_of(workflow)
    previous = "prepare"
    for name in ORDER:
        assert previous in tasks[f"deploy-{name}"]["dependencies"]
        previous = f"deploy-{name}"
    conditions = {name: task for name, task in tasks.items() if name.startswith("condition-")}
    generate = next(name for name in conditions if "generate" in name)
    train = next(name for name in conditions if "train" in name)
    assert conditions[generate]["dependencies"] == [previous]
    assert conditions[generate]["when"] == '"{{inputs.parameters.generate}}" == "yes"'
    assert sorted(conditions[train]["dependencies"]) == sorted([generate, previous])
    assert conditions[train]["when"] == '"{{inputs.parameters.train}}" == "yes"'
    assert tasks["training"]["dependencies"] == ["drained"]
    assert tasks["promote"]["dependencies"] == ["training"]
    parameters = {each["name"]: each.get("value") for each in workflow["spec"]["arguments"]["parameters"]}
    assert parameters == {
        "generate": "no",
        "train": "no",
        "model_version": "",
        "users": "2000",
        "events_per_user": "1000",
        "seed": "1",
    }
    for template in workflow["spec"]["templates"]:
        if "container" in template:
            assert template["metadata"]["labels"]["pipelines.kubeflow.org/enable_caching"] == "false"
            assert template["metadata"]["annotations"]["pipelines.kubeflow.org/max_cache_staleness"] == "P0D"
    assert workflow["metadata"]["generateName"] == "modelstream-main-"


def environment_of(template: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in template["container"].get("env", [])}


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kind", KINDS)
def test_kubeflow_gets_the_workflow_and_its_arguments_and_no_key(
    kind: str, written: dict[str, Any], api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V3IO_ACCESS_KEY", SECRET)
    mlrun_client.connect()
    deployment = loaded(written, kind)
    with Compiler(ROOT, SUBMIT) as process:
        told = deployment.run("kfp", WorkflowOptions(), process)
    assert told.startswith("Kubeflow runs the workflow: kfp-2")
    assert SECRET not in str(api.pipeline)
    workflow = yaml.safe_load(api.pipeline)
    steps = [environment_of(each) for each in workflow["spec"]["templates"] if "container" in each]
    reference = {"secretKeyRef": {"name": "modelstream-v3io", "key": "accessKey"}}
    assert len(steps) > len(ORDER)
    assert all(each.get("MLRUN_AUTH_SESSION") == (reference if kind == "v3io" else None) for each in steps)
    tasks = tasks_of(workflow)
    assert {f"deploy-{name}" for name in ORDER} < set(tasks)
    assert set(ORDER) < set(api.stored), "the steps deploy what is stored"
