"""Shows drift: as a table on a terminal, and as an HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelstream.training.drift.drift import DETECTED, POSSIBLE, Distance, Drift, Verdict, told
from modelstream.training.report import document
from modelstream.training.report.card import ModelCard
from modelstream.training.report.document import Block, Document, Facts, Plot, Points, Section, moment, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

_COLOURS = {Verdict.NONE: "green", Verdict.POSSIBLE: "yellow", Verdict.DRIFT: "bold red"}
_COLUMNS = ("", "", "PSI", "total variation", "Hellinger", "Kullback-Leibler", "drift")


def table(found: Drift) -> Group:
    """Return the findings for a terminal."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for i, name in enumerate(_COLUMNS):
        made.add_column(name, justify="right" if i > 1 else "left", header_style="bold")
    for one in [*found.features, found.prediction]:
        made.add_row(one.name, Text(one.verdict, style=_COLOURS[one.verdict]), *_cells(one))
    parts: list[RenderableType] = [
        Text(" ".join(_lead(found))),
        made,
        Text(_dead_letters(found), style="" if found.dead_letters.verdict is Verdict.NONE else "red"),
        Text.assemble((found.verdict.capitalize(), _COLOURS[found.verdict]), f": {_because(found)}"),
    ]
    return Group(*parts)


def page(found: Drift, card: ModelCard) -> str:
    """Return the findings as HTML. Needs matplotlib."""
    from modelstream.training.drift.drift_plot import bins_then_and_now
    from modelstream.training.report.figures import svg

    figures: Mapping[str, Figure] = {
        "features": bins_then_and_now(found.features, card.features),
        "prediction": bins_then_and_now([found.prediction], {found.prediction.name: card.prediction}),
    }
    drawn = {name: svg(figure, f"drift: {name}") for name, figure in figures.items()}
    return _document(found).html(drawn)


def _document(found: Drift) -> Document:
    facts = [
        ("Verdict", found.verdict.capitalize(), ""),
        ("Mean of all features", f"{found.mean:.2f}", f"possible from {POSSIBLE:g}, drift from {DETECTED:g}"),
        ("Prediction", f"{found.prediction.value:.2f}", found.prediction.verdict),
        ("Dead letters", percent(found.dead_letters.now, 2), f"{percent(found.dead_letters.then, 2)} then"),
    ]
    lead: list[Block] = [*_lead(found), Facts(facts)]
    lead.append(Points(found.reasons) if found.reasons else f"{_because(found).capitalize()}.")
    rows = [(one.name, one.verdict.value, *_cells(one)) for one in [*found.features, found.prediction]]
    caption = "Share of the vectors in each bin: grey what the model was made of, blue what was served. The bins hold "
    caption += "equal shares of what the model was made of; the outermost are for values beyond all of it."
    method = "Drift is (total variation + Hellinger) / 2, as MLRun's model monitoring judges by, "
    method += f"possible from {POSSIBLE:g} and certain from {DETECTED:g} on. The population stability index is nearly "
    method += "MLRun's Kullback-Leibler divergence (both directions added); they differ where a bin is empty. A PSI "
    method += "below 0.1 is usually taken for none, above 0.25 for much. Dead letters: one more in a hundred rows than "
    method += "then is possible drift, five more are drift."
    sections = [
        Section("Distances", [document.Table(_COLUMNS, rows, left=2)]),
        Section("Features", [Plot("features", caption)]),
        Section("Prediction", [Plot("prediction", "The same of the probability, in bins of equal width.")]),
        Section("How it is measured", [method]),
    ]
    return Document(f"Drift: {found.model}, version {found.version}", lead, sections)


def _lead(found: Drift) -> list[str]:
    since = f"since {moment(found.since)}, " if found.since else ""
    text = f"{found.vectors:,} vectors that version {found.version} of {found.model} was asked about, {since}"
    text += f"{moment(found.first or '')} to {moment(found.last or '')}, against those that it was made of."
    lead = [text]
    if found.other_versions:
        lead.append(f"Left out: {told(found.other_versions)}.")
    if found.few:
        lead.append("These are few: distances are large by chance.")
    return lead


def _because(found: Drift) -> str:
    return "; ".join(found.reasons) if found.reasons else f"every distance is below {POSSIBLE:g}"


def _dead_letters(found: Drift) -> str:
    dead = found.dead_letters
    text = f"dead letters: {dead.letters:,} of {dead.rows:,} rows, {percent(dead.now, 2)}"
    return f"{text} (in the data of the card {percent(dead.then, 2)})"


def _cells(one: Distance) -> list[str]:
    values = (one.psi, one.total_variation, one.hellinger, one.kullback_leibler, one.value)
    return [f"{value:.3f}" for value in values]
