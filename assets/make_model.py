"""Makes the shipped model: `python assets/make_model.py` writes `assets/models/churn/1`.

It is what `pipeline.py run --end 2026-01-01` and `pipeline.py train` make of 2,000 generated users, in a registry of
its own; the report, half a megabyte, is left out. The same seed gives the same `model.onnx`, to the byte.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from modelstream import notebooks
from modelstream.project import load_project
from modelstream.runner.training import mlrun_context, training_environment, training_function

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "assets" / "models" / "churn" / "1"
FILES = ("model.onnx", "model_spec.yaml", "card.json", "README.md")
END = "2026-01-01"
"""When the generated events end."""


def main() -> None:
    """Run the pipeline, train, and take the files over."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--folder", type=Path, default=MODEL)
    arguments.add_argument("--users", default="2000")
    arguments.add_argument("--seed", default="1")
    given = arguments.parse_args()
    project = load_project(ROOT / "project.yaml")
    with tempfile.TemporaryDirectory(prefix="modelstream-model-") as folder:
        data, registry = Path(folder) / "data", Path(folder) / "models"
        generated = ["--users", given.users, "--seed", given.seed, "--end", f"{END} 00:00"]
        run = [sys.executable, str(ROOT / "pipeline.py"), "run", "--data", str(data), "--quiet", *generated]
        subprocess.run(run, check=True)
        # Without a shipped model to count on from, the registry begins with version 1.
        os.environ |= training_environment(project, data) | {
            "MODELSTREAM_MODEL": "",
            "MODELSTREAM_REGISTRY": str(registry),
        }
        name = training_function(project)
        context = mlrun_context(project)
        context.artifact_path = f"{folder}/runs"
        notebooks.load(project.notebook(name)).train(context, seed=int(given.seed))
        given.folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(next(registry.glob(f"*/1/{name}")), given.folder / name)


if __name__ == "__main__":
    main()
