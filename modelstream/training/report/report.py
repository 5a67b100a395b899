"""The report: a model's card with its plots as one HTML page, which loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelstream.training.report import plots
from modelstream.training.report.card import ModelCard
from modelstream.training.report.card_text import document
from modelstream.training.report.document import Plot
from modelstream.training.report.figures import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_FILE = "report.html"


def html(card: ModelCard, more: Mapping[str, Figure] | None = None) -> str:
    """Return the page as HTML, some 0.5 MB; `more` are further plots by caption (of the data, say).

    The same card gives the same page. Needs matplotlib.
    """
    more = more or {}
    drawn = {name: svg(make(), f"{card.name}: {name}") for name, make in plots.of_card(card).items()}
    places = [Plot(f"more-{i}", caption) for i, caption in enumerate(more)]
    drawn |= {place.name: svg(figure, place.caption) for place, figure in zip(places, more.values(), strict=True)}
    return document(card, places).html(drawn)
