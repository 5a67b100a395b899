"""What goes on when a store is away for a while, and what a deployment leaves behind whatever ran in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelstream.cluster import api as mlrun_client
from modelstream.cluster.compiler import Compiler
from modelstream.cluster.options import WorkflowOptions
from tests.cluster.deploying import ORDER, ROOT, loaded
from tests.cluster.mlrun_api import StandIn

pytestmark = pytest.mark.xdist_group("mlrun")


def test_trimming_ends_when_the_streams_are_no_longer_in_kafka(written: dict[str, Any], api: StandIn) -> None:
    mlrun_client.connect()
    loaded(written, "kafka").run("local", WorkflowOptions())
    assert set(api.schedules) == {"trim"}
    loaded(written, "v3io").run("local", WorkflowOptions())
    assert api.schedules == {}


def test_same_functions_are_registered_whether_or_not_they_run(written: dict[str, Any], api: StandIn) -> None:
    mlrun_client.connect()
    deployment = loaded(written, "kafka")
    deployment.run("local", WorkflowOptions())
    without = set(api.stored)
    assert without == set(deployment.runtimes)
    assert api.stored["data-generator"]["spec"]["volumes"]
    deployment.run("local", WorkflowOptions(generate=True, train=True))
    assert set(api.stored) == without


def test_job_that_fails_for_a_while_is_run_again(
    written: dict[str, Any], api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    mlrun_client.connect()
    api.failing["prepare"] = "no broker"
    api.failures_left["prepare"] = 2
    loaded(written, "kafka").run("local", WorkflowOptions())
    assert api.steps == [*[("run", "prepare")] * 3, *(("deploy", name) for name in ORDER)]


@pytest.mark.usefixtures("compiler")
def test_kubeflow_runs_a_job_again_that_fails(written: dict[str, Any], tmp_path: Path) -> None:
    with Compiler(ROOT, str(tmp_path / "workflow.yaml")) as process:
        loaded(written, "kafka").compile(process)
    workflow = yaml.safe_load((tmp_path / "workflow.yaml").read_text())
    steps = {each["name"]: each.get("retryStrategy") for each in workflow["spec"]["templates"] if "container" in each}
    retries = {"limit": 2, "retryPolicy": "Always", "backoff": {"duration": "20s", "factor": 2}}
    for name, strategy in steps.items():
        assert strategy == (None if name.startswith("deploy-") else retries), name
    assert {"prepare", "choose-model", "data-generator", "drained", "training", "promote"} < set(steps)
