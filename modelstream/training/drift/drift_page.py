"""Shows drift: as a table on a terminal, and as an HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelstream.base.command_line import pipeline
from modelstream.training.drift.drift import (
    DETECTED,
    FEW,
    FEW_USERS,
    LETTERS_DETECTED,
    LETTERS_POSSIBLE,
    NO_MODEL,
    POSSIBLE,
    Distance,
    Drift,
    Verdict,
    told,
)
from modelstream.training.report import document
from modelstream.training.report.card import ModelCard
from modelstream.training.report.document import Block, Document, Facts, Plot, Points, Section, moment, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

_COLOURS = {Verdict.NONE: "green", Verdict.FEW: "dim", Verdict.POSSIBLE: "yellow", Verdict.DRIFT: "bold red"}
_BOUNDS = {
    Verdict.NONE: f"below {POSSIBLE:g}",
    Verdict.POSSIBLE: f"from {POSSIBLE:g}",
    Verdict.DRIFT: f"from {DETECTED:g}",
    Verdict.FEW: f"fewer than {FEW:,} vectors or {FEW_USERS} users",
}
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
        Text.assemble(
            _dead_letters(found), ": ", (found.dead_letters.verdict.value, _COLOURS[found.dead_letters.verdict])
        ),
        _legend(),
        Text.assemble((found.verdict.capitalize(), _COLOURS[found.verdict]), f": {_because(found)}"),
    ]
    return Group(*parts)


def nothing_served(found: Drift) -> Group:
    """Return what to do where the version has served nothing yet, for a terminal."""
    todo = f"Send new events through the pipeline: {pipeline('run')}, or serve."
    if versions := [version for version in found.other_versions if version != NO_MODEL]:
        todo += f" Or look at another version: {pipeline('drift --model', versions[0])}"
    return Group(*_lead(found), Text.assemble(("→ ", "bold"), todo))


def _legend() -> Text:
    """Return what the colours mean."""
    parts = [part for one in _COLOURS for part in ((one.value, _COLOURS[one]), f" ({_BOUNDS[one]})", ", ")]
    return Text.assemble("Colours, by the last column: ", *parts[:-1])


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
    judged = [(one.value, _BOUNDS[one]) for one in _COLOURS]
    more = f"Dead letters: {percent(LETTERS_POSSIBLE)} more of the rows than then is possible drift, "
    more += (
        f"{percent(LETTERS_DETECTED)} more is drift; fewer than {FEW:,} rows are too few to tell. The verdict on the "
    )
    more += "whole is the worst of all."
    method = "Drift is (total variation + Hellinger) / 2, as MLRun's model monitoring judges by, "
    method += f"possible from {POSSIBLE:g} and certain from {DETECTED:g} on. The population stability index is nearly "
    method += (
        "MLRun's Kullback-Leibler divergence (both directions added); they differ where a bin is empty. No verdict "
    )
    method += "follows from it: its usual bounds (0.1 and 0.25) are for rows that don't depend on each other, and the "
    method += "vectors of a user do."
    sections = [
        Section("Distances", [document.Table(_COLUMNS, rows, left=2)]),
        Section("Features", [Plot("features", caption)]),
        Section("Prediction", [Plot("prediction", "The same of the probability, in bins of equal width.")]),
        Section("How it is judged", [document.Table(["verdict", "when"], judged, left=2), more, method]),
    ]
    return Document(f"Drift: {found.model}, version {found.version}", lead, sections)


def _lead(found: Drift) -> list[str]:
    if not found.vectors:
        text = f"Version {found.version} of {found.model} has served nothing"
        text += f" since {moment(found.since)}" if found.since else " yet"
        return [f"{text} ({told(found.other_versions)})." if found.other_versions else f"{text}."]
    since = f"since {moment(found.since)}, " if found.since else ""
    text = f"{found.vectors:,} vectors that version {found.version} of {found.model} was asked about, {since}"
    text += f"{moment(found.first or '')} to {moment(found.last or '')}, against those that it was made of."
    lead = [text]
    if found.other_versions:
        lead.append(f"Left out: {told(found.other_versions)}.")
    return lead


def _because(found: Drift) -> str:
    if found.reasons:
        return "; ".join(found.reasons)
    if not found.few:
        return f"every distance is below {POSSIBLE:g}"
    users = f" of {found.users:,} users" if found.users < FEW_USERS else ""
    return (
        f"{found.vectors:,} vectors{users}; {FEW:,} of {FEW_USERS} users are needed, as distances are large by chance"
    )


def _dead_letters(found: Drift) -> str:
    dead = found.dead_letters
    text = f"dead letters: {dead.letters:,} of {dead.rows:,} rows, {percent(dead.now, 2)}"
    return f"{text} (in the data of the card {percent(dead.then, 2)})"


def _cells(one: Distance) -> list[str]:
    values = (one.psi, one.total_variation, one.hellinger, one.kullback_leibler, one.value)
    return [f"{value:.3f}" for value in values]
