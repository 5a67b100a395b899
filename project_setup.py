"""MLRun runs this when it loads `project.yaml`: functions get their environment, the server its graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelstream import project as declared


def setup(project: Any) -> Any:
    """Configure the functions of an `mlrun.projects.MlrunProject` as `params` say; return it."""
    declaration = declared.load(Path(project.spec.context) / "project.yaml")
    for name, function in declaration.functions.items():
        runtime = project.get_function(name)
        runtime.set_envs(declaration.environment(name))
        if function.kind == "serving":
            graph = declaration.graph(name)
            flow = runtime.set_topology("flow", engine=graph["engine"])
            for step, details in graph["steps"].items():
                flow.to(details["class_name"], name=step, **details["class_args"]).respond()
    return project
