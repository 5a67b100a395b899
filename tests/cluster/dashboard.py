"""A stand-in for Nuclio's dashboard, for tests: what it receives of a function that MLRun's API was asked to deploy.

MLRun's API server can't be installed from a package. Its translation of a function to Nuclio's configuration is written
here after its source (`_compile_function_config`), with the classes that it uses, which the client has too: MLRun's
runtimes, and nuclio-jupyter's `ConfigSpec` and `extend_config`.
"""

from __future__ import annotations

import copy
from typing import Any

from modelstream.cluster import plan

GENERATED_BY = "nuclio.io/generated_by"
"""In it MLRun's server says from which commit a function is, if the project's folder is a clone with a remote."""

OF_MLRUN = ("MLRUN_", "SERVING_SPEC_ENV")
"""Beginnings of variables that MLRun adds to a function, and the plan therefore doesn't show."""


def received(function: dict[str, Any], default_runtime: str = "python:3.9") -> dict[str, Any]:
    """Return Nuclio's configuration of a function, as it stood in a request to deploy it."""
    import nuclio

    runtime = _class_of(function).from_dict(copy.deepcopy(function))
    runtime.set_config("metadata.labels.mlrun/class", runtime.kind)
    values, references = runtime._get_nuclio_config_spec_env()
    serving = runtime._get_serving_spec()
    if serving is not None:
        values["SERVING_SPEC_ENV"] = serving
    spec = nuclio.ConfigSpec(env=values, external_source_env=references, config=runtime.spec.config)
    spec.set_config("spec.runtime", runtime.spec.nuclio_runtime or default_runtime)
    spec.set_config("spec.build.functionSourceCode", runtime.spec.build.functionSourceCode)
    replicas = runtime.spec.replicas
    spec.set_config("spec.minReplicas", replicas or runtime.spec.min_replicas)
    spec.set_config("spec.maxReplicas", replicas or runtime.spec.max_replicas)
    if runtime.spec.resources:
        spec.set_config("spec.resources", runtime.spec.resources)
    if runtime.spec.disable_default_http_trigger is not None:
        spec.set_config("spec.disableDefaultHTTPTrigger", runtime.spec.disable_default_http_trigger)
    config: dict[str, Any] = runtime.spec.base_spec
    if not config:
        config = nuclio.config.new_config()
        config["spec"]["handler"] = runtime.spec.function_handler
    config = nuclio.config.extend_config(config, spec, runtime.metadata.tag, runtime.spec.build.code_origin)
    config["spec"]["volumes"] = runtime.spec.generate_nuclio_volumes()
    config["spec"]["build"]["baseImage"] = config["spec"]["build"].get("baseImage") or runtime.spec.image
    return config


def _class_of(function: dict[str, Any]) -> Any:
    from mlrun.runtimes import RemoteRuntime, ServingRuntime

    return ServingRuntime if function["kind"] == "serving" else RemoteRuntime


def shown(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a plan shows of a function, taken from Nuclio's configuration."""
    spec = config["spec"]
    environment = {name: value for name, value in plan.variables(spec["env"]).items() if not name.startswith(OF_MLRUN)}
    resources = {kind: values for kind, values in (spec.get("resources") or {}).items() if values}
    return {
        "image": spec["build"]["baseImage"],
        "handler": spec["handler"],
        "runtime": spec["runtime"],
        "replicas": (spec["minReplicas"], spec["maxReplicas"]),
        "default HTTP trigger": not spec.get("disableDefaultHTTPTrigger", False),
        "triggers": plan.masked(spec["triggers"]),
        "env": environment,
        "resources": resources,
        "volumes": {each["volumeMount"]["mountPath"]: _kept(each["volume"]) for each in spec["volumes"]},
        "annotations": plan.masked(
            {key: value for key, value in (config["metadata"].get("annotations") or {}).items() if key != GENERATED_BY}
        ),
    }


def planned(described: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the same of a plan."""
    step = next(step[f"deploy {name}"] for step in described["steps"] if f"deploy {name}" in step)
    environment = described["env of every function"] | step["env"]
    return {
        "image": described["image"],
        "handler": step["handler"],
        "runtime": step["runtime"],
        "replicas": (step["replicas"], step["replicas"]),
        "default HTTP trigger": step["default HTTP trigger"],
        "triggers": step["triggers"],
        "env": {key: value for key, value in environment.items() if not key.startswith(OF_MLRUN)},
        "resources": step.get("resources", {}),
        "volumes": described["volumes of every function"],
        "annotations": step.get("annotations", {}),
    }


def _kept(volume: dict[str, Any]) -> str:
    if "secret" in volume:
        return f"the secret {volume['secret']['secretName']}"
    return f"the claim {volume['persistentVolumeClaim']['claimName']}"
