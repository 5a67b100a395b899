"""Describes what would be deployed, from the same objects that MLRun would send."""

from __future__ import annotations

from typing import Any

import yaml

from modelstream.cluster.config import Cluster
from modelstream.cluster.functions import DRIFT_AT, TRIGGER, TRIM_AT
from modelstream.cluster.secrecy import is_secret
from modelstream.project import Project

NO_MODEL = "none comes with the project: until one is promoted (--train), vectors are kept without an answer"
MASKED = "***"
_REFERENCES = ("$generate",)
"""Values of password settings that are references, not passwords."""


def describe(runtimes: dict[str, Any], project: Project, cluster: Cluster) -> dict[str, Any]:
    """Return the plan of a deployment: streams, tables, logs, the environment, and the steps in their order."""
    params = project.params
    chain = project.chain
    order = chain.consumers[::-1]
    jobs = [chain.source, *filter(None, [chain.trainer])]
    shared = _shared([environment(runtimes[name]) for name in (*order, *jobs)])
    steps: list[dict[str, Any]] = [{"run prepare": "streams and tables, where they are not there yet"}]
    steps += [{f"deploy {name}": _function(runtimes[name], project, name, shared)} for name in order]
    for name in jobs:
        asked: dict[str, Any] = {"when": "--train, and all is drained"}
        if name == chain.source:
            asked = {"when": "--generate", "with": cluster.generator}
        steps.append({f"run {name}": asked | _job(runtimes[name], project, name, shared)})
    if chain.trainer:
        steps.append({"run promote": {"when": "--train"}})
    if cluster.on_kafka:
        steps.append({"schedule trim": {"when": TRIM_AT, "with": {"hours": cluster.retention_hours}}})
    if cluster.monitoring:
        steps.append({"schedule drift": {"when": DRIFT_AT}})
    return {
        "project": project.name,
        "image": cluster.image,
        "source": cluster.source,
        "streams": {
            "url": cluster.streams,
            "shards": params.shards,
            "epoch": cluster.epoch,
            "names": [*params.streams],
        },
        "tables": {"url": cluster.tables, "names": [*params.tables]},
        "logs": {"url": cluster.logs, "names": [*params.logs]},
        "models": cluster.registry_url(),
        **({} if params.model else {"model": NO_MODEL}),
        "volumes of every function": volumes(runtimes[order[0]]),
        "when shards move": f"a worker needs at most 2 s to drain, and has {TRIGGER['worker_termination_timeout']}",
        "env of every function": shared,
        "steps": steps,
    }


def text(plan: dict[str, Any]) -> str:
    """Return a plan as YAML, as a person reads it."""
    written: str = yaml.dump(plan, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    return written


class _Plain(yaml.SafeDumper):
    """A YAML dumper that repeats an object instead of writing a reference to it."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def environment(runtime: Any) -> dict[str, str]:
    """Return a function's environment. A secret is shown by where it is stored, or masked if it has a value."""
    return variables(runtime.to_dict()["spec"].get("env", []))


def variables(env: list[dict[str, Any]]) -> dict[str, str]:
    """Return the variables of a function, written as Kubernetes does, as `environment` shows them."""
    found = {}
    for variable in env:
        name = variable["name"]
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if reference:
            found[name] = f"from the secret {reference['name']}, key {reference['key']}"
        else:
            found[name] = MASKED if is_secret(name) else str(variable.get("value", ""))
    return found


def volumes(runtime: Any) -> dict[str, str]:
    """Return what a function mounts, by path."""
    return {mount["volumeMount"]["mountPath"]: _kept(mount["volume"]) for mount in mounted(runtime)}


def mounted(runtime: Any) -> list[dict[str, Any]]:
    """Return a function's mounts, each with its volume, as Kubernetes writes them."""
    spec = runtime.to_dict()["spec"]
    known = {volume["name"]: volume for volume in spec.get("volumes") or []}
    return [{"volume": known[each["name"]], "volumeMount": each} for each in spec.get("volume_mounts") or []]


def _kept(volume: dict[str, Any]) -> str:
    """Return what a volume is, in words."""
    claim, secret = volume.get("persistentVolumeClaim"), volume.get("secret")
    if claim:
        return f"the claim {claim['claimName']}"
    return f"the secret {secret['secretName']}" if secret else str(volume)


def masked(value: Any, name: str = "") -> Any:
    """Return a trigger's settings without passwords.

    >>> masked({"url": "u", "password": "x", "attributes": {"sasl": {"password": "y"}}})
    {'url': 'u', 'password': '***', 'attributes': {'sasl': {'password': '***'}}}
    """
    if isinstance(value, dict):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, name) for inner in value]
    if isinstance(value, str) and value and is_secret(name) and value not in _REFERENCES:
        return MASKED
    return value


def _shared(environments: list[dict[str, str]]) -> dict[str, str]:
    first, *others = environments
    return {name: value for name, value in first.items() if all(one.get(name) == value for one in others)}


def _function(runtime: Any, project: Project, name: str, shared: dict[str, str]) -> dict[str, Any]:
    spec = runtime.to_dict()["spec"]
    triggers = {
        key.removeprefix("spec.triggers."): masked(trigger)
        for key, trigger in spec.get("config", {}).items()
        if key.startswith("spec.triggers.")
    }
    shown = {"notebook": project.functions[name].url, "handler": spec["function_handler"]}
    shown |= {"runtime": spec["nuclio_runtime"], "replicas": spec["min_replicas"]}
    shown |= {"default HTTP trigger": not spec["disable_default_http_trigger"], "triggers": triggers}
    if annotations := spec.get("base_spec", {}).get("metadata", {}).get("annotations"):
        shown["annotations"] = masked(dict(annotations))
    if "graph" in spec:
        # Sorted: MLRun's order changes from run to run.
        steps = {step: dict(sorted(details.items())) for step, details in spec["graph"]["steps"].items()}
        shown["graph"] = {"engine": spec["graph"]["engine"], "steps": masked(steps)}
    return shown | _common(runtime, shared)


def _job(runtime: Any, project: Project, name: str, shared: dict[str, str]) -> dict[str, Any]:
    declared = project.functions[name]
    return {"notebook": declared.url, "handler": declared.handler} | _common(runtime, shared)


def _common(runtime: Any, shared: dict[str, str]) -> dict[str, Any]:
    own = {name: value for name, value in environment(runtime).items() if name not in shared}
    resources = {kind: values for kind, values in (runtime.spec.resources or {}).items() if values}
    return {"env": own} | ({"resources": resources} if resources else {})
