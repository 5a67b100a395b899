"""`check` tells every mistake of a use-case file at once, and what becomes of a sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import command_line
from tests.runner.folders import ROOT

Look = Callable[..., tuple[int, str, str]]

CARDS = ROOT / "tests" / "use_cases" / "cards.yaml"
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def pipeline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Look:
    """Return what runs the command line: to its exit status, and what it printed."""
    monkeypatch.setenv("COLUMNS", "300")

    def look(*arguments: str) -> tuple[int, str, str]:
        status = command_line.pipeline(*arguments)
        return status, *capsys.readouterr()

    return look


def test_a_file_without_mistakes_is_described(pipeline: Look) -> None:
    status, said, _ = pipeline("check", str(CARDS))
    assert status == 0
    assert "cards.yaml: no mistake." in said and "54 features, after each counted payment" in said
    assert "looked up: incomes, terminals" in said and "bytes a user" in said


def test_without_a_file_the_projects_own_is_checked(pipeline: Look) -> None:
    status, said, _ = pipeline("check")
    assert (status, said.splitlines()[0]) == (0, "use_cases/churn.yaml: no mistake.")


def test_every_mistake_is_told_at_once(tmp_path: Path, pipeline: Look) -> None:
    text = CARDS.read_text().replace("{number: amount}", "{number: amout}").replace("steps: 12", "steps: 0")
    (tmp_path / "cards.yaml").write_text(text)
    (tmp_path / "merchants.csv").write_bytes((CARDS.parent / "merchants.csv").read_bytes())
    status, _, said = pipeline("check", str(tmp_path / "cards.yaml"))
    assert status == 1
    assert said.count("error:") == 2 and "2 mistakes." in said
    assert "features.amount.number: no field 'amout'" in said and "did you mean 'amount'?" in said
    status, answered, _ = pipeline("check", str(tmp_path / "cards.yaml"), "--json")
    assert status == 1
    assert [one["mistake"].split(": ")[1] for one in json.loads(answered)["mistakes"]] == [
        "no field 'amout'",
        "0 is not in 1 to 64",
    ]


def test_a_row_that_is_too_large_is_refused_with_its_largest_parts(tmp_path: Path, pipeline: Look) -> None:
    large = "{last: 2h, steps: 60}, {last: 48h, steps: 48}, {last: 24h, steps: 24}"
    (tmp_path / "cards.yaml").write_text(CARDS.read_text().replace("{last: 24h, steps: 24}", large, 1))
    (tmp_path / "merchants.csv").write_bytes((CARDS.parent / "merchants.csv").read_bytes())
    status, _, said = pipeline("check", str(tmp_path / "cards.yaml"))
    assert status == 1
    assert "bytes for each user; 8,192 are possible. The largest parts: spend " in said and "fewer steps" in said


def test_a_file_that_is_not_there_is_told(tmp_path: Path, pipeline: Look) -> None:
    status, _, said = pipeline("check", str(tmp_path / "none.yaml"))
    assert status == 1 and "none.yaml can't be read: No such file" in said and "Traceback" not in said


def test_what_becomes_of_a_sample_is_told(pipeline: Look) -> None:
    status, said, _ = pipeline("check", "--sample", str(GOLDEN / "edge_events.ndjson"))
    assert status == 0
    assert "4,000 events of 18 users: bet 2,585" in said and "124 × unknown_type: " in said
    status, answered, _ = pipeline("check", "--sample", str(GOLDEN / "edge_events.ndjson"), "--json")
    assert json.loads(answered)["sample"]["vectors"] == 1127


@pytest.mark.parametrize("content", ['{"user_id": "u1", "event_type": "hello", "event_time": "2026-01-01"}\n', "{}\n"])
def test_a_sample_of_which_nothing_counts_is_a_failure(tmp_path: Path, pipeline: Look, content: str) -> None:
    (tmp_path / "lines").write_text(content)
    status, said, _ = pipeline("check", "--sample", str(tmp_path / "lines"))
    assert status == 1 and "No event counts: compare `key`, `time`, `type`" in said
