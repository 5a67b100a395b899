"""`pipeline.py train`: run the project's training function on a data folder, as MLRun runs a job."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelstream.base.words import counted
from modelstream.commands.options import DATA, FLAG, AsJson, Data

if TYPE_CHECKING:
    from rich.console import Group
    from rich.progress import Progress, TaskID

    from modelstream.project import Project
    from modelstream.training.report.card import DataFacts, ModelCard

STEPS = {
    "labels": "reading labels",
    "vectors": "replaying events",
    "candidates": "trying candidates",
    "skew": "training on final rows, for comparison",
    "test": "testing on unseen users",
    "register": "writing card and report",
}


def train(
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read labels from this file: CSV, Parquet or JSON lines, with the columns key and label "
            "(default: the labels in the log of events).",
        ),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Try only these candidates of the notebook, separated by commas (default: all).",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Seed that decides which users are in the test set and which vectors are in the sample.",
        ),
    ] = 1,
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Register the model under this name (default: the one in the use case).",
            show_default=False,
        ),
    ] = "",
    promote: Annotated[
        bool,
        typer.Option(
            "--promote", metavar=FLAG, help="Promote the new version, so that it serves, as `models promote` does."
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", metavar=FLAG, help="With --promote: also if it is worse than the one that serves."),
    ] = False,
    source: Annotated[
        Literal["events", "inference"],
        typer.Option(
            metavar="LOG",
            help="Where the vectors come from. events: a replay of the log of events, compared with the "
            "vectors that were served. inference: the vectors that were served.",
        ),
    ] = "events",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only vectors of events from this time on: a time such as 2026-11-20, or how long ago (15m, 6h, 7d).",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only vectors of events until then: a time, or how long ago.")
    ] = None,
    as_json: AsJson = False,
    data: Data = DATA,
) -> None:
    """Train a model on what the pipeline has kept, and register it.

    The model is tested on users that it has never seen. The training function is in
    functions/optional-training.ipynb. The path of the report is printed at the end.

    Example: python pipeline.py train --since 7d --promote
    """
    from rich.markup import escape

    from modelstream.base.command_line import pipeline
    from modelstream.commands.output import console, print_json
    from modelstream.runner.chosen import project_for

    project = project_for(data)
    options = {"labels": str(labels) if labels else None, "candidates": candidates, "seed": seed, "name": name}
    options |= {"source": source, "since": since, "until": until}
    try:
        results = run_training(project, data, options)
    except KeyboardInterrupt:
        print("Interrupted: nothing was registered.", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json(results)
    else:
        console().print(_summary(_card(project, name, results), results))
    if promote:
        _promote(project, results["version"], name, force=force, to_errors=as_json)
    elif not as_json:
        console().print(f"To let it serve: {escape(pipeline('models promote', results['version']))}")


def _promote(project: Project, version: str, name: str, *, force: bool, to_errors: bool) -> None:
    """Promote the new version. What is said of it goes to standard error where the output is JSON."""
    from modelstream.commands.models import promote_compared

    with redirect_stdout(sys.stderr) if to_errors else nullcontext():
        promoted = promote_compared(project, name, version, force=force)
    if not promoted:
        raise typer.Exit(1)


def run_training(project: Project, data: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run the project's training function on a data folder; return its results. Raises ModelstreamError."""
    from modelstream import notebooks
    from modelstream.base.process_environment import on_this_machine
    from modelstream.runner.training import mlrun_context, training_environment, training_function
    from modelstream.settings import without_settings

    begun = time.monotonic()
    function = training_function(project)
    environment = training_environment(project, data.resolve())
    environment = {**on_this_machine(without_settings(os.environ)), **environment}
    os.environ.clear()
    os.environ.update(environment)
    with _steps() as context_of:
        handler = getattr(notebooks.load(project.notebook(function)), project.functions[function].handler)
        context = context_of(mlrun_context(project))
        handler(context, **options)
    context.commit(completed=True)
    return dict(context.results) | {"seconds": round(time.monotonic() - begun, 1)}


class _Context:
    """MLRun's context, plus a progress bar."""

    def __init__(self, context: Any, bar: Progress) -> None:
        self._context = context
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def step(self, name: str, done: int, total: int) -> None:
        """Show a step."""
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(STEPS.get(name, name), total=total)
        self._bar.update(self._tasks[name], completed=done, total=total)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


@contextmanager
def _steps() -> Iterator[Any]:
    """Show a bar a step on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    terminal = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        loading = bar.add_task("loading libraries", total=None)

        def context_of(context: Any) -> _Context:
            bar.update(loading, total=1, completed=1)
            return _Context(context, bar)

        yield context_of


def _card(project: Project, name: str, results: dict[str, Any]) -> ModelCard:
    from modelstream.registry.registry import Registry
    from modelstream.training.report.card import CARD_FILE, parse_card
    from modelstream.use_case.file import load_use_case

    use_case = load_use_case(project.use_case_file)
    registry = Registry.of_project(project, use_case, name)
    return parse_card(registry.read(results["version"], CARD_FILE), f"{results['folder']}/{CARD_FILE}")


def _summary(card: ModelCard, results: dict[str, Any]) -> Group:
    """Return what came of the training, as a person reads it."""
    from rich.console import Group
    from rich.markup import escape

    from modelstream.commands.output import plain_table, short_path
    from modelstream.training.report.report import REPORT_FILE

    measures = ("log loss", "AUC", "accuracy", "vectors/s")
    rows = []
    for one in card.candidates:
        numbers = ["" if number is None else f"{number:.4f}" for number in (one.log_loss, one.auc, one.accuracy)]
        rows.append((one.name, *numbers, f"{one.vectors_per_second or 0:,.0f}", "chosen" if one.chosen else ""))
    found = card.evaluation.metrics
    lines = [
        f"[bold]{card.name} {card.version}[/]: {card.algorithm}, from "
        f"{counted(card.data.training_vectors, 'vector')} of "
        f"{counted(card.data.training_users, 'user')}, in {results['seconds']} s",
        f"Chosen: {escape(card.chosen_because)}",
        *_future(card.data),
        f"On {counted(found.vectors, 'vector')}, as served, of {counted(found.users, 'user')} never seen "
        "(95 % intervals over users):",
        f"  AUC {found.auc}, accuracy {found.accuracy},",
        f"  log loss {found.log_loss}, calibration error {found.ece}",
        *(
            f"  AUC at {card.evaluation.event} {point.at:g}: {point.metrics.auc}"
            for point in card.evaluation.by_events
            if point.at in (1, 10, 50, 100)
        ),
        "",
        f"Report: {escape(short_path(results['folder'] + '/' + REPORT_FILE))}",
    ]
    return Group(plain_table(("candidate", *measures, ""), rows, right=measures), "", *lines)


def _future(data: DataFacts) -> list[str]:
    """Return what is said of events that are dated later than they arrived, where labels come from later events."""
    told = data.told_of_future if data.log_end else ""
    return [f"[yellow]{told[0].upper()}{told[1:]}.[/]"] if told else []
