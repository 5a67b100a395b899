"""One thing is named in the singular, wherever things are counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelstream.base.words import counted, things

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1000, "1,000 rows")])
def test_only_one_is_named_in_the_singular(number: int, text: str) -> None:
    assert counted(number, "row") == text
    assert things(number, "row") == text.partition(" ")[2]


def test_what_commands_print_has_no_plural_beside_a_number_that_may_be_one() -> None:
    plural = re.compile(r"(?<! of )\{[\w.]+:,\}(\[/\])? (dead letters|feature vectors|predictions|rows|events|users)\b")
    for path in (ROOT / "modelstream" / "commands").glob("*.py"):
        assert [found[0] for found in plural.finditer(path.read_text())] == [], path.name
