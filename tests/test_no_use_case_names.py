"""The library knows no business case: no name that a use-case file declares stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case

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
    if use_case.lookup:
        names |= {use_case.lookup.table, use_case.lookup.value}
    return names - EVERYDAY


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_name_of_a_use_case_stands_in_the_library(path: Path) -> None:
    names = names_of(load_use_case(path))
    assert len(names) > 20
    word = re.compile(rf"(?<![A-Za-z])({'|'.join(map(re.escape, sorted(names)))})s?(?![A-Za-z])", re.IGNORECASE)
    found = [
        f"{module.relative_to(ROOT)}:{number}: {hit[0]}"
        for module in sorted((ROOT / "modelstream").rglob("*.py"))
        for number, line in enumerate(module.read_text("utf-8").splitlines(), 1)
        for hit in word.finditer(line)
    ]
    assert not found, "\n".join(found)
