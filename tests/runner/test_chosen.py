"""A use case that was chosen for a data folder is the one of every command that works on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError
from modelstream.project import load_project
from modelstream.runner.chosen import project_for, with_use_case
from modelstream.runner.data_folder import read_marker
from tests.runner.folders import PROJECT, ROOT
from tests.runner.test_data_folder import opened

CARDS = ROOT / "tests" / "use_cases" / "cards.yaml"


def test_without_a_choice_it_is_that_of_the_project(tmp_path: Path) -> None:
    assert project_for() == load_project()
    opened(tmp_path / "data")
    marker = read_marker(tmp_path / "data")
    assert marker is not None and marker.use_case_file == ""
    assert project_for(tmp_path / "data").use_case_file == PROJECT.use_case_file
    assert with_use_case(PROJECT, ROOT / "use_cases" / ".." / "use_cases" / "churn.yaml") is PROJECT


def test_a_folder_remembers_the_one_that_was_chosen_for_it(tmp_path: Path) -> None:
    chosen = project_for(tmp_path / "data", CARDS)
    assert chosen.use_case_file == CARDS
    assert {"incomes", "terminals", *PROJECT.params.tables} == {*chosen.params.tables}
    opened(tmp_path / "data", project=chosen)
    assert project_for(tmp_path / "data") == chosen
    assert opened(tmp_path / "data", project=project_for(tmp_path / "data")).use_case == "cards"
    with pytest.raises(ConfigurationError, match="holds data of the use case 'cards', not 'churn'"):
        opened(tmp_path / "data", project=PROJECT)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml can't be read"):
        project_for(use_case=tmp_path / "none.yaml")
