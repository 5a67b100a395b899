"""What would refuse a run is found before a fresh start deletes anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.project import Project
from modelstream.registry.registry import Registry
from modelstream.runner import preflight
from tests.model_files import CHURN, directory
from tests.runner.folders import PROJECT, ROOT

START, END = "# mlrun: start-code\n", "# mlrun: end-code\n"


def with_notebook(folder: Path, function: str, code: str) -> Project:
    """Return the project with a function whose notebook has this code."""
    path = folder / f"{function}.ipynb"
    cell: dict[str, Any] = {
        "cell_type": "code",
        "source": START + code + END,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    changed = msgspec.structs.replace(PROJECT.functions[function], url=str(path))
    return msgspec.structs.replace(PROJECT, functions={**PROJECT.functions, function: changed})


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        ("event-handler", "undefined_name\n", "cell 1, line 2: NameError"),
        ("event-handler", "def handler(:\n    pass\n", "cell 1, line 2: invalid syntax"),
        ("event-handler", "def init_context(context):\n    pass\n", "has no 'handler'"),
        ("stream-to-features", "import no_such_library\n", "No module named 'no_such_library'"),
        ("data-generator", "def start(context):\n    pass\n", "has no 'main'"),
        ("model-server", "class ChurnModel(:\n    pass\n", "cell 1, line 2: invalid syntax"),
        ("model-server", "", "no code between"),
    ],
)
def test_wrong_notebook_is_told(tmp_path: Path, function: str, code: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        preflight.look(with_notebook(tmp_path, function, code), {})


def test_missing_notebook_and_model_are_told(tmp_path: Path) -> None:
    gone = msgspec.structs.replace(PROJECT.functions["event-handler"], url="functions/none.ipynb")
    functions = {**PROJECT.functions, "event-handler": gone}
    with pytest.raises(ConfigurationError, match=r"none.ipynb: No such file"):
        preflight.look(msgspec.structs.replace(PROJECT, functions=functions), {})
    params = msgspec.structs.replace(PROJECT.params, model=str(tmp_path / "no-model"))
    with pytest.raises(ModelstreamError, match="no-model"):
        preflight.look(msgspec.structs.replace(PROJECT, params=params), {})


def test_broken_registry_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "current.json").write_text("{")
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"current.json is broken"):
        preflight.look(PROJECT, {})


def test_model_of_another_use_case_and_no_model_are_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path))
    for model in (PROJECT.params.model, ""):
        params = msgspec.structs.replace(PROJECT.params, use_case="tests/use_cases/boilers.yaml", model=model)
        preflight.look(msgspec.structs.replace(PROJECT, params=params), {})


def test_promoted_version_serves_in_place_of_a_model_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path))
    registry = Registry(tmp_path, "churn", CHURN.features)
    registry.promote(registry.register(directory))
    params = msgspec.structs.replace(PROJECT.params, model=str(tmp_path / "no-model"))
    preflight.look(msgspec.structs.replace(PROJECT, params=params), {})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"end": "tomorrow"}, "the end 'tomorrow' is not a time"),
        ({"enrichment": "/none.csv"}, "the enrichment file /none.csv can't be read"),
        ({"input": "x", "enrichment": str(ROOT / "project.yaml")}, "line 1: the columns are"),
    ],
)
def test_wrong_option_of_the_source_is_told(source: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        preflight.look(PROJECT, source)


def test_what_runs_is_not_refused_and_a_refusal_comes_from_the_other_process() -> None:
    preflight.check(
        PROJECT, {"end": "2026-11-20 12:00", "enrichment": str(ROOT / "tests" / "golden" / "enrichment.csv")}
    )
    with pytest.raises(ConfigurationError, match="is not a time; nothing was deleted") as told:
        preflight.check(PROJECT, {"end": "tomorrow"})
    assert "write it like" in told.value.remedy
