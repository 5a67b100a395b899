"""`pipeline.py train`: what it prints at the end, and whether the new version serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelstream.commands import train
from modelstream.registry.registry import Registry
from modelstream.training.report.card import CARD_FILE
from tests.command_line import pipeline
from tests.model_files import CHURN
from tests.training.synthetic import card
from tests.training.versions import registered, version_files

FUTURE = "1,234 events are dated later than they arrived: such events don't move the end of the log"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Version 1, which serves, and version 2 that knows nothing and was just trained."""
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    made = Registry(tmp_path / "models", CHURN.model_name, CHURN.features)
    registered(made, 0.4)
    made.promote("1")
    facts = msgspec.structs.replace(card().data, future_events=1234, log_end="2026-01-02T00:00:00Z")
    trained = msgspec.structs.replace(card("2"), data=facts)
    made.register(lambda version: version_files(version, 0.0) | {CARD_FILE: trained.json()})
    results: dict[str, Any] = {"version": "2", "folder": made.place_of("2"), "seconds": 1}
    monkeypatch.setattr(train, "run_training", lambda *_: results)
    return made


def test_worse_version_is_registered_and_serves_only_if_forced(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline("train", "--promote") == 1
    told = capsys.readouterr()
    assert "Report: " in told.out and "Version 2 is worse than version 1" in told.out
    assert "models promote 2 --force" in told.err
    assert registry.current() == "1"
    assert pipeline("train", "--promote", "--force", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["version"] == "2"
    assert "churn 2 serves from now on, instead of 1" in told.err
    assert registry.current() == "2"


def test_summary_says_how_to_let_it_serve_and_tells_of_events_of_the_future(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline("train") == 0
    told = capsys.readouterr().out
    assert "To let it serve:" in told and "python pipeline.py models promote 2" in told
    assert FUTURE in told
    assert registry.current() == "1"
