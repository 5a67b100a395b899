"""A small data folder in which every kind of event has happened: users anna, 7 and bert."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from modelstream.commands.view import View
from tests.runner.folders import PROJECT, make_folder

TIMES = (f"2026-11-16 {hour:02d}:{minute:02d}:00" for hour in range(24) for minute in range(60))


def event(user: object, kind: str, **fields: Any) -> bytes:
    return json.dumps({"user_id": user, "event_type": kind, "event_time": next(TIMES), **fields}).encode()


LINES = [
    event("anna", "bet", bet_amount=1),  # unregistered
    event("anna", "registration", postcode=20000, label=1),
    event("anna", "bet", bet_amount=2),  # the window is not open
    event("anna", "new_purchase", amount=50),
    event("anna", "bet", bet_amount=3),
    event("anna", "login"),  # unknown
    event("anna", "bet", bet_amount=30.5),
    json.dumps({"user_id": "anna", "event_type": "bet", "event_time": "2026-12-01 00:00:00", "bet_amount": 4}).encode(),
    event(7, "registration", postcode="10001", name="Otto"),
    event(7, "purchase", amount=1e308),
    event(7, "win", win_amount=1e308),
    event(7, "win", win_amount=1e308),
    b'{"user_id": "anna", "event_type": ',
    event("bert", "registration"),
]
ENRICHMENT = {"20000": 2.5, "10001": 4.0}


@functools.cache
def _made() -> tempfile.TemporaryDirectory[str]:
    """Make the folder once a process; it goes when the process ends."""
    made = tempfile.TemporaryDirectory()
    with make_folder(Path(made.name) / "data", LINES, ENRICHMENT):
        return made


def small_folder(path: Path) -> View:
    """Return a copy of the folder, opened."""
    shutil.copytree(Path(_made().name) / "data", path)
    return View(path, PROJECT)


def again(view: View) -> View:
    """Return the folder as another process sees it: nothing is in memory."""
    return View(view.path, PROJECT)
