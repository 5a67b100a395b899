"""`deploy`, up to the cluster's door: MLRun's own loader and client, Kubeflow's own compiler, a stand-in for the API.

All that imports MLRun (6 s) and loads the notebooks (a process each) is here, and does so once.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from modelstream import notebooks
from modelstream.cluster import api as mlrun_client
from modelstream.cluster import config_check, conversion, deploy, failures, functions, kafka_login, plan
from modelstream.cluster.compiler import COMPILER, SUBMIT, Compiler
from modelstream.cluster.config import Generator
from modelstream.cluster.deploy import Deployment, Interrupted
from modelstream.cluster.file import load_cluster
from modelstream.cluster.options import WorkflowOptions
from modelstream.cluster.summary import summary
from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.stages import model_server
from tests.cluster.mlrun_api import StandIn

pytestmark = pytest.mark.xdist_group("mlrun")

ROOT = Path(__file__).parents[2]
KINDS = ("kafka", "v3io")
ORDER = ["inference-logger", "model-server", "stream-to-features", "event-handler"]
SECRET = "3f0c6f0e-hunter2"
COMPILERS = (os.environ.get(COMPILER, ""), str(ROOT / ".venv-kfp" / "bin" / "python"))


@pytest.fixture(scope="module")
def written() -> Iterator[dict[str, Any]]:
    """The project as MLRun loads it, written down with its functions whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRUN_HTTPDB__NOP_DB__VERBOSE", "false")
        patch.setenv("MLRUN_LOG_LEVEL", "ERROR")
        patch.setenv("MLRUN_HTTPDB__LOGS__NUCLIO__PULL_DEPLOY_STATUS_DEFAULT_INTERVAL", "0")
        patch.setenv("V3IO_ACCESS_KEY", SECRET)
        patch.delenv("MLRUN_DBPATH", raising=False)
        import mlrun

        before = (ROOT / "project.yaml").read_bytes()
        mlrun.mlconf.reload()
        with conversion.in_this_process():
            project = mlrun.load_project(str(ROOT), save=False)
        for name in project.get_function_names():
            project.set_function(project.get_function(name), name=name)
        yield project.to_dict()
        assert (ROOT / "project.yaml").read_bytes() == before, "the file is never written"


def loaded(written: dict[str, Any], kind: str) -> Deployment:
    import mlrun

    deployment = Deployment(ROOT, ROOT / "clusters" / f"{kind}.yaml")
    deployment.mlrun_project = mlrun.projects.MlrunProject.from_dict(json.loads(json.dumps(written, default=str)))
    deployment.mlrun_project.spec.context = str(ROOT)
    deployment.runtimes = functions.configure(deployment.mlrun_project, deployment.project, deployment.cluster)
    return deployment


def load_what_is_written(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the commands MLRun's loader."""

    def load(self: Deployment) -> None:
        self.mlrun_project = loaded(written, "kafka").mlrun_project
        self.runtimes = functions.configure(self.mlrun_project, self.project, self.cluster)

    monkeypatch.setattr(Deployment, "load", load)


@pytest.fixture
def api(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    import mlrun

    with StandIn() as server:
        monkeypatch.setenv("MLRUN_DBPATH", server.url)
        mlrun.mlconf.reload()
        yield server
    assert server.unknown == []
    monkeypatch.undo()
    monkeypatch.setenv("MLRUN_HTTPDB__NOP_DB__VERBOSE", "false")
    mlrun.mlconf.reload()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    found = next((path for path in COMPILERS if path and Path(path).exists()), None)
    if found is None:
        assert not (os.environ.get("CI") or os.environ.get("MODELSTREAM_CI")), "CI needs `make kfp`"
        pytest.skip("no environment with Kubeflow's compiler: run `make kfp`")
    monkeypatch.setenv(COMPILER, found)


# What would be deployed.


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


# Deploying.


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
    told = deploy.undeploy(ROOT / "clusters" / "kafka.yaml", delete_data=False, folder=ROOT)
    assert api.steps == [("unschedule", "trim"), *(("delete", name) for name in reversed(ORDER))]
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


# Errors.


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
    written: dict[str, Any], api: StandIn, failing: str, words: str, remedy: str
) -> None:
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


NOTHING_MORE = WorkflowOptions()


def asked(
    kind: str | Path, *, output: Path, options: WorkflowOptions = NOTHING_MORE, folder: Path = ROOT, **how: Any
) -> list[str]:
    """Do what the command does; return what it prints at its end."""
    file = ROOT / "clusters" / f"{kind}.yaml" if isinstance(kind, str) else kind
    how = {"engine": "local", "dry_run": False, "diff": False, **how}
    return deploy.deploy(file, options, output=output, folder=folder, **how)


def without_placeholders(tmp_path: Path, **changes: str) -> Path:
    """Return a cluster's file with an image that somebody has, and other texts changed."""
    text = (ROOT / "clusters" / "kafka.yaml").read_text().replace("registry.example.com", "registry.local")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file


def test_missing_compiler_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPILER, str(tmp_path / "python"))
    with pytest.raises(ConfigurationError) as raised:
        Compiler(ROOT, SUBMIT)
    assert "make kfp" in raised.value.remedy


# Looking first.


def test_dry_run_without_a_compiler_writes_the_plan_and_says_what_to_replace(
    written: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COMPILER, str(tmp_path / "python"))
    load_what_is_written(written, monkeypatch)
    lines = asked("kafka", dry_run=True, output=tmp_path / "build")
    assert (tmp_path / "build" / "plan.yaml").read_text() == loaded(written, "kafka").describe()
    assert "was not compiled" in lines[-1] and "make kfp" in lines[-1]
    told = capsys.readouterr().out
    assert told.startswith("The project modelstream")
    assert "kafka.yaml, line 10, image: registry.example.com/modelstream:0.1.0 → the image that you" in told
    assert "source" not in told, "only --engine remote needs it"


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file can't be written") as raised:
        asked("kafka", dry_run=True, output=tmp_path / "file")
    assert "--output" in raised.value.remedy


def test_difference_to_what_is_deployed_is_told_field_by_field(
    written: dict[str, Any], api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlrun_client.connect()
    loaded(written, "kafka").run("local", WorkflowOptions())
    steps = [*api.steps]
    api.stored["old"] = {"metadata": {"name": "old"}, "spec": {}}
    load_what_is_written(written, monkeypatch)
    unchanged = asked("kafka", diff=True, output=tmp_path)
    assert unchanged[0] == f"no difference: {', '.join([*reversed(ORDER), 'prepare', 'trim'])}"
    assert unchanged[1].startswith("jobs that have not run yet: data-generator, training, drained")
    assert unchanged[-1].endswith("`deploy` leaves them as they are: old")

    file = without_placeholders(tmp_path, **{"memory_limit: 3Gi": "memory_limit: 4Gi", "replicas: 1,": "replicas: 2,"})
    file.write_text(file.read_text().replace("env: {}", "env: {MINE: a}"))
    api.stored["event-handler"]["spec"]["build"]["functionSourceCode"] = base64.b64encode(b"x = 1").decode()
    del api.stored["model-server"]
    told = "\n".join(asked(file, diff=True, output=tmp_path))
    image = "image: registry.example.com/modelstream:0.1.0 → registry.local/modelstream:0.1.0"
    assert f"stream-to-features:\n  {image}\n  variable MINE: new, a\n  memory, limit: 3Gi → 4Gi\n" in told
    assert "  replicas: 1 → 2\n" in told
    assert "model-server: not there yet" in told
    assert re.search(r"  lines of code: \d+ added, 1 removed\n    -x = 1\n", told)
    assert api.steps == steps, "nothing is sent"


# Mistakes that would be found only on the cluster, and interruptions.


def test_placeholder_is_refused_with_its_line_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing was deployed:\n.*kafka.yaml, line 10, image") as raised:
        asked("kafka", output=tmp_path)
    assert "change this line" in raised.value.remedy
    with pytest.raises(ConfigurationError, match=r"line 12, source: git://github.com/ORG/REPO.git#main"):
        asked("kafka", engine="remote", output=tmp_path)


@pytest.fixture
def heeded() -> Iterator[None]:
    """Heed Ctrl-C: it is ignored where the tests run in the background of a shell."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


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


# The workflow.


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
