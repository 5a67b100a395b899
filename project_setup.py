"""MLRun runs this when it loads `project.yaml`: it gives the functions their environment, and the model server its
graph.

It also stores the chain of functions for the workflow, since the library is not installed where that runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def setup(project: Any) -> Any:
    """Configure the functions of an `mlrun.projects.MlrunProject` as `params` say; return it.

    A project that `deploy` has stored, and that is loaded from MLRun, has its functions configured already: it can be
    loaded and run where the library is not installed.
    """
    if "deployment" in project.spec.params:
        return project
    try:
        from modelstream.cluster.functions import set_graph
        from modelstream.project import load_project
        from modelstream.registry.shipped import with_own_model
    except ImportError as error:
        raise RuntimeError(
            f"{error}: this folder's project can be loaded by the Python of its own environment (`make env`); to "
            "deploy it, run `python pipeline.py deploy --config FILE` there (docs/cluster.md)"
        ) from None
    declaration = with_own_model(load_project(Path(project.spec.context) / "project.yaml"))
    project.spec.params["chain"] = declaration.chain.as_dict()
    for name, function in declaration.functions.items():
        runtime = project.get_function(name)
        runtime.set_envs(declaration.settings(name).environment())
        if function.kind == "serving":
            set_graph(runtime, declaration, name)
    return project
