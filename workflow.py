"""The workflow on a cluster: functions are deployed from the last to the first, then events are generated.

`pipeline` is compiled by Kubeflow (`deploy --engine kfp` and `--engine remote`), `in_order` does the same from where it
is called (`--engine local`). A function is deployed after those that read what it writes, so that nothing waits unread.
Only MLRun is imported here: MLRun loads this file from the repository's source, where the library is not installed.
"""

from __future__ import annotations

from typing import Any

import mlrun


def pipeline(
    generate: str = "yes",
    train: str = "no",
    model_version: str = "",
    users: int = 2000,
    events_per_user: int = 1000,
    seed: int = 1,
):  # without a return type: Kubeflow would take it for an output
    """Deploy all functions; generate events, train and promote a model as the parameters say (`yes` or `no`).

    `model_version` is a registered version to serve; empty: the one that served before, at first the shipped one.
    """
    from kfp import dsl

    roles = Roles(mlrun.get_current_project().spec.params["wiring"])
    step = _always(mlrun.run_function("prepare", name="prepare"))
    with dsl.Condition(model_version != "", name="choose-model"):
        version = {"version": model_version}
        chosen = _always(mlrun.run_function("promote", name="choose-model", params=version)).after(step)
    for name in roles.last_to_first:
        step = _always(mlrun.deploy_function(name)).after(step, chosen)
    with dsl.Condition(generate == "yes", name="generate"):
        params = {"users": users, "events_per_user": events_per_user, "seed": seed}
        sent = _always(mlrun.run_function(roles.source, name=roles.source, params=params)).after(step)
    if roles.trainer:
        with dsl.Condition(train == "yes", name="train"):
            drained = _always(mlrun.run_function("drained", name="drained")).after(step, sent)
            trained = _always(mlrun.run_function(roles.trainer, name=roles.trainer, outputs=["version"])).after(drained)
            version = {"version": trained.outputs["version"]}
            _always(mlrun.run_function("promote", name="promote", params=version)).after(trained)


def _always(step: Any) -> Any:
    """Have a step run each time. Kubeflow would take the result of an earlier run whose command was the same."""
    step.set_caching_options(False)
    step.execution_options.caching_strategy.max_cache_staleness = "P0D"
    return step


def in_order(
    generate: str = "yes",
    train: str = "no",
    model_version: str = "",
    users: int = 2000,
    events_per_user: int = 1000,
    seed: int = 1,
) -> None:
    """Do what `pipeline` does, one step after the other."""
    roles = Roles(mlrun.get_current_project().spec.params["wiring"])
    _run("prepare")
    if model_version:
        _run("promote", version=model_version)
    for name in roles.last_to_first:
        mlrun.deploy_function(name)
    if generate == "yes":
        _run(roles.source, users=users, events_per_user=events_per_user, seed=seed)
    if train == "yes" and roles.trainer:
        _run("drained")
        trained = _run(roles.trainer)
        _run("promote", version=trained.status.results["version"])


def _run(name: str, **params: Any) -> Any:
    """Run a job on the cluster to its end. A run that fails doesn't raise by itself in every case."""
    run = mlrun.run_function(name, name=name, params=params, local=False, watch=True)
    if run.status.state != "completed":
        raise RuntimeError(f"{name} ended as {run.status.state}: {run.status.error or 'see its log in MLRun'}")
    return run


class Roles:
    """Which function is what, by what it reads and writes (`wiring` in project.yaml)."""

    def __init__(self, wiring: dict[str, dict[str, str]]) -> None:
        self.source = next(name for name, wire in wiring.items() if wire.get("writes") and not wire.get("reads"))
        self.trainer = next((name for name, wire in wiring.items() if not wire), "")
        chain = []
        stream = wiring[self.source]["writes"]
        while stream:
            name, stream = next(((n, w.get("writes")) for n, w in wiring.items() if w.get("reads") == stream), ("", ""))
            chain += [name] if name else []
        self.last_to_first = chain[::-1]
