"""The process that compiles the workflow, in the environment that `make kfp` builds."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from modelstream.cluster.failures import explained
from modelstream.errors import ConfigurationError

COMPILER = "MODELSTREAM_KFP_PYTHON"
"""The environment variable with the path of a Python that has Kubeflow's compiler; by default the one of `make kfp`."""
SUBMIT = "--submit"


class Compiler:
    """The process. It is started before it is asked: its imports take as long as those of the one that asks."""

    def __init__(self, folder: Path, target: str) -> None:
        """Start it for the project in `folder`; `target` is the file to write, or `SUBMIT`.

        Raises ConfigurationError if there is no environment to run it in.
        """
        command = [str(_python(folder)), str(Path(__file__).with_name("compile.py")), str(folder), target]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Let it do its work, once; return its answer (see `compile`). Raises ModelstreamError."""
        printed, said = self._process.communicate(json.dumps(asked, default=str))
        try:
            answer: dict[str, Any] = json.loads(printed)
        except json.JSONDecodeError:
            answer = {"error": said.strip().rpartition("\n")[2] or f"it ended with {self._process.returncode}"}
        if "error" in answer:
            raise explained(RuntimeError(answer["error"]), "the workflow")
        return answer


def _python(folder: Path) -> Path:
    """Return the Python that has Kubeflow's compiler."""
    asked = os.environ.get(COMPILER)
    python = Path(asked) if asked else folder / ".venv-kfp" / "bin" / "python"
    if not python.exists():
        raise ConfigurationError(
            f"no environment with Kubeflow's compiler: {python}",
            remedy=f"run `make kfp` (once, half a minute), or name its Python in {COMPILER}",
        )
    return python
