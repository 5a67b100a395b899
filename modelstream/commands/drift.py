"""`pipeline.py drift`: compare what was served with what the model was made of."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from modelstream.base.times import time_given
from modelstream.commands.output import console
from modelstream.commands.view import View
from modelstream.errors import ConfigurationError
from modelstream.registry import registry as registries
from modelstream.training.drift import drift as drifts
from modelstream.training.drift.drift import Verdict
from modelstream.training.report import card as cards
from modelstream.training.report.card import CARD_FILE, NO_CARD, ModelCard

MOST_BYTES = 16 << 20
"""Of a card: 13 features make 0.05 MB."""


def drift(view: View, *, since: str | None, version: str | None, as_json: bool, output: Path | None) -> int:
    """Print the findings, and write them as a page if there is an `output`; return the exit status, 1 for drift."""
    start = None if since is None else time_given(since, "--since")
    card = _card(view, version)
    found = drifts.drift(card, view, start)
    if output is not None:
        _write(output, found, card)
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        from modelstream.training.drift import drift_page

        console().print(drift_page.table(found))
    return 1 if found.verdict is Verdict.DRIFT else 0


def _card(view: View, version: str | None) -> ModelCard:
    """Return the card of a version, or of the one that serves."""
    registry = registries.of_project(view.project, view.use_case)
    version = version or registry.current() or registry.shipped_version()
    place = registry.place_of(version)
    try:
        content = registry.read(version, CARD_FILE, MOST_BYTES)
    except ConfigurationError as error:
        raise ConfigurationError(str(error), remedy=NO_CARD) from error
    return cards.parse(content, f"{place}/{CARD_FILE}")


def _write(output: Path, found: drifts.Drift, card: ModelCard) -> None:
    from modelstream.training.drift import drift_page

    page = drift_page.page(found, card)
    try:
        output.write_text(page, "utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{output} can't be written: {error.strerror or error}", remedy="give another --output"
        ) from error
    print(f"page: {output}", file=sys.stderr)
