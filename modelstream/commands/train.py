"""`pipeline.py train`: the training function of the project, run here on a data folder, as MLRun runs a job."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelstream import notebooks
from modelstream.commands.output import console
from modelstream.errors import ConfigurationError
from modelstream.project import Project
from modelstream.runner.data_folder import require

if TYPE_CHECKING:
    from modelstream.training.report.card import ModelCard

STEPS = {
    "labels": "reading labels",
    "vectors": "replaying events",
    "candidates": "trying candidates",
    "skew": "training on final rows, for comparison",
    "test": "testing on unseen users",
    "register": "writing card and report",
}


def train(project: Project, data: Path, parameters: dict[str, Any], *, as_json: bool) -> None:
    """Run the project's training function, and tell what came of it. Raises ModelstreamError."""
    begun = time.monotonic()
    name = training_function(project)
    os.environ.update(environment(project, data.resolve()))
    with _steps() as context_of:
        handler = getattr(notebooks.load(project.notebook(name)), project.functions[name].handler)
        context = context_of(mlrun_context(project, name))
        handler(context, **parameters)
    context.commit(completed=True)
    results = dict(context.results) | {"seconds": round(time.monotonic() - begun, 1)}
    if as_json:
        print(msgspec.json.encode(results).decode())
    else:
        console().print(_told(_card(project, parameters["name"], results), results, bool(parameters["promote"])))


def training_function(project: Project) -> str:
    """Return the function that trains: the job without streams. Raises ConfigurationError if there is none."""
    if not project.chain.trainer:
        raise ConfigurationError(
            "project.yaml has no function that trains", remedy="add a job, with an empty entry under `wiring`"
        )
    return project.chain.trainer


def environment(project: Project, data: Path) -> dict[str, str]:
    """Return the environment of the training function for a data folder. Raises ConfigurationError if it isn't one."""
    marker = require(data, project)
    settings = project.settings(
        training_function(project),
        marker.places.within(data),
        folder=project.folder.resolve(),
        registry=project.registry(),
        shards=marker.shards,
    )
    return {**settings.environment(), "MLRUN_HTTPDB__NOP_DB__VERBOSE": "false", "MLRUN_LOG_LEVEL": "ERROR"}


def mlrun_context(project: Project, name: str) -> Any:
    """Return a context of MLRun's: it keeps what is logged in a folder, and in MLRun if there is a server."""
    import mlrun

    context = mlrun.get_or_create_ctx(name, project=project.name)
    context.artifact_path = str(project.folder / "artifacts" / "runs")
    return context


class _Context:
    """MLRun's context, which also shows how far the training is."""

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
    shown = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as bar:
        loading = bar.add_task("loading libraries", total=None)

        def context_of(context: Any) -> _Context:
            bar.update(loading, total=1, completed=1)
            return _Context(context, bar)

        yield context_of


def _card(project: Project, name: str, results: dict[str, Any]) -> ModelCard:
    from modelstream.registry import registry as registries
    from modelstream.training.report import card as cards
    from modelstream.use_case.file import load_use_case

    use_case = load_use_case(project.use_case_file)
    registry = registries.of_project(project, use_case, name)
    return cards.parse(registry.read(results["version"], cards.CARD_FILE), f"{results['folder']}/{cards.CARD_FILE}")


def _told(card: ModelCard, results: dict[str, Any], promoted: bool) -> Group:
    from modelstream.training.report.report import REPORT_FILE

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("candidate", "log loss", "AUC", "accuracy", "vectors/s", ""):
        table.add_column(title, header_style="bold", justify="left" if title in ("candidate", "") else "right")
    for one in card.candidates:
        numbers = (one.log_loss, one.auc, one.accuracy)
        cells = ["" if number is None else f"{number:.4f}" for number in numbers]
        table.add_row(one.name, *cells, f"{one.vectors_per_second or 0:,.0f}", "chosen" if one.chosen else "")
    found = card.evaluation.metrics
    lines = [
        f"[bold]{card.name} {card.version}[/]: {card.algorithm}, from {card.data.training_vectors:,} vectors of "
        f"{card.data.training_users:,} users, in {results['seconds']} s",
        f"Chosen: {escape(card.chosen_because)}",
        f"On {found.vectors:,} vectors, as served, of {found.users:,} users never seen (95 % intervals over users):",
        f"  AUC {found.auc}, accuracy {found.accuracy},",
        f"  log loss {found.log_loss}, calibration error {found.ece}",
        *(
            f"  AUC at {card.evaluation.event} {point.at:g}: {point.metrics.auc}"
            for point in card.evaluation.by_events
            if point.at in (1, 10, 50, 100)
        ),
        "",
        f"Report: {escape(_short(results['folder'] + '/' + REPORT_FILE))}",
        f"Version {card.version} serves from now on."
        if promoted
        else f"To let it serve: python pipeline.py models promote {card.version}",
    ]
    return Group(table, "", *lines)


def _short(place: str) -> str:
    path = Path(place)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else place
