"""`pipeline.py models`: what it prints, and that a mistake is told in words."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest

from modelstream.project import load_project
from modelstream.registry.registry import Registry
from modelstream.training.judge.held_out import HELD_OUT_FILE
from modelstream.use_case.file import load_use_case
from tests.command_line import pipeline
from tests.model_files import CHURN, ROOT, SHIPPED, constant_model, directory, folder_of
from tests.training.versions import registered, version_files

PROJECT = load_project(ROOT / "project.yaml")
BOILERS = ROOT / "tests" / "use_cases" / "boilers.yaml"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    made = Registry(tmp_path / "models", CHURN.model_name, CHURN.features, shipped=SHIPPED)
    for _ in range(2):
        made.register(directory)
    return made


def models(*arguments: str) -> int:
    return pipeline("models", *arguments)


def test_list_shows_every_version_and_which_serves(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    registry.promote("3")
    (folder_of(registry) / "2" / "model_spec.yaml").write_text("{")
    assert models("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert ["serves" in line for line in lines[1:4]] == [False, False, True]
    assert "with the project" in lines[1]
    assert "Constant" in lines[3]
    assert "can't be read" in "".join(lines[4:])
    assert models("list", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["version"], one["current"], one["shipped"]) for one in found] == [
        ("1", False, True),
        ("2", False, False),
        ("3", True, False),
    ]


def test_show_tells_of_a_version_and_prints_its_card(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("show", "2") == 0
    shown = capsys.readouterr().out
    assert "# A card" in shown
    assert str(folder_of(registry) / "2") in shown
    assert registry.load("2").spec.sha256 in shown
    assert models("show", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["current"], found["features"]) == ("1", True, list(CHURN.features))


def test_promote_and_rollback_tell_what_serves(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("promote", "3") == 0
    assert "churn 3 serves from now on, instead of 1" in capsys.readouterr().out
    assert models("rollback") == 0
    assert "churn 1 serves again, instead of 3" in capsys.readouterr().out
    assert registry.current() is None


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Versions 1 and 2 that know something, of which 2 serves, and 3 and 4 that know nothing; 4 was never tested."""
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    made = Registry(tmp_path / "models", CHURN.model_name, CHURN.features)
    for skill in (0.4, 0.5, 0.0):
        registered(made, skill)
    made.register(lambda version: {**version_files(version, 0.0, None), HELD_OUT_FILE: b"broken"})
    made.promote("2")
    return made


def test_worse_version_is_not_promoted_unless_forced(judged: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("promote", "3") == 1
    told = capsys.readouterr()
    assert "version 2, serves" in told.out and "log loss" in told.out
    assert "Version 3 is worse than version 2: its log loss is 0." in told.out
    assert "version 3 is not promoted" in told.err and "models promote 3 --force" in told.err
    assert judged.current() == "2"
    assert models("promote", "4") == 1
    assert "version 4 can't be compared with version 2, which serves" in capsys.readouterr().err
    assert models("promote", "3", "--force") == 0
    assert "churn 3 serves from now on, instead of 2" in capsys.readouterr().out
    assert models("promote", "2") == 0
    assert "Version 2 is better than version 3" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "status", "serves"), [("y", 0, "3"), ("n", 1, "2"), ("", 1, "2")])
def test_on_a_terminal_it_asks_whether_a_worse_version_is_to_serve(
    judged: Registry, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, serves: str
) -> None:
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert models("promote", "3") == status
    assert judged.current() == serves


@pytest.mark.parametrize(
    ("action", "version", "expected"),
    [
        ("show", ["9"], "has no version 9"),
        ("promote", ["9"], "has no version 9"),
        ("promote", ["../1"], "'../1' is not a version"),
        ("promote", ["latest"], "'latest' is not a version"),
        ("rollback", [], "no version served before"),
    ],
)
def test_mistake_is_told_with_what_to_do(
    registry: Registry, capsys: pytest.CaptureFixture[str], action: str, version: list[str], expected: str
) -> None:
    assert models(action, *version) == 1
    said = capsys.readouterr().err
    assert expected in said
    assert "models list" in said


def test_another_model_has_versions_of_its_own(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("list", "--name", "other") == 0
    assert "no version" in capsys.readouterr().out


@pytest.fixture
def other_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A project for boilers that still names the model of another use case; nothing is registered."""
    project = msgspec.structs.replace(PROJECT.params, use_case=str(BOILERS))
    monkeypatch.setattr("modelstream.project.load_project", lambda: msgspec.structs.replace(PROJECT, params=project))
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    use_case = load_use_case(BOILERS)
    return Registry(tmp_path / "models", use_case.model_name, use_case.features)


def test_without_any_model_each_command_says_so_and_what_to_do(
    other_case: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models("list") == 0
    said = capsys.readouterr().out
    assert "repairs: no model yet →" in said and "python pipeline.py train --promote" in said
    assert "is not used: it is the model churn, for other features than repairs" in said
    assert models("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    for command, expected in (
        (("show", "1"), "has no version 1"),
        (("promote", "1"), "has no version 1"),
        (("rollback",), "no version served before"),
    ):
        assert models(*command) == 1
        assert expected in capsys.readouterr().err


def test_registered_versions_of_which_none_serves_yet_are_told_as_that(
    other_case: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    def files(version: str) -> dict[str, bytes]:
        model = constant_model(0.5, len(other_case.features))
        return directory(
            version, model, features=other_case.features, change=lambda data: data["metadata"].update(key="repairs")
        )

    assert other_case.register(files) == "1"
    assert models("list") == 0
    told = capsys.readouterr().out
    assert "None of them serves yet →" in told and "python pipeline.py models promote VERSION" in told
    assert models("promote", "1") == 0
    assert capsys.readouterr().out.startswith("repairs 1 serves from now on. ")
