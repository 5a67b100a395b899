"""What is printed fits the terminal, and says what matters."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from modelstream.commands import output
from modelstream.commands.explain import print_explanation
from modelstream.commands.view import View
from modelstream.replay.explain import explain
from tests.commands.small import again, small_folder
from tests.runner.folders import PROJECT, SHARDS


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with small_folder(tmp_path / "data") as view:
        yield view


def test_a_table_shows_only_the_columns_that_fit() -> None:
    rows = [{"name": "x" * 200, "n": 1, "hidden": "y" * 50, "void": None}]
    shown = printed(output.fitting_table(rows, 60, "title"), 60)
    assert shown[0] == "title  (more columns: hidden)"
    assert "name" in shown[2] and " n " in shown[2] and "void" not in " ".join(shown)


def test_long_names_are_broken_only_where_that_makes_room() -> None:
    row = {"user": "u" * 20, "mean_of_the_last_values": 1.5, "sum_of_them": 2}
    wide, narrow = (printed(output.fitting_table([row], width), width) for width in (80, 48))
    assert "mean_of_the_last_values" in wide[1]
    assert [
        text for text in ("mean_of_", "the_", "last_", "values", "sum_of_", "them") if text not in str(narrow)
    ] == []
    assert max(map(len, narrow)) <= 48 and "more columns" not in str(narrow)


def printed(what: object, width: int) -> list[str]:
    """Return what a terminal of this width shows, line by line."""
    console = Console(width=width, file=io.StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_explain_prints_what_matters(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(explain(again(view), PROJECT, SHARDS, "anna", 5), view.use_case, view.names.features)
    shown = capsys.readouterr().out
    for text in ("8 events, 4 counted", "1 window_closed", "1 (0.750)", "33.5", "socioeconomic_idx"):
        assert text in shown
