"""What Nuclio's dashboard receives, by each engine, equals what the plan shows, field by field."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelstream.cluster import api as mlrun_client
from modelstream.cluster.compiler import COMPILER, SUBMIT, Compiler
from modelstream.cluster.deploy import Deployment
from modelstream.cluster.options import WorkflowOptions
from modelstream.cluster.whole import CONFIGURED, DEPLOYMENT, whole
from tests.cluster import dashboard
from tests.cluster.deploying import ORDER, ROOT, SECRET, loaded
from tests.cluster.mlrun_api import StandIn

pytestmark = pytest.mark.xdist_group("mlrun")

LOGIN = "kafka: {secret: kafka-login, user: modelstream, password_file: password, tls: true, ca_file: ca.crt}"
ENGINES = ("local", "kfp", "remote")


@pytest.fixture
def kafka_with_a_login(written: dict[str, Any], tmp_path: Path) -> Deployment:
    return with_a_login(written, tmp_path)


def with_a_login(written: dict[str, Any], tmp_path: Path) -> Deployment:
    file = tmp_path / "kafka.yaml"
    text = (ROOT / "clusters" / "kafka.yaml").read_text()
    file.write_text(text.replace(f"# {LOGIN}", LOGIN).replace("  # MODELSTREAM_REDIS", "  MODELSTREAM_REDIS"))
    return loaded(written, file)


def deploy_by(engine: str, deployment: Deployment, api: StandIn, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Deploy, and do what the cluster would do then: compile the workflow if it is asked to, and run its steps."""
    mlrun_client.connect()
    if engine == "local":
        deployment.run("local", WorkflowOptions())
        return
    if engine == "kfp":
        with Compiler(ROOT, SUBMIT) as process:
            deployment.run("kfp", WorkflowOptions(), process)
    else:
        deployment.run("remote", WorkflowOptions())
        compile_in_the_cluster(api, folder)
    run_steps(yaml.safe_load(api.pipeline), patch)


def compile_in_the_cluster(api: StandIn, folder: Path) -> None:
    """Do what the runner's pod does, in an environment with Kubeflow and without this library."""
    source = folder / "source"
    shutil.copytree(ROOT / "functions", source / "functions")
    for name in ("project.yaml", "project_setup.py", "workflow.py"):
        shutil.copy(ROOT / name, source)
    pod = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "V3IO_ACCESS_KEY")}
    pod |= {"MLRUN_DBPATH": api.url, "MLRUN_ACTIVE_PROJECT": "modelstream", "MLRUN_KFP_URL": "http://nowhere"}
    done = subprocess.run(
        [os.environ[COMPILER], str(Path(__file__).with_name("runner.py")), str(source)],
        input=json.dumps(api.workflow),
        env=pod,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def run_steps(workflow: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    """Run the steps that deploy a function, with MLRun's own command."""
    import mlrun.__main__ as command_line
    from click.testing import CliRunner

    # It writes the step's results into files with fixed names.
    patch.setattr(command_line, "open", lambda *_: io.StringIO(), raising=False)
    templates = {each["name"]: each for each in workflow["spec"]["templates"]}
    for name in ORDER:
        command = templates[f"deploy-{name}"]["container"]["command"]
        assert command[:3] == ["python", "-m", "mlrun"]
        ran = CliRunner().invoke(command_line.main, command[3:], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["kafka with a login", "v3io"])
def test_dashboard_receives_what_the_plan_shows(
    engine: str, kind: str, written: dict[str, Any], api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = with_a_login(written, tmp_path) if "login" in kind else loaded(written, kind)
    described = yaml.safe_load(deployment.describe())
    deploy_by(engine, deployment, api, tmp_path, monkeypatch)
    assert list(api.functions) == ORDER
    for name in ORDER:
        arrived = dashboard.shown(dashboard.received(api.functions[name]))
        planned = dashboard.planned(described, name)
        for field, value in planned.items():
            assert arrived[field] == value, f"{name}: {field}"
        assert arrived.keys() == planned.keys()
    assert SECRET not in json.dumps([api.functions, api.project, api.pipeline])


def test_what_arrives_has_volumes_login_and_v3io_by_name(kafka_with_a_login: Deployment, api: StandIn) -> None:
    """The comparison could hold for two empty sides: these are there."""
    mlrun_client.connect()
    kafka_with_a_login.run("local", WorkflowOptions())
    config = dashboard.received(api.functions["stream-to-features"])
    shown = dashboard.shown(config)
    assert shown["volumes"] == {
        "/mnt/modelstream": "the claim modelstream",
        "/etc/modelstream/kafka": "the secret kafka-login",
    }
    assert shown["resources"] == {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "3Gi"}}
    assert shown["annotations"]["nuclio.io/kafka-sasl-user"] == "modelstream"
    assert shown["env"]["MODELSTREAM_REDIS_PASSWORD"] == "from the secret redis-login, key password"
    assert shown["runtime"] == "python:3.11", "also where the server's default is another"


def test_stored_project_has_its_functions_whole(written: dict[str, Any], api: StandIn) -> None:
    mlrun_client.connect()
    deployment = loaded(written, "v3io")
    deployment.run("remote", WorkflowOptions())
    assert api.workflow["spec"]["image"] == "mlrun/mlrun-kfp", "the image with Kubeflow, and not the project's"
    stored = {each["name"]: each["spec"]["spec"] for each in api.project["spec"]["functions"]}
    assert stored.keys() == deployment.runtimes.keys()
    for name, runtime in deployment.runtimes.items():
        specification = json.loads(json.dumps(runtime.to_dict()["spec"], default=str))
        for field in CONFIGURED:
            assert stored[name].get(field) == specification.get(field), f"{name}: {field}"
    environment = {each["name"]: each for each in stored["event-handler"]["env"]}
    assert environment["V3IO_API"]["value"] == "http://v3io-webapi:8081"
    assert environment["V3IO_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "modelstream-v3io"


def test_whole_project_tells_what_is_configured(written: dict[str, Any]) -> None:
    deployment = loaded(written, "kafka")
    told = whole(deployment.mlrun_project, deployment.runtimes)["spec"]["params"][DEPLOYMENT]
    assert told["event-handler"]["nuclio_runtime"] == "python:3.11"
    assert told["prepare"]["volume_mounts"] == [{"mountPath": "/mnt/modelstream", "name": "modelstream"}]


# Only the triggers that a function needs.


@pytest.mark.parametrize("workers", [1, 3, 0])
def test_only_the_model_server_answers_by_http(written: dict[str, Any], tmp_path: Path, workers: int) -> None:
    file = tmp_path / "kafka.yaml"
    text = (ROOT / "clusters" / "kafka.yaml").read_text()
    file.write_text(text.replace("model-server: {", f"model-server: {{http_workers: {workers}, "))
    runtimes = loaded(written, file).runtimes
    for name in ORDER:
        spec = dashboard.received(runtimes[name].to_dict())["spec"]
        assert spec["disableDefaultHTTPTrigger"] is True
        found = {trigger["kind"]: trigger["maxWorkers"] for trigger in spec["triggers"].values()}
        http = {"http": workers} if name == "model-server" and workers else {}
        assert found == {"kafka-cluster": 2} | http
