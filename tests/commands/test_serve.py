"""`pipeline.py serve` tells what was saved when it ends."""

from __future__ import annotations

from pathlib import Path

from modelstream.commands.serve import summary
from modelstream.http.service import Saved, SavedFunction


def test_what_was_saved_is_told_for_each_function() -> None:
    function = SavedFunction("event-handler", "generated", 1200, 1100, {0: 5, 1: -1}, 2)
    text = summary(Saved(1200, True, (function,)), Path("data"))
    assert "the work in progress is saved in data. 1,200 events" in text
    assert "1,200 rows in" in text
    assert "2 rows waiting in generated" in text
    assert "warning: 9 of 9 lookups" in summary(Saved(9, True, (), ("9 of 9 lookups",)), Path("data"))
    assert "repeated" in summary(Saved(0, False, ()), Path("data"))
