"""What MLRun runs in the pod that compiles a workflow for `--engine remote`, in the project's folder.

python runner.py FOLDER < submitted.json
"""

import json
import sys

import mlrun
from mlrun.projects.pipelines import load_and_run_workflow


def main() -> None:
    """Run what was submitted."""
    submitted = json.load(sys.stdin)
    spec = submitted["spec"]
    load_and_run_workflow(
        mlrun.get_or_create_ctx("workflow-runner"),
        project_name="modelstream",
        project_context=sys.argv[1],
        workflow_name=spec["name"],
        workflow_path=spec["path"],
        workflow_handler=spec["handler"],
        workflow_arguments=spec["args"],
        engine=spec["engine"],
        artifact_path=submitted.get("artifact_path"),
        run_setup=spec["run_setup"],
    )


if __name__ == "__main__":
    main()
