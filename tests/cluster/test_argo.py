"""The compiled workflow, as Argo judges it: by its linter where that is installed, and by its own description.

Hera's models are made from the API description in Argo's repository. They leave out what they don't know, so whatever
is missing when they write a workflow again is something that Argo doesn't know either.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from hera.workflows import models

from modelstream.cluster.compiler import Compiler
from tests.cluster.deploying import KINDS, ROOT, loaded

pytestmark = pytest.mark.xdist_group("mlrun")


def unknown(workflow: dict[str, Any]) -> list[str]:
    """Return what Argo doesn't know in a workflow. Raises ValidationError for values of other types than Argo's."""
    read = models.Workflow.model_validate(workflow)
    return [*_missing(workflow, read.model_dump(by_alias=True, exclude_none=True, mode="json"), "")]


def _missing(given: Any, kept: Any, place: str) -> Iterator[str]:
    if isinstance(given, dict):
        for name, value in given.items():
            if name in kept:
                yield from _missing(value, kept[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}"
    elif isinstance(given, list):
        for number, (value, other) in enumerate(zip(given, kept, strict=True)):
            yield from _missing(value, other, f"{place}[{number}]")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kind", KINDS)
def test_workflow_is_one_that_argo_takes(kind: str, written: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    with Compiler(ROOT, str(file)) as process:
        loaded(written, kind).compile(process)
    workflow = yaml.safe_load(file.read_text())
    assert unknown(workflow) == []
    assert len(workflow["spec"]["templates"]) > 5

    wrong = copy.deepcopy(workflow)
    wrong["spec"]["templates"][0]["retrys"] = 3
    assert unknown(wrong) == [".spec.templates[0].retrys"]
    wrong["spec"]["entrypoint"] = ["a list"]
    with pytest.raises(pydantic.ValidationError, match="entrypoint"):
        unknown(wrong)

    if linter := shutil.which("argo"):
        done = subprocess.run([linter, "lint", "--offline", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
