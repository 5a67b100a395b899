"""Compiles or submits the workflow, in an environment that has Kubeflow's compiler (`make kfp`).

kfp 1.8 needs pydantic 1.10, so it can't be installed beside the rest. The project comes on standard input as MLRun
saves it, with every function complete: nothing is configured or converted twice, and nothing but MLRun is needed.

    python compile.py FOLDER TARGET < asked.json        writes Argo's YAML to TARGET
    python compile.py FOLDER --submit < asked.json      runs the workflow on the cluster

It imports first and reads then: whoever asks is still importing as well.
The input is one JSON object: the `project`, the workflow's `arguments`, and `session`, which says where the key is that
steps use to log in to MLRun (null if they need none). The output on standard output is one too: {"seconds": …} or
{"run": …}, or after a mistake {"error": …}.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORKFLOW = "main"
SESSION = "MLRUN_AUTH_SESSION"
"""The variable by which a step logs in to MLRun."""


def main(arguments: list[str]) -> dict[str, Any]:
    """Do what the command line says; return what to print."""
    folder, target = arguments
    submits = target == "--submit"
    if not submits:
        # Not asked for anything: a compiler needs no server. With none at all MLRun would run the steps.
        os.environ["MLRUN_DBPATH"] = "nop"
    import kfp.compiler  # noqa: F401  MLRun imports it when it compiles
    import mlrun

    asked = json.load(sys.stdin)
    database = mlrun.get_run_db() if submits else None
    project = mlrun.projects.MlrunProject.from_dict(asked["project"])
    project.spec.context = folder
    mlrun.projects.pipeline_context.set(project)
    mlrun.mlconf.kfp_url = mlrun.mlconf.kfp_url or "http://nowhere"
    mlrun.mlconf.force_run_local = False
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "workflow.yaml") if submits else Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        # MLRun would write the values of these into every step.
        keys = {name: os.environ.pop(name) for name in (SESSION, "V3IO_ACCESS_KEY") if name in os.environ}
        begun = time.perf_counter()
        project.save_workflow(WORKFLOW, str(path), artifact_path=_artifacts(project))
        seconds = time.perf_counter() - begun
        name = project.metadata.name
        run = f"{name}-{WORKFLOW}"
        finish(path, run, asked["session"])
        if database is None:
            return {"seconds": round(seconds, 3)}
        os.environ |= keys
        project.sync_functions(save=True)
        timeout = int(mlrun.mlconf.workflows.timeouts.kfp)
        return {"run": database.submit_pipeline(name, str(path), asked["arguments"], run=run, timeout=timeout)}


def finish(path: Path, name: str, session: dict[str, str] | None) -> None:
    """Name a workflow, which is compiled as `pipeline`; let every step take its key from a Kubernetes secret."""
    import yaml

    workflow = yaml.safe_load(path.read_text())
    workflow["metadata"]["generateName"] = f"{name}-"
    reference = {"secretKeyRef": {"name": session["secret"], "key": session["key"]}} if session else None
    for template in workflow["spec"]["templates"]:
        if reference and "container" in template:
            template["container"].setdefault("env", []).append({"name": SESSION, "valueFrom": reference})
    path.write_text(yaml.dump(workflow))


def _artifacts(project: Any) -> str:
    """Return where steps write artifacts: a folder for each run, as MLRun has it."""
    import mlrun

    return f"{project.spec.artifact_path or mlrun.mlconf.artifact_path}/{{{{workflow.uid}}}}"


if __name__ == "__main__":
    answer = os.dup(1)
    os.dup2(2, 1)  # what MLRun and kfp print
    try:
        result = main(sys.argv[1:])
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    os.write(answer, json.dumps(result).encode())
