"""The project with every function complete: what the compiler gets, and what MLRun stores.

MLRun leaves parts of a function out whenever it writes down the project that it belongs to: volumes, mounts, resources
and the values of `V3IO_…` variables (`_default_fields_to_strip` of its classes). Deployed from there, logs would go to
a pod's own disk, and be lost with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEPLOYMENT = "deployment"
"""The project's parameter with what `deploy` has configured, by function; `workflow.py` refuses any other."""
CONFIGURED = (
    "image",
    "env",
    "config",
    "volumes",
    "volume_mounts",
    "resources",
    "min_replicas",
    "max_replicas",
    "nuclio_runtime",
    "disable_default_http_trigger",
)
"""Fields of a function's specification that a deployment configures."""


def whole(mlrun_project: Any, runtimes: Mapping[str, Any]) -> dict[str, Any]:
    """Return an `mlrun.projects.MlrunProject` as plain data, with its functions complete.

    Its parameter `deployment` tells what each is configured with. MLRun gives it to the workflow wherever that runs,
    while a project that was only loaded from its folder has none.
    """
    written: dict[str, Any] = mlrun_project.to_dict()
    functions = {name: runtime.to_dict() | {"status": {}} for name, runtime in runtimes.items()}
    written["spec"]["functions"] = [{"name": name, "spec": function} for name, function in functions.items()]
    written["spec"]["params"] = written["spec"].get("params", {}) | {DEPLOYMENT: configured(runtimes)}
    plain: dict[str, Any] = json.loads(json.dumps(written, default=str))
    return plain


def configured(runtimes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each function is configured with: the fields `CONFIGURED` that it has, as plain data."""
    found = {}
    for name, runtime in runtimes.items():
        specification = json.loads(json.dumps(runtime.to_dict()["spec"], default=str))
        found[name] = {field: value for field in CONFIGURED if (value := specification.get(field))}
    return found
