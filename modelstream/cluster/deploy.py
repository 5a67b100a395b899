"""The commands `deploy` and `undeploy`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelstream import project as projects
from modelstream.cluster import config, plan
from modelstream.cluster.config import Cluster
from modelstream.cluster.failures import explained
from modelstream.cluster.functions import configure, consumers, trainer
from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.project import Project

Engine = Literal["local", "kfp", "remote"]
COMPILER = "MODELSTREAM_KFP_PYTHON"
"""The environment variable with the Python that has Kubeflow's compiler, if it is not that of `make kfp`."""
SUBMIT = "--submit"
WORKFLOWS = {"local": "in-order", "kfp": "main", "remote": "main"}
_API = "export MLRUN_DBPATH=… with the address of the MLRun API (docs/cluster.md), or look first with --dry-run"


@dataclass(frozen=True)
class Order:
    """What the workflow is to do besides deploying."""

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
        self.project: Project = projects.load(folder / "project.yaml")
        self.cluster: Cluster = config.load(file, self.project)
        self.mlrun_project: Any = None
        self.runtimes: dict[str, Any] = {}

    def load(self) -> None:
        """Let MLRun load the project and its notebooks (a process each), and configure the functions."""
        import mlrun

        # Not get_or_create_project, nor save: they rewrite project.yaml.
        self.mlrun_project = mlrun.load_project(str(self.folder), save=False)
        self.runtimes = configure(self.mlrun_project, self.project, self.cluster)

    def describe(self) -> str:
        """Return the plan, as YAML."""
        return plan.text(plan.describe(self.runtimes, self.project, self.cluster))

    def compile(self, target: Path) -> float:
        """Write the workflow as Argo's YAML; return the seconds that compiling took, after the imports."""
        return float(self._ask_compiler(str(target.resolve()), {})["seconds"])

    def run(self, engine: Engine, order: Order) -> str:
        """Run the workflow on the cluster; return what to say of it."""
        arguments = order.arguments()
        self.mlrun_project.save_to_db()
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

    def _log_of(self, problem: str) -> str:
        """Return the end of the log of a function that was not deployed: MLRun's error names only the function."""
        name = re.search(r"Function ([\w-]+) deployment failed", problem)
        if name is None or name[1] not in self.runtimes:
            return ""
        import mlrun

        text, _ = mlrun.get_run_db().get_nuclio_deploy_status(self.runtimes[name[1]], last_log_timestamp=0)
        return ": " + " / ".join(str(text).strip().splitlines()[-3:])

    def _ask_compiler(self, target: str, arguments: dict[str, Any]) -> dict[str, Any]:
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
    file: Path, order: Order, *, engine: Engine, dry_run: bool, workflow: Path, folder: Path = Path()
) -> list[str]:
    """Deploy, or with `dry_run` print the plan and write the workflow; return lines to print at the end."""
    _quieten(dry_run)
    deployment = Deployment(folder, file)
    order = Order(**(asdict(order) | {"generator": deployment.cluster.generator | order.generator}))
    if order.train and not trainer(deployment.project):
        raise ConfigurationError(
            "project.yaml has no function that trains a model",
            remedy="leave --train out, or add one (a job without `reads` and `writes` in its wiring)",
        )
    if engine == "remote" and not deployment.cluster.source:
        raise ConfigurationError(
            f"{file}: the cluster needs to know where this repository is",
            remedy="add a line `source: git://…`, or use --engine kfp",
        )
    if not dry_run:
        connect()
    deployment.load()
    if dry_run:
        sys.stdout.write(deployment.describe())
        sys.stdout.flush()
        return [f"# {workflow}: the workflow as Argo runs it, compiled in {deployment.compile(workflow):.2f} s"]
    try:
        return [deployment.run(engine, order)]
    except ModelstreamError:
        raise
    except Exception as error:
        raise explained(error, "deploying") from error


def undeploy(file: Path, *, data: bool, folder: Path = Path()) -> list[str]:
    """Take the functions down, the first one first; return lines to print. Data stay, unless `data` says not."""
    deployment = Deployment(folder, file)
    database = connect()
    project = deployment.project
    gone = []
    try:
        for name in consumers(project):
            database.delete_function(name, project.name)
            gone.append(f"{name} is deleted")
        if not data:
            kept = deployment.cluster
            return [*gone, f"kept: streams at {kept.streams}, tables at {kept.tables}, logs at {kept.logs}"]
        deployment.load()
        run = deployment.runtimes["remove"].run(name="remove", local=False, watch=True)
        if run.status.state != "completed":
            raise RuntimeError(f"remove ended as {run.status.state}: {run.status.error}")
    except ModelstreamError:
        raise
    except Exception as error:
        raise explained(error, "; ".join([*gone, "undeploying"])) from error
    return [*gone, "streams, tables and logs are deleted"]


def connect() -> Any:
    """Return MLRun's database client, connected. Raises ConfigurationError or UnavailableError, with what to do."""
    try:
        import mlrun  # with an address in the environment, this connects

        address = mlrun.mlconf.dbpath
        if address:
            database = mlrun.get_run_db()
            # Connecting alone succeeds without a login, with no more than a warning.
            database.list_projects(format_="name_only")
            return database
    except Exception as error:
        raise explained(error, "the MLRun API (MLRUN_DBPATH)") from error
    raise ConfigurationError("no address of an MLRun API: MLRUN_DBPATH is not set", remedy=_API)


def _quieten(dry_run: bool) -> None:
    """Have MLRun not warn, twice a call, that a dry run has no server."""
    if dry_run:
        os.environ.pop("MLRUN_DBPATH", None)
        os.environ |= {"MLRUN_HTTPDB__NOP_DB__VERBOSE": "false", "MLRUN_LOG_LEVEL": "ERROR"}
