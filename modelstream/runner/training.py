"""The training function on a data folder: its environment, and MLRun's context for a run of it here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelstream.base.process_environment import QUIET_MLRUN
from modelstream.errors import ConfigurationError
from modelstream.project import Project
from modelstream.runner.data_folder import require, settings_in


def training_function(project: Project) -> str:
    """Return the function that trains: the job without streams. Raises ConfigurationError if there is none."""
    if not project.chain.trainer:
        raise ConfigurationError(
            "project.yaml has no training function", remedy="add a job, with an empty entry under `wiring`"
        )
    return project.chain.trainer


def training_environment(project: Project, data: Path) -> dict[str, str]:
    """Return the environment of the training function for a data folder. Raises ConfigurationError if it isn't one."""
    settings = settings_in(data, require(data, project), project, training_function(project))
    return {**settings.environment(), **QUIET_MLRUN}


def mlrun_context(project: Project) -> Any:
    """Return a context of MLRun's for a training: it keeps what is logged in a folder, and in MLRun if there is one."""
    import mlrun

    context = mlrun.get_or_create_ctx(training_function(project), project=project.name)
    context.artifact_path = str(project.folder / "artifacts" / "runs")
    return context
