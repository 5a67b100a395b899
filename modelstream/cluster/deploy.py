"""What the commands `deploy` and `undeploy` do."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelstream.base.process_environment import QUIET_MLRUN
from modelstream.cluster import plan
from modelstream.cluster.config import Cluster
from modelstream.cluster.failures import explained
from modelstream.cluster.file import load_cluster
from modelstream.cluster.functions import TRIM_AT, configure
from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.project import Project, load_project
from modelstream.registry.shipped import with_own_model

Engine = Literal["local", "kfp", "remote"]
COMPILER = "MODELSTREAM_KFP_PYTHON"
"""The environment variable with the path of a Python that has Kubeflow's compiler; by default the one of `make kfp`."""
SUBMIT = "--submit"
TRIM = "trim"
WORKFLOWS = {"local": "in-order", "kfp": "main", "remote": "main"}
_API = "export MLRUN_DBPATH=… with the address of the MLRun API (docs/cluster.md)"
_LEVEL = "MLRUN_LOG_LEVEL"


@dataclass(frozen=True)
class WorkflowOptions:
    """What the workflow does in addition to deploying."""

    generate: bool = True
    train: bool = False
    model_version: str = ""
    generator: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Return the workflow's parameters."""
        words = {"generate": self.generate, "train": self.train}
        return {name: "yes" if value else "no" for name, value in words.items()} | {
            "model_version": self.model_version,
            **self.generator,
        }


class Deployment:
    """A project with its functions configured for a cluster, as MLRun has them."""

    def __init__(self, folder: Path, file: Path) -> None:
        """Read both files. Raises ConfigurationError; MLRun is not imported yet."""
        self.folder = folder.resolve()
        self.project: Project = load_project(folder / "project.yaml")
        self.cluster: Cluster = load_cluster(file, self.project)
        self.mlrun_project: Any = None
        self.runtimes: dict[str, Any] = {}

    def load(self) -> None:
        """Let MLRun load the project and its notebooks (one process per notebook), and configure the functions."""
        _say(f"loading {len(self.project.functions)} functions from their notebooks")
        self.project = with_own_model(self.project)
        try:
            import mlrun

            # Not get_or_create_project, nor save: they rewrite project.yaml.
            self.mlrun_project = mlrun.load_project(str(self.folder), save=False)
            self.runtimes = configure(self.mlrun_project, self.project, self.cluster)
        except Exception as error:
            raise explained(error, "loading the project") from error

    def describe(self) -> str:
        """Return the plan, as YAML."""
        return plan.text(plan.describe(self.runtimes, self.project, self.cluster))

    def compile(self, target: Path) -> float:
        """Write the workflow as Argo's YAML; return the seconds that compiling took, after the imports."""
        return float(self._ask_compiler(str(target.resolve()), {})["seconds"])

    def run(self, engine: Engine, options: WorkflowOptions) -> str:
        """Run the workflow on the cluster; return the lines to print about it."""
        arguments = options.arguments()
        _say("storing the project in MLRun, and starting the workflow")
        self.mlrun_project.save_to_db()
        told = self._start(engine, arguments)
        if self.cluster.on_kafka:
            self._schedule_trim()
            told += f"; every hour messages older than {self.cluster.retention_hours} h are deleted"
        return told

    def _start(self, engine: Engine, arguments: dict[str, Any]) -> str:
        if engine == "kfp":
            return f"Kubeflow runs the workflow: {self._ask_compiler(SUBMIT, arguments)['run']}"
        asked = {"local": "local", "remote": "remote:kfp"}[engine]
        source = self.cluster.source if engine == "remote" else None
        run = self.mlrun_project.run(
            WORKFLOWS[engine], arguments=arguments, engine=asked, source=source, dirty=True, watch=False
        )
        if run.exc is not None:
            raise RuntimeError(f"{run.exc}{self._log_of(str(run.exc))}") from run.exc
        return f"the workflow is done: {run.run_id}" if engine == "local" else f"MLRun runs it: {run.run_id}"

    def _schedule_trim(self) -> None:
        """Let MLRun run the job `trim` every hour; a schedule of the same name is replaced."""
        import mlrun

        params = {"hours": self.cluster.retention_hours}
        self.runtimes[TRIM].run(name=TRIM, params=params, local=False, schedule=TRIM_AT)
        try:  # MLRun only logs that a job couldn't be scheduled
            mlrun.get_run_db().get_schedule(self.project.name, TRIM)
        except mlrun.errors.MLRunNotFoundError:
            raise RuntimeError(
                f"MLRun has not scheduled the job {TRIM}, so Kafka's topics would grow without "
                "limit; run `deploy` again"
            ) from None

    def _log_of(self, problem: str) -> str:
        """Return the end of the log of a function that was not deployed: MLRun's error names only the function."""
        name = re.search(r"Function ([\w-]+) deployment failed", problem)
        if name is None or name[1] not in self.runtimes:
            return ""
        import mlrun

        text, _ = mlrun.get_run_db().get_nuclio_deploy_status(self.runtimes[name[1]], last_log_timestamp=0)
        return ": " + " / ".join(str(text).strip().splitlines()[-3:])

    def _ask_compiler(self, target: str, arguments: dict[str, Any]) -> dict[str, Any]:
        _say("compiling the workflow")
        session = self.cluster.secrets.get("V3IO_ACCESS_KEY")
        asked = json.dumps(
            {
                "project": self.mlrun_project.to_dict(),
                "arguments": arguments,
                "session": {"secret": session.secret, "key": session.key} if session else None,
            },
            default=str,
        )
        command = [str(self._compiler()), str(Path(__file__).with_name("compile.py")), str(self.folder), target]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except json.JSONDecodeError:
            answer = {"error": done.stderr.strip().rpartition("\n")[2] or f"it ended with {done.returncode}"}
        if "error" in answer:
            raise explained(RuntimeError(answer["error"]), "the workflow")
        return answer

    def _compiler(self) -> Path:
        """Return the Python that has Kubeflow's compiler."""
        asked = os.environ.get(COMPILER)
        python = Path(asked) if asked else self.folder / ".venv-kfp" / "bin" / "python"
        if not python.exists():
            raise ConfigurationError(
                f"no environment with Kubeflow's compiler: {python}",
                remedy=f"run `make kfp` (once, half a minute), or name its Python in {COMPILER}",
            )
        return python


def deploy(
    file: Path, options: WorkflowOptions, *, engine: Engine, dry_run: bool, workflow: Path, folder: Path = Path()
) -> list[str]:
    """Deploy, or with `dry_run` print the plan and write the workflow; return lines to print at the end."""
    _quieten(dry_run)
    deployment = Deployment(folder, file)
    options = WorkflowOptions(**(asdict(options) | {"generator": deployment.cluster.generator | options.generator}))
    if options.train and not deployment.project.chain.trainer:
        raise ConfigurationError(
            "project.yaml has no function that trains a model",
            remedy="leave --train out, or add one (a job without `reads` and `writes` in its wiring)",
        )
    if engine == "remote" and not deployment.cluster.source:
        raise ConfigurationError(
            f"{file}: --engine remote needs the address of this repository",
            remedy="add a line `source: git://…`, or use --engine kfp",
        )
    if not dry_run:
        connect(f"{_API}, or look first with --dry-run")
    deployment.load()
    if dry_run:
        sys.stdout.write(deployment.describe())
        sys.stdout.flush()
        return [f"# {workflow}: the workflow as Argo runs it, compiled in {deployment.compile(workflow):.2f} s"]
    try:
        return [deployment.run(engine, options)]
    except ModelstreamError:
        raise
    except Exception as error:
        raise explained(error, "deploying") from error


def undeploy(file: Path, *, delete_data: bool, folder: Path = Path()) -> list[str]:
    """Remove the functions, the first one first; return lines to print. Data are kept unless `delete_data` is set."""
    deployment = Deployment(folder, file)
    database = connect()
    project = deployment.project
    gone: list[str] = []
    try:
        if deployment.cluster.on_kafka:
            _unschedule(database, project.name)
        for name in project.chain.consumers:
            _say(f"deleting {name}")
            _delete(database, name, project.name)
            gone.append(f"{name} is deleted")
        if not delete_data:
            kept = deployment.cluster
            return [*gone, f"kept: streams at {kept.streams}, tables at {kept.tables}, logs at {kept.logs}"]
        deployment.load()
        _say("deleting streams, tables and logs")
        run = deployment.runtimes["remove"].run(name="remove", local=False, watch=True)
        if run.status.state != "completed":
            raise RuntimeError(f"the job `remove` ended in state {run.status.state}: {run.status.error}")
    except ModelstreamError:
        raise
    except Exception as error:
        raise explained(error, "; ".join([*gone, "undeploying"])) from error
    return [*gone, "streams, tables and logs are deleted"]


def _delete(database: Any, name: str, project: str) -> None:
    """Delete a function, and check that it is gone: when a deletion fails, MLRun's client only logs it."""
    import mlrun

    with suppress(mlrun.errors.MLRunNotFoundError):
        database.delete_function(name, project)
    with suppress(mlrun.errors.MLRunNotFoundError):
        database.get_function(name, project)
        raise RuntimeError(f"MLRun could not delete {name}: it is still there, and may still be running")


def _unschedule(database: Any, project: str) -> None:
    import mlrun

    with suppress(mlrun.errors.MLRunNotFoundError):
        database.delete_schedule(project, TRIM)


def connect(remedy: str = _API) -> Any:
    """Return MLRun's database client, connected. Raises ConfigurationError or UnavailableError with a remedy.

    `remedy` says what to do if no address is set.
    """
    try:
        with _quiet():
            import mlrun  # with an address in the environment, this connects

            address = mlrun.mlconf.dbpath
            if address:
                database = mlrun.get_run_db()
                # Connecting alone succeeds without a login, with no more than a warning.
                database.list_projects(format_="name_only")
                return database
    except Exception as error:
        raise explained(error, "the MLRun API (MLRUN_DBPATH)") from error
    raise ConfigurationError("no address for MLRun's API: MLRUN_DBPATH is not set", remedy=remedy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the screenful that MLRun logs when a connection fails, unless its log level is set."""
    if _LEVEL in os.environ:
        yield
        return
    logger = logging.getLogger("mlrun")
    # An import takes the level from the environment; where MLRun was imported before, its logger has one.
    level = logger.level or logging.INFO
    os.environ[_LEVEL] = "ERROR"
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        del os.environ[_LEVEL]
        logger.setLevel(level)


def _say(what: str) -> None:
    """Tell what is being done: each of these takes seconds to minutes."""
    print(f"{what} …", file=sys.stderr, flush=True)


def _quieten(dry_run: bool) -> None:
    """Keep MLRun from warning, twice per call, that a dry run has no server."""
    if dry_run:
        os.environ.pop("MLRUN_DBPATH", None)
        os.environ |= QUIET_MLRUN
