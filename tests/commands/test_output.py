"""What is printed fits the terminal, and says what matters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
    made = output.fitting_table([{"name": "x" * 200, "n": 1, "hidden": "y" * 50, "void": None}], width=60)
    assert [column.header for column in made.columns] == ["name", "n"]
    assert "more columns: hidden" in str(made.title)


def test_explain_prints_what_matters(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(explain(again(view), PROJECT, SHARDS, "anna", 5), view.use_case, view.names.features)
    shown = capsys.readouterr().out
    for text in ("8 events, 4 counted", "1 window_closed", "1 (0.750)", "33.5", "socioeconomic_idx"):
        assert text in shown
