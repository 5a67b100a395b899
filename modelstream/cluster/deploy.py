"""What the commands `deploy` and `undeploy` do."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from modelstream.base.command_line import as_typed_here
from modelstream.base.process_environment import QUIET_MLRUN, WITHOUT_ENV_FILE
from modelstream.cluster import api, conversion, plan, project_secrets
from modelstream.cluster.compiler import SUBMIT, Compiler
from modelstream.cluster.config import Cluster
from modelstream.cluster.differences import differences
from modelstream.cluster.failures import explained
from modelstream.cluster.file import load_cluster
from modelstream.cluster.functions import DRIFT_AT, TRIM_AT, configure
from modelstream.cluster.options import WorkflowOptions
from modelstream.cluster.placeholders import placeholders, refuse
from modelstream.cluster.summary import summary
from modelstream.cluster.whole import DEPLOYMENT, configured, whole
from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.project import Project, load_project
from modelstream.registry.shipped import with_own_model

Engine = Literal["local", "kfp", "remote"]
TRIM, DRIFT = "trim", "drift"
WORKFLOWS = {"local": "in-order", "kfp": "main", "remote": "main"}


class Interrupted(ModelstreamError):  # noqa: N818  nothing went wrong
    """Ctrl-C. The text says what has been done, the remedy how to go on."""


class Deployment:
    """A project with its functions configured for a cluster, as MLRun has them."""

    def __init__(self, folder: Path, file: Path) -> None:
        """Read both files. Raises ConfigurationError; MLRun is not imported yet."""
        self.folder = folder.resolve()
        self.project: Project = load_project(folder / "project.yaml")
        self.cluster: Cluster = load_cluster(file, self.project)
        self.mlrun_project: Any = None
        self.runtimes: dict[str, Any] = {}
        self.secrets: dict[str, str] = {}
        """What is to be put into MLRun's secrets of the project."""
        self.done: list[str] = []
        """What has been done on the cluster, in words."""

    def load(self) -> None:
        """Let MLRun load the project and its notebooks, and configure the functions."""
        _say(f"loading {len(self.project.functions)} functions from their notebooks")
        self.project = with_own_model(self.project)
        try:
            import mlrun

            # Not get_or_create_project, nor save: they rewrite project.yaml.
            with conversion.in_this_process():
                self.mlrun_project = mlrun.load_project(str(self.folder), save=False)
            self.runtimes = configure(self.mlrun_project, self.project, self.cluster)
        except Exception as error:
            raise explained(error, "loading the project") from error

    def describe(self) -> str:
        """Return the plan, as YAML."""
        return plan.text(plan.describe(self.runtimes, self.project, self.cluster))

    def differences(self, database: Any) -> list[str]:
        """Return what `deploy` would change of what MLRun holds, in words."""
        try:
            deployed = api.functions_of(database, self.project.name, self.runtimes)
        except Exception as error:
            raise explained(error, "asking MLRun for the functions") from error
        return differences(deployed, {name: runtime.to_dict() for name, runtime in self.runtimes.items()})

    def compile(self, compiler: Compiler, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Let the workflow be compiled to the compiler's target; return its answer."""
        _say("compiling the workflow")
        session = self.cluster.secrets.get("V3IO_ACCESS_KEY")
        return compiler.ask(
            {
                "project": whole(self.mlrun_project, self.runtimes),
                "arguments": arguments or {},
                "session": {"secret": session.secret, "key": session.key} if session else None,
            }
        )

    def run(self, engine: Engine, options: WorkflowOptions, compiler: Compiler | None = None) -> str:
        """Run the workflow on the cluster; return the lines to print about it. The engine kfp needs a compiler."""
        import mlrun

        _say("storing the project in MLRun, and starting the workflow")
        self._store()
        self.done.append("the project is stored in MLRun")
        self._store_secrets_and_jobs()
        if compiler is not None:
            told = f"Kubeflow runs the workflow: {self.compile(compiler, options.arguments())['run']}"
        else:
            told = self._start(engine, options.arguments())
        self.done.append(told)
        if self.cluster.on_kafka:
            self._schedule(TRIM, TRIM_AT, {"hours": self.cluster.retention_hours})
            told += f"; every hour messages older than {self.cluster.retention_hours} h are deleted"
        else:  # the streams may have been in Kafka before
            api.unschedule(mlrun.get_run_db(), TRIM, self.project.name)
        if self.cluster.monitoring:
            self._schedule(DRIFT, DRIFT_AT, {})
            told += "; every hour what was served is compared with what the model was made of"
        else:
            api.unschedule(mlrun.get_run_db(), DRIFT, self.project.name)
        return told

    def _store(self) -> None:
        """Store the project in MLRun. (Its own `save` would leave out parts of the functions.)"""
        import mlrun

        mlrun.get_run_db().store_project(self.project.name, whole(self.mlrun_project, self.runtimes))
        # For a workflow that runs here.
        self.mlrun_project.spec.params[DEPLOYMENT] = configured(self.runtimes)

    def _store_secrets_and_jobs(self) -> None:
        """Store what the workflow doesn't: secrets, and jobs that may not run in it. Whoever runs those later finds
        them."""
        import mlrun

        database = mlrun.get_run_db()
        if self.secrets:
            project_secrets.store(database, self.project.name, self.secrets)
            self.done.append(f"MLRun has the secrets {', '.join(self.secrets)}")
        for name, runtime in self.runtimes.items():
            if runtime.kind == "job":
                database.store_function(runtime.to_dict(), name, self.project.name, tag="latest", versioned=True)

    def _start(self, engine: Engine, arguments: dict[str, Any]) -> str:
        asked = {"local": "local", "remote": "remote:kfp"}[engine]
        source = None
        if engine == "remote":
            import mlrun

            source = self.cluster.source
            # The pod that compiles it. By default MLRun takes the project's image, which has no Kubeflow.
            self.mlrun_project.set_workflow(
                WORKFLOWS[engine], "workflow.py", engine="kfp", handler="pipeline", image=mlrun.mlconf.kfp_image
            )
        run = self.mlrun_project.run(
            WORKFLOWS[engine], arguments=arguments, engine=asked, source=source, dirty=True, watch=False
        )
        if run.exc is not None:
            raise RuntimeError(f"{run.exc}{self._log_of(str(run.exc))}") from run.exc
        return f"the workflow is done: {run.run_id}" if engine == "local" else f"MLRun runs it: {run.run_id}"

    def _schedule(self, job: str, when: str, params: dict[str, Any]) -> None:
        """Let MLRun run a job by a schedule; a schedule of the same name is replaced."""
        import mlrun

        self.runtimes[job].run(name=job, params=params, local=False, schedule=when)
        if not api.is_scheduled(mlrun.get_run_db(), job, self.project.name):  # MLRun only logs that
            lost = ", so Kafka's topics would grow without limit" if job == TRIM else ""
            raise RuntimeError(f"MLRun has not scheduled the job {job}{lost}; run `deploy` again")

    def _log_of(self, problem: str) -> str:
        """Return the end of the log of a function that was not deployed: MLRun's error names only the function."""
        name = re.search(r"Function ([\w-]+) deployment failed", problem)
        if name is None or name[1] not in self.runtimes:
            return ""
        import mlrun

        text, _ = mlrun.get_run_db().get_nuclio_deploy_status(self.runtimes[name[1]], last_log_timestamp=0)
        return ": " + " / ".join(str(text).strip().splitlines()[-3:])


def deploy(
    file: Path,
    options: WorkflowOptions,
    *,
    engine: Engine,
    secrets_from_env: bool = False,
    dry_run: bool,
    diff: bool,
    output: Path,
    folder: Path = Path(),
) -> list[str]:
    """Deploy. With `dry_run` write plan and workflow into the folder `output`; with `diff` only compare.

    With `secrets_from_env`, MLRun first gets the values of the file's `project_secrets`. Says first what is about to
    be done. Returns lines to print at the end.
    """
    _quieten(dry_run)
    deployment = Deployment(folder, file)
    cluster = deployment.cluster
    options = replace(options, generator=cluster.generator | options.generator)
    _check(file, deployment, options, engine)
    if secrets_from_env:
        deployment.secrets = project_secrets.from_environment(cluster)
    found = placeholders(file, remote=engine == "remote")
    if diff:
        with _telling(deployment.done):
            database = api.connect()
            deployment.load()
            return deployment.differences(database)
    if not dry_run:
        refuse(found)
    print(summary(deployment.project, cluster, options), flush=True)
    if dry_run:
        if found:
            print("\nTo be replaced before you deploy:", *(f"  {each}" for each in found), sep="\n", flush=True)
        print(flush=True)
        return _look(deployment, output)
    try:
        with _telling(deployment.done), ExitStack() as stack:
            api.connect(f"{api.REMEDY}, or look first with --dry-run")
            compiler = stack.enter_context(Compiler(deployment.folder, SUBMIT)) if engine == "kfp" else None
            deployment.load()
            return [deployment.run(engine, options, compiler)]
    except ModelstreamError:
        raise
    except Exception as error:
        raise explained(error, "deploying") from error


def _check(file: Path, deployment: Deployment, options: WorkflowOptions, engine: Engine) -> None:
    """Raise ConfigurationError for options that don't go with the project or the cluster's file."""
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


def _look(deployment: Deployment, output: Path) -> list[str]:
    """Write the plan and, if there is a compiler, the workflow; return lines that say so."""
    details, workflow = output / "plan.yaml", output / "workflow.yaml"
    try:
        output.mkdir(parents=True, exist_ok=True)
        details.write_text("", "utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or output} can't be written: {error.strerror}", remedy="give another folder by --output"
        ) from None
    not_compiled = ""
    with ExitStack() as stack:
        try:
            compiler = stack.enter_context(Compiler(deployment.folder, str(workflow.resolve())))
        except ConfigurationError as error:
            workflow.unlink(missing_ok=True)  # it would be of another plan
            compiler, not_compiled = None, as_typed_here(f"The workflow was not compiled: {error} → {error.remedy}")
        deployment.load()
        details.write_text(deployment.describe(), "utf-8")
        lines = [f"Written: {details}: each function's triggers, variables and size"]
        if compiler is None:
            return [*lines, not_compiled]
        deployment.compile(compiler)
        return [*lines, f"         {workflow}: the workflow, as Argo runs it"]


def undeploy(file: Path, *, delete_data: bool, folder: Path = Path()) -> list[str]:
    """Remove the functions, the first one first; return lines to print. Data are kept unless `delete_data` is set."""
    deployment = Deployment(folder, file)
    gone = deployment.done
    try:
        with _telling(gone):
            if delete_data:  # what could refuse this comes before anything is deleted
                deployment.load()
            _remove_functions(deployment, api.connect())
            if not delete_data:
                kept = deployment.cluster
                return [*gone, f"kept: streams at {kept.streams}, tables at {kept.tables}, logs at {kept.logs}"]
            _say("deleting streams, tables and logs")
            run = deployment.runtimes["remove"].run(name="remove", local=False, watch=True)
            if run.status.state != "completed":
                raise RuntimeError(f"the job `remove` ended in state {run.status.state}: {run.status.error}")
    except ModelstreamError:
        raise
    except Exception as error:
        raise explained(error, "; ".join([*gone, "undeploying"])) from error
    return [*gone, "streams, tables and logs are deleted"]


def _remove_functions(deployment: Deployment, database: Any) -> None:
    project = deployment.project
    for job in (TRIM, DRIFT):
        api.unschedule(database, job, project.name)
    for name in project.chain.consumers:
        _say(f"deleting {name}")
        api.delete(database, name, project.name)
        deployment.done.append(f"{name} is deleted")


@contextmanager
def _telling(done: list[str]) -> Iterator[None]:
    """On Ctrl-C, raise Interrupted with what has been done."""
    try:
        yield
    except KeyboardInterrupt as stop:  # of workflow.py it names the steps that are done
        steps = "; ".join([*done, *map(str, stop.args)])
        raise Interrupted(
            steps or "nothing was changed on the cluster",
            remedy="what is done stays, and MLRun may still finish the step in hand; run the same command again: "
            "it does the rest"
            if steps
            else "run the same command again when you like",
        ) from None


def _say(what: str) -> None:
    """Tell what is being done: each of these takes seconds to minutes."""
    print(f"{what} …", file=sys.stderr, flush=True)


def _quieten(dry_run: bool) -> None:
    """Keep MLRun from asking a server in a dry run, and from warning, twice per call, that there is none."""
    if dry_run:
        os.environ.pop("MLRUN_DBPATH", None)
        os.environ |= QUIET_MLRUN | WITHOUT_ENV_FILE
