"""What the tests of `deploy` share: the project as MLRun loads it, and the command with its usual options."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from modelstream.cluster import deploy, functions
from modelstream.cluster.compiler import COMPILER
from modelstream.cluster.deploy import Deployment
from modelstream.cluster.options import WorkflowOptions

ROOT = Path(__file__).parents[2]
KINDS = ("kafka", "v3io")
ORDER = ["inference-logger", "model-server", "stream-to-features", "event-handler"]
SECRET = "3f0c6f0e-hunter2"
COMPILERS = (os.environ.get(COMPILER, ""), str(ROOT / ".venv-kfp" / "bin" / "python"))


def loaded(written: dict[str, Any], kind: str | Path) -> Deployment:
    """Return what the command has loaded for one of the shipped files, or for another."""
    import mlrun

    deployment = Deployment(ROOT, kind if isinstance(kind, Path) else ROOT / "clusters" / f"{kind}.yaml")
    deployment.mlrun_project = mlrun.projects.MlrunProject.from_dict(json.loads(json.dumps(written, default=str)))
    deployment.mlrun_project.spec.context = str(ROOT)
    deployment.runtimes = functions.configure(deployment.mlrun_project, deployment.project, deployment.cluster)
    return deployment


def load_what_is_written(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the commands MLRun's loader."""

    def load(self: Deployment) -> None:
        self.mlrun_project = loaded(written, "kafka").mlrun_project
        self.runtimes = functions.configure(self.mlrun_project, self.project, self.cluster)

    monkeypatch.setattr(Deployment, "load", load)


NOTHING_MORE = WorkflowOptions()


def asked(
    kind: str | Path, *, output: Path, options: WorkflowOptions = NOTHING_MORE, folder: Path = ROOT, **how: Any
) -> list[str]:
    """Do what the command does; return what it prints at its end."""
    file = ROOT / "clusters" / f"{kind}.yaml" if isinstance(kind, str) else kind
    how = {"engine": "local", "dry_run": False, "diff": False, **how}
    return deploy.deploy(file, options, output=output, folder=folder, **how)


def without_placeholders(tmp_path: Path, **changes: str) -> Path:
    """Return a cluster's file with an image that somebody has, and other texts changed."""
    text = (ROOT / "clusters" / "kafka.yaml").read_text().replace("registry.example.com", "registry.local")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file
