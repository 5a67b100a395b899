"""Looks, before data are deleted, at what would refuse the run afterwards: notebooks, the model, the source's options.

It does so in a process of its own: kernels, Parquet and the model's runtime would stay in the supervisor's memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from modelstream import notebooks
from modelstream.base.process_environment import ONE_THREAD
from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.project import Project, load_project
from modelstream.runner.chosen import with_use_case
from modelstream.use_case.declared import UseCase


class Refusal(msgspec.Struct, frozen=True):
    """What would refuse the run."""

    message: str
    remedy: str


def check(project: Project, source: dict[str, Any]) -> None:
    """Raise ConfigurationError if the functions could not start, or the source refuses its parameters.

    `source` has the parameters of the data generator's `main`.
    """
    command = [sys.executable, "-m", "modelstream.runner.preflight", str(project.file.resolve())]
    done = subprocess.run(
        [*command, str(project.use_case_file.resolve()), msgspec.json.encode(source).decode()],
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        try:
            found = msgspec.json.decode(done.stdout.splitlines()[-1], type=Refusal)
        except (IndexError, msgspec.DecodeError):
            end = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
            found = Refusal(f"the functions can't be loaded: {end[0]}", "run their notebooks in Jupyter (make lab)")
        raise ConfigurationError(f"{found.message}; nothing was deleted", remedy=found.remedy)


def look(project: Project, source: dict[str, Any]) -> None:
    """Do so in this process. Raises ModelstreamError."""
    from modelstream.source.enrichment import check_enrichment, files_of
    from modelstream.stages.data_generator import end_time
    from modelstream.use_case.file import load_use_case

    use_case = load_use_case(project.use_case_file)
    for path in files_of(source.get("enrichment")):
        check_enrichment(path, use_case)
    end_time(source.get("end"))
    for name in (project.chain.source, *project.chain.consumers):
        function, notebook = project.functions[name], project.notebook(name)
        if function.kind == "serving":  # importing MLRun takes 6 s: this one is only read
            notebooks.compiled_pieces(notebook)
        elif not hasattr(notebooks.load(notebook), function.handler):
            raise ConfigurationError(f"{notebook} has no {function.handler!r}", remedy="see `handler` in project.yaml")
    _look_at_model(project, use_case)


def _look_at_model(project: Project, use_case: UseCase) -> None:
    """Look for the model that a server would begin with: none is one too, and a promoted version comes first."""
    from modelstream.model.onnx import load_model
    from modelstream.registry.registry import Registry
    from modelstream.registry.watch import ModelWatch

    registry = Registry.of_project(project, use_case)
    shipped, broken = None, None
    try:
        shipped = load_model(registry.shipped, use_case.features) if registry.shipped else None
    except ConfigurationError as error:  # which a promoted version makes good
        broken = error
    if ModelWatch(registry, shipped, lambda _what, _why: None).begin() is None and broken is not None:
        raise broken


def main() -> None:
    """Look, and print the refusal, if there is one."""
    try:
        project = with_use_case(load_project(sys.argv[1]), Path(sys.argv[2]))
        look(project, msgspec.json.decode(sys.argv[3]))
    except ModelstreamError as error:
        print(msgspec.json.encode(Refusal(str(error), error.remedy)).decode(), flush=True)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # at once: the kernels' threads take a moment


if __name__ == "__main__":
    main()
