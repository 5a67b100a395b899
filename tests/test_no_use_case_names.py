"""The library knows no business case: no name that a use-case file declares stands in it.

`end_to_end/test_new_use_case.py` runs another use case to the end, and searches all that this prints and writes.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError
from modelstream.project import load_project
from modelstream.registry.registry import Registry
from modelstream.registry.shipped import with_own_model
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case
from modelstream.use_case.lookups import lookup_tables

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(ROOT.glob("use_cases/*.yaml"))
EVERYDAY = {"name", "label", "city", "country", "enrichment"}
"""Words that say something else too (the enrichment table is the pipeline's)."""


def names_of(use_case: UseCase) -> set[str]:
    """Return every name that stands in a use-case file."""
    names = {use_case.name, use_case.model_name, use_case.prediction, use_case.probability}
    names |= {*use_case.fields, *use_case.event_codes, *use_case.features}
    if use_case.profile:
        names.add(use_case.profile.time)
    names |= {*lookup_tables(use_case), *use_case.groups, *use_case.profile_lookups, *use_case.event_lookups}
    return names - EVERYDAY


def pattern(names: set[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z])({'|'.join(map(re.escape, sorted(names)))})s?(?![A-Za-z])", re.IGNORECASE)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_name_of_a_use_case_stands_in_the_library(path: Path) -> None:
    names = names_of(load_use_case(path))
    assert len(names) > 20
    word = pattern(names)
    found = [
        f"{module.relative_to(ROOT)}:{number}: {hit[0]}"
        for module in sorted((ROOT / "modelstream").rglob("*.py"))
        for number, line in enumerate(module.read_text("utf-8").splitlines(), 1)
        for hit in word.finditer(line)
    ]
    assert not found, "\n".join(found)


def test_what_the_functions_of_another_use_case_are_given_names_nothing_of_the_shipped_one(tmp_path: Path) -> None:
    """It is what `project_setup.py` and `deploy` hand over: the environment, the graph, and names of steps."""
    (tmp_path / "use_cases").mkdir()
    shutil.copytree(ROOT / "assets" / "models", tmp_path / "assets" / "models")
    shutil.copy(ROOT / "tests" / "use_cases" / "boilers.yaml", tmp_path / "use_cases")
    text = (ROOT / "project.yaml").read_text().replace("use_cases/churn.yaml", "use_cases/boilers.yaml")
    (tmp_path / "project.yaml").write_text(text)
    project = with_own_model(load_project(tmp_path / "project.yaml"))
    assert project.params.model == ""
    given = [repr(project.settings(name).environment()) for name in project.functions]
    given += [project.serving_spec(project.server), repr(project.chain), repr([*project.functions])]
    found = [hit[0] for text in given for hit in pattern(names_of(load_use_case(SHIPPED[0]))).finditer(text)]
    assert not found


def test_model_of_the_use_case_itself_stays_with_its_project() -> None:
    project = load_project(ROOT / "project.yaml")
    assert with_own_model(project) is project


def test_a_model_of_the_same_name_with_other_features_is_not_left_aside_but_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "use_cases").mkdir()
    shutil.copytree(ROOT / "assets" / "models", tmp_path / "assets" / "models")
    use_case = (ROOT / "use_cases" / "churn.yaml").read_text().replace("[sum, mean, count, var]", "[sum, mean]")
    (tmp_path / "use_cases" / "churn.yaml").write_text(use_case)
    shutil.copy(ROOT / "project.yaml", tmp_path)
    project = load_project(tmp_path / "project.yaml")
    assert with_own_model(project) is project
    registry = Registry.of_project(project, load_use_case(project.use_case_file))
    with pytest.raises(
        ConfigurationError, match="it wants purchase_count, purchase_var, bet_count, bet_var and 2"
    ) as told:
        registry.load("1")
    assert "give the model another `name` in the use case" in told.value.remedy
    renamed = use_case.replace("  name: churn\n", "  name: churn-2\n")
    (tmp_path / "use_cases" / "churn.yaml").write_text(renamed)
    assert with_own_model(project).params.model == "", "the remedy helps"
