"""How commands end: with an exit status, and with words instead of a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstream.base import command_line
from modelstream.commands.endings import errors_in_words
from modelstream.commands.view import View
from modelstream.errors import ConfigurationError
from tests.command_line import pipeline
from tests.commands.small import small_folder
from tests.runner.folders import PROJECT


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with small_folder(tmp_path / "data") as view:
        yield view


def test_commands_tell_errors_and_exit_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline("status", "--json", "--data", tmp_path / "nowhere") == 1
    assert "is not the data folder" in capsys.readouterr().err


def test_commands_print_json(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline("status", "--json", "--data", view.path) == 0
    assert json.loads(capsys.readouterr().out)["logs"]["events"]["rows"] == 13
    assert pipeline("explain", "anna", "--last", 1, "--json", "--data", view.path) == 0
    assert json.loads(capsys.readouterr().out)["last_events"][0]["counted"] == "window_closed"
    assert pipeline("replay", "--json", "--data", view.path) == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not the data folder of a pipeline"):
        View(tmp_path, PROJECT)
    assert list(tmp_path.iterdir()) == []


def test_hints_name_the_folder_that_the_command_was_given(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    option = f"--data {view.path}"
    assert pipeline("table", "features", "--key", "nobody", "--data", view.path) == 1
    assert f"pipeline.py explain nobody {option}`" in capsys.readouterr().err
    assert pipeline("replay", "--data", view.path.parent / "no folder") == 1
    assert f"pipeline.py run --data '{view.path.parent / 'no folder'}'` first" in capsys.readouterr().err
    assert pipeline("explain", "nobody", "--data", "data") == 1
    assert "--data data" not in capsys.readouterr().err


def test_an_unknown_user_is_an_error(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline("explain", "nobody", "--data", view.path) == 1
    assert "the log has no event with user_id 'nobody'" in capsys.readouterr().err


def test_missing_package_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_in_words():
        import no_such_package  # type: ignore[import-not-found] # noqa: F401
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: No module named 'no_such_package'\n→ make the environment anew: rm -rf .venv; make env\n"
    )


def test_error_says_command_lines_as_they_are_typed_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), errors_in_words():
        raise ConfigurationError("`python pipeline.py a`", remedy="`python pipeline.py b`")
    assert capsys.readouterr().err == f"error: `{command_line.pipeline('a')}`\n→ `{command_line.pipeline('b')}`\n"
