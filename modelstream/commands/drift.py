"""`pipeline.py drift`: compare the vectors that were served with the model's training data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelstream.commands.endings import errors_in_words, looking
from modelstream.commands.options import DATA, AsJson, Data
from modelstream.errors import ConfigurationError

if TYPE_CHECKING:
    from modelstream.commands.view import View
    from modelstream.training.drift.drift import Drift
    from modelstream.training.report.card import ModelCard


def drift(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only predictions made since then: a time such as 2026-11-20, or how long ago (15m, 6h, 7d).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Only predictions of this version (default: the one that serves)."),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML page with plots as well.")] = None,
    as_json: AsJson = False,
    data: Data = DATA,
) -> None:
    """Compare the vectors that were served with those that the model learned from.

    The exit status is 1 for drift, 0 for no drift, possible drift or too few vectors
    to tell, and 2 after an error.

    Example: python pipeline.py drift --since 7d --output drift.html
    """
    with errors_in_words(status=2), looking(data) as view:
        drifted = compare(view, since=since, version=model, as_json=as_json, output=output)
    raise typer.Exit(1 if drifted else 0)


def compare(view: View, *, since: str | None, version: str | None, as_json: bool, output: Path | None) -> bool:
    """Print the findings, and write them as a page if there is an `output`; return whether there is drift."""
    from modelstream.base.times import time_given
    from modelstream.commands.output import console, print_json
    from modelstream.registry.registry import Registry
    from modelstream.training.drift import drift as drifts
    from modelstream.training.drift import drift_page
    from modelstream.training.drift.reference import reference

    start = None if since is None else time_given(since, "--since")
    card = reference(Registry.of_project(view.project, view.use_case), version)
    found = drifts.drift(card, view, start)
    if output is not None:
        _write(output, found, card)
    if as_json:
        print_json(found)
    else:
        console().print(drift_page.table(found) if found.vectors else drift_page.nothing_served(found))
    return found.verdict is drifts.Verdict.DRIFT


def _write(output: Path, found: Drift, card: ModelCard) -> None:
    from modelstream.training.drift import drift_page

    page = drift_page.page(found, card)
    try:
        output.write_text(page, "utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{output} can't be written: {error.strerror or error}", remedy="give another --output"
        ) from error
    print(f"page: {output}", file=sys.stderr)
