"""When most lookups find nothing, people are told, with the likely cause and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelstream.commands.status import print_status, status_of
from modelstream.replay.misses import lookup_warnings
from tests.runner.folders import load_table, make_folder

Keys = list[str | int | None]


def told(path: Path, asked: Keys, enrichment: dict[str, float], loaded_later: dict[str, float] | None = None) -> str:
    """Return what `status` warns of in a folder whose users registered with these keys."""
    events = [{"user_id": str(n), "event_type": "registration", "postcode": key} for n, key in enumerate(asked)]
    lines = [json.dumps(event | {"event_time": "2026-11-16 10:00:00"}).encode() for event in events]
    with make_folder(path, lines, enrichment) as view:
        if loaded_later:
            load_table(view, loaded_later)
        found = status_of(view)
        assert found.warnings == lookup_warnings(view, found.lookups, found.lookup_misses)
    assert found.lookups == len(asked)
    return " ".join(found.warnings)


@pytest.mark.parametrize(
    ("asked", "table", "said"),
    [
        ([10000, 10001], {}, ["2 of 2 lookups in the table enrichment found nothing", "default, 0", "is empty"]),
        ([None, " "], {"1": 1.0}, ["events that register a user have no postcode"]),
        ([7, 8, 9], {"7": 1.0, "A 1": 2.0}, ["2 of 3", "postcode '8' was looked up, and the table has '7'"]),
        (["02139", "5"], {"2139": 1.0}, ["'02139' was looked up, and the table has '2139'", "their leading zeros"]),
        ([2139, 501, 6], {"02139": 1.0, "00501": 2.0}, ["of 3 such keys it has 2 with leading zeros", "as text"]),
    ],
)
def test_most_lookups_that_miss_are_told_with_the_cause(
    tmp_path: Path, asked: Keys, table: dict[str, float], said: list[str]
) -> None:
    warning = told(tmp_path / "data", asked, table)
    assert [text for text in said if text not in warning] == []
    assert " → " in warning


def test_table_that_was_loaded_after_the_lookups_is_told(tmp_path: Path) -> None:
    assert "loaded after these users had registered" in told(tmp_path / "data", [1, 2], {}, {"1": 1.0, "2": 1.0})


@pytest.mark.parametrize("asked", [[7, 8], [" 7", "7 ", "\t7"], []])
def test_nothing_is_told_when_half_are_found_or_only_blanks_differ(tmp_path: Path, asked: Keys) -> None:
    assert told(tmp_path / "data", asked, {"7": 1.0}) == ""


def test_a_warning_is_printed_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with make_folder(tmp_path / "data", [], {}) as view:
        found = status_of(view)
        found.warnings.append("too few [x] → more")
        print_status(found, view.use_case)
    assert capsys.readouterr().out.endswith("warning: too few [x]\n→ more\n")
