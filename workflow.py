"""The workflow on a cluster: functions are deployed from the last to the first; what was asked for follows.

`pipeline` is compiled by Kubeflow (`deploy --engine kfp` and `--engine remote`), `in_order` does the same from where it
is called (`--engine local`). A function is deployed after those that read what it writes, so that nothing waits unread.
Only MLRun is imported here: MLRun loads this file from the repository's source, where the library is not installed.
"""

from __future__ import annotations

import json
import time
from typing import Any

import mlrun

TRIES = 3
"""Of a job that fails."""
PAUSE = 20
"""Seconds between the first two tries; twice that before the third."""


def pipeline(
    generate: str = "no",
    train: str = "no",
    model_version: str = "",
    users: int = 2000,
    events_per_user: int = 1000,
    seed: int = 1,
) -> None:
    """Deploy all functions; generate events, train and promote a model as the parameters say (`yes` or `no`).

    `model_version` is a registered version to serve; empty: the one that served before, at first the shipped one.
    """
    from kfp import dsl

    chain = chain_to_deploy()
    step = _job("prepare")
    with dsl.Condition(model_version != "", name="choose-model"):
        version = {"version": model_version, "chosen": True}
        chosen = _job("promote", "choose-model", params=version).after(step)
    for name in reversed(chain["consumers"]):
        step = _always(mlrun.deploy_function(name)).after(step, chosen)
    with dsl.Condition(generate == "yes", name="generate"):
        params = {"users": users, "events_per_user": events_per_user, "seed": seed}
        sent = _job(chain["source"], params=params).after(step)
    if chain["trainer"]:
        with dsl.Condition(train == "yes", name="train"):
            drained = _job("drained").after(step, sent)
            trained = _job(chain["trainer"], outputs=["version"]).after(drained)
            version = {"version": trained.outputs["version"]}
            _job("promote", params=version).after(trained)


del pipeline.__annotations__["return"]  # Kubeflow would take it for an output


def _always(step: Any) -> Any:
    """Make a step run every time. Kubeflow would otherwise reuse the result of an earlier run with the same command."""
    step.set_caching_options(False)
    step.execution_options.caching_strategy.max_cache_staleness = "P0D"
    return step


def _job(name: str, step: str = "", **how: Any) -> Any:
    """Return a step that runs a job: up to three times, since a store may be away, or a pod be lost."""
    pauses = {"backoff_duration": f"{PAUSE}s", "backoff_factor": 2}
    return _always(mlrun.run_function(name, name=step or name, **how)).set_retry(TRIES - 1, "Always", **pauses)


def in_order(
    generate: str = "no",
    train: str = "no",
    model_version: str = "",
    users: int = 2000,
    events_per_user: int = 1000,
    seed: int = 1,
) -> None:
    """Do what `pipeline` does, one step after the other. After Ctrl-C the KeyboardInterrupt says which are done."""
    chain = chain_to_deploy()
    done: list[str] = []
    try:
        _run("prepare", done)
        if model_version:
            _run("promote", done, version=model_version, chosen=True)
        for name in reversed(chain["consumers"]):
            mlrun.deploy_function(name)
            done.append(f"{name} is deployed")
        if generate == "yes":
            _run(chain["source"], done, users=users, events_per_user=events_per_user, seed=seed)
        if train == "yes" and chain["trainer"]:
            _run("drained", done)
            trained = _run(chain["trainer"], done)
            _run("promote", done, version=trained.status.results["version"])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*done) from None


def _run(name: str, done: list[str], **params: Any) -> Any:
    """Run a job on the cluster to its end, up to three times. A run that fails doesn't raise in every case."""
    for attempt in range(TRIES):
        time.sleep(PAUSE * attempt)
        try:
            run = mlrun.run_function(name, name=name, params=params, local=False, watch=True)
            problem = f"ended as {run.status.state}: {run.status.error or 'see its log in MLRun'}"
        except mlrun.runtimes.utils.RunError as error:
            run, problem = None, f"failed: {error}"
        if run is not None and run.status.state == "completed":
            done.append(f"{name} has run")
            return run
        print(f"{name} {problem}; attempt {attempt + 1} of {TRIES}", flush=True)
    raise RuntimeError(f"{name} {problem}")


def chain_to_deploy() -> dict[str, Any]:
    """Return the chain of functions: `source`, `consumers` in order and `trainer`, as `project_setup.py` has put it."""
    project = mlrun.get_current_project()
    _refuse_unless_configured(project)
    chain: dict[str, Any] = project.spec.params["chain"]
    return chain


def _refuse_unless_configured(project: Any) -> None:
    """Raise RuntimeError unless the functions are as `deploy` has configured them, and written down in the project.

    MLRun loads others from project.yaml: without triggers, volumes or the cluster's addresses. And it leaves volumes
    and resources out when it saves a project.
    """
    remedy = "run `python pipeline.py deploy --config FILE`, with the cluster's file (docs/cluster.md)"
    deployment = project.spec.params.get("deployment")
    if not deployment:
        raise RuntimeError(
            f"the functions of {project.metadata.name} are not configured for a cluster, and nothing was deployed: "
            f"they would have no triggers and no volumes; {remedy}"
        )
    for name, expected in deployment.items():
        function = project.get_function(name, sync=False, enrich=False).to_dict()["spec"]
        specification = json.loads(json.dumps(function, default=str))
        if differing := [field for field, value in expected.items() if specification.get(field) != value]:
            raise RuntimeError(
                f"{name} is not as it was configured for the cluster, and nothing was deployed: "
                f"{', '.join(differing)} differ; {remedy}"
            )
