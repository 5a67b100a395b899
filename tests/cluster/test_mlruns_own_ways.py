"""MLRun's own ways to run the workflow: they deploy what `deploy` has configured, or refuse and say what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelstream.cluster import api as mlrun_client
from modelstream.cluster import conversion
from modelstream.cluster.compiler import COMPILER
from modelstream.cluster.options import WorkflowOptions
from modelstream.project import load_project
from tests.cluster import dashboard
from tests.cluster.deploying import ORDER, ROOT, loaded
from tests.cluster.mlrun_api import StandIn
from tests.cluster.test_what_arrives import run_steps

pytestmark = pytest.mark.xdist_group("mlrun")

USE_DEPLOY = "python pipeline.py deploy --config FILE"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what MLRun loads of this repository."""
    folder = tmp_path / "repository"
    for name in ("functions", "use_cases", "assets"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("project.yaml", "project_setup.py", "workflow.py"):
        shutil.copy(ROOT / name, folder)
    return folder


def loaded_by_mlrun(*arguments: str, **options: Any) -> Any:
    import mlrun

    with conversion.in_this_process():
        return mlrun.load_project(*arguments, **options)


def test_project_of_the_folder_refuses_to_run(repository: Path, api: StandIn) -> None:
    project = loaded_by_mlrun(str(repository), save=False)
    run = project.run("in-order", engine="local", dirty=True)
    assert run.state == "Failed"
    assert "not configured for a cluster, and nothing was deployed" in str(run.exc)
    assert USE_DEPLOY in str(run.exc)
    assert api.steps == []


def test_pipeline_refuses_before_it_is_compiled(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubeflow's engine runs this function to compile the workflow, and an error of it ends `project.run`."""
    import mlrun

    import workflow

    project = mlrun.projects.MlrunProject.from_dict(written)
    monkeypatch.setattr(mlrun, "get_current_project", lambda: project)
    with pytest.raises(RuntimeError, match="not configured for a cluster") as raised:
        workflow.chain_to_deploy()
    assert USE_DEPLOY in str(raised.value)


def test_stored_project_runs_as_it_was_deployed(
    written: dict[str, Any], api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlrun_client.connect()
    loaded(written, "v3io").run("local", WorkflowOptions())
    before = {name: dashboard.shown(dashboard.received(function)) for name, function in api.functions.items()}
    api.steps.clear()
    api.functions.clear()
    for name in ("project_setup.py", "workflow.py"):
        shutil.copy(ROOT / name, tmp_path)
    project = loaded_by_mlrun(str(tmp_path), "db://modelstream", save=False)
    run = project.run("in-order", engine="local", dirty=True)
    assert run.exc is None
    assert api.steps == [("run", "prepare"), *(("deploy", name) for name in ORDER)]
    assert {name: dashboard.shown(dashboard.received(function)) for name, function in api.functions.items()} == before


RUN = """\
import sys, mlrun
project = mlrun.load_project(sys.argv[1], "db://modelstream", save=False)
assert project.run("main", dirty=True).state == "Running"
"""


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("way", ["project.run", "mlrun project"])
def test_stored_project_is_submitted_to_kubeflow_as_it_was_deployed(
    written: dict[str, Any], api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """On a machine that has MLRun and Kubeflow's compiler, and not this library."""
    mlrun_client.connect()
    loaded(written, "v3io").run("local", WorkflowOptions())
    before = {name: dashboard.shown(dashboard.received(function)) for name, function in api.functions.items()}
    api.steps.clear()
    api.functions.clear()
    for name in ("project_setup.py", "workflow.py"):
        shutil.copy(ROOT / name, tmp_path)
    command = [
        "-m",
        "mlrun",
        "project",
        str(tmp_path),
        "-n",
        "modelstream",
        "-u",
        "db://modelstream",
        "-r",
        "main",
        "-d",
    ]
    done = elsewhere(["-c", RUN, str(tmp_path)] if way == "project.run" else command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert api.steps == [], "Kubeflow runs them"
    run_steps(yaml.safe_load(api.pipeline), monkeypatch)
    assert api.steps == [("deploy", name) for name in ORDER]
    assert {name: dashboard.shown(dashboard.received(function)) for name, function in api.functions.items()} == before


@pytest.mark.usefixtures("compiler")
def test_command_on_the_folder_refuses_where_the_library_is_not_installed(repository: Path, api: StandIn) -> None:
    done = elsewhere(["-m", "mlrun", "project", ".", "-r", "main", "-d", "--no-save"], repository)
    assert done.returncode == 1
    assert "make env" in done.stderr
    assert USE_DEPLOY in done.stderr
    assert (api.steps, api.pipeline) == ([], "")


def elsewhere(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the Python of the environment with Kubeflow's compiler, which has not this library."""
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "V3IO_ACCESS_KEY")}
    command = [os.environ[COMPILER], *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_stored_project_that_has_lost_its_volumes_refuses(
    written: dict[str, Any], api: StandIn, tmp_path: Path
) -> None:
    mlrun_client.connect()
    loaded(written, "kafka").run("local", WorkflowOptions())
    api.steps.clear()
    for function in api.project["spec"]["functions"]:  # what MLRun leaves out when it saves a project itself
        for field in ("volumes", "volume_mounts", "resources"):
            function["spec"]["spec"].pop(field, None)
    shutil.copy(ROOT / "workflow.py", tmp_path)
    project = loaded_by_mlrun(str(tmp_path), "db://modelstream", save=False)
    run = project.run("in-order", engine="local", dirty=True)
    assert "is not as it was configured for the cluster" in str(run.exc)
    assert "volumes, volume_mounts" in str(run.exc)
    assert USE_DEPLOY in str(run.exc)
    assert api.steps == []


def test_project_file_that_mlrun_saves_says_the_same(repository: Path, api: StandIn) -> None:
    loaded_by_mlrun(str(repository), save=True)
    saved, ours = load_project(repository / "project.yaml"), load_project(ROOT / "project.yaml")
    assert (repository / "project.yaml").read_text() != (ROOT / "project.yaml").read_text(), "MLRun has written it"
    assert saved.params.chain == ours.chain.as_dict()
    for field in ours.params.__struct_fields__:
        if field != "chain":
            assert getattr(saved.params, field) == getattr(ours.params, field)
    assert (saved.name, saved.functions, saved.chain) == (ours.name, ours.functions, ours.chain)
