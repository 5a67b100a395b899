"""Compile or submit the workflow, in an environment that has Kubeflow's compiler (`make kfp`).

Its kfp 1.8 needs pydantic 1.10, so it can't live beside the rest. A project comes on standard input, as MLRun writes
it down: with every function whole, so that nothing is configured or converted twice, and nothing but MLRun is needed.

    python compile.py FOLDER TARGET < project.json        writes Argo's YAML to TARGET
    python compile.py FOLDER --submit < project.json      runs the workflow on the cluster

Standard output is one JSON object: {"seconds": …} or {"run": …}; after a mistake {"error": …}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

WORKFLOW = "main"


def main(arguments: list[str]) -> dict[str, Any]:
    """Do what the command line says; return what to print."""
    folder, target = arguments
    asked = json.load(sys.stdin)
    if target != "--submit":
        # Not asked for anything: a compiler needs no server. With none at all MLRun would run the steps.
        os.environ["MLRUN_DBPATH"] = "nop"
    import mlrun

    project = mlrun.projects.MlrunProject.from_dict(asked["project"])
    project.spec.context = folder
    mlrun.projects.pipeline_context.set(project)
    if target == "--submit":
        run = project.run(WORKFLOW, arguments=asked["arguments"], engine="kfp", dirty=True)
        return {"run": run.run_id} if run.run_id else {"error": f"{run.state}: {run.exc}"}
    mlrun.mlconf.kfp_url = mlrun.mlconf.kfp_url or "http://nowhere"
    mlrun.mlconf.force_run_local = False
    begun = time.perf_counter()
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    project.save_workflow(WORKFLOW, target)
    return {"seconds": round(time.perf_counter() - begun, 3)}


if __name__ == "__main__":
    answer = os.dup(1)
    os.dup2(2, 1)  # what MLRun and kfp print
    try:
        result = main(sys.argv[1:])
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    os.write(answer, json.dumps(result).encode())
