"""The commands of `pipeline.py`: they return exit statuses, and tell errors as a person wants to read them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.progress import Progress

from modelstream.base.durable import open_input
from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.project import load_project
from modelstream.runner.data_folder import NOWHERE_ELSE, open_folder
from modelstream.runner.display import Display
from modelstream.runner.places import checked
from modelstream.runner.run import Interrupted, RunOptions, Summary
from modelstream.runner.run import run as run_pipeline
from modelstream.settings import StoreUrls

if TYPE_CHECKING:
    from modelstream.commands.view import View


def run(
    source: dict[str, Any],
    data: Path,
    *,
    shards: int | None,
    workers: int,
    fresh: bool,
    as_json: bool,
    quiet: bool,
    urls: StoreUrls = NOWHERE_ELSE,
) -> int:
    """Run the pipeline to its end."""
    try:
        if source.get("input") not in (None, "-"):  # a wrong name must not begin a folder, let alone empty one
            open_input(Path(source["input"]).expanduser()).close()
        project = load_project()
        with Display(quiet=quiet or (as_json and not sys.stderr.isatty()), title=f"{project.name} → {data}") as display:
            folder = open_folder(data.resolve(), project, shards=shards, urls=checked(urls, project), fresh=fresh)
            options = RunOptions(source, workers, source.get("rate"))
            summary = run_pipeline(project, folder, options, display)
    except Interrupted as stop:
        saved = "everything in hand is saved" if stop.saved else "stopped at once; nothing is lost"
        print(f"Interrupted: {saved}. The same command goes on where it stopped.", file=sys.stderr)
        return 130
    except ModelstreamError as error:
        return fail(error)
    if as_json:
        print(msgspec.json.encode(summary).decode())
    else:
        Console(soft_wrap=True, highlight=False).print(_told(summary))
    return 0


def serve(
    data: Path,
    *,
    port: int,
    enrichment: Path | None,
    shards: int | None,
    workers: int,
    quiet: bool,
    urls: StoreUrls = NOWHERE_ELSE,
) -> int:
    """Keep the functions up and take events by HTTP, until Ctrl-C."""
    from modelstream.http import service as serving  # HTTP is imported where it is served

    try:
        project = load_project()
        with Display(quiet=quiet, title=f"{project.name} → {data}") as display:
            folder = open_folder(data.resolve(), project, shards=shards, urls=checked(urls, project))
            saved = serving.serve(project, folder, serving.ServeOptions(port, workers, enrichment), display)
    except KeyboardInterrupt:
        print("Stopped at once; nothing is lost. The same command goes on where it stopped.", file=sys.stderr)
        return 130
    except ModelstreamError as error:
        return fail(error)
    print(serving.told(saved, data))
    return 0


def peek(data: Path, stream: str, *, last: int, as_json: bool) -> int:
    """Show the last messages of a stream."""
    from modelstream.commands import peek as look

    return _looking(data, lambda view: look.peek(view, stream, last, as_json=as_json))


def table(data: Path, name: str, *, key: str | None, form: str | None, output: Path | None) -> int:
    """Show or write a table."""
    from modelstream.commands import peek as look

    return _looking(data, lambda view: look.table_(view, name, key, form, output))


def load_table(data: Path, name: str, file: Path, *, tables: str) -> int:
    """Load a lookup table from a file, into the tables of a data folder or those behind a URL."""
    from modelstream.commands import table as load

    if not tables:
        return _looking(data, lambda view: load.load(view.tables, view.use_case, name, file))
    try:
        return load.load_into(tables, load_project(), name, file)
    except ModelstreamError as error:
        return fail(error)


def status(data: Path, *, as_json: bool) -> int:
    """Tell what a folder holds."""
    from modelstream.commands import status as statuses

    def tell(view: View) -> None:
        found = statuses.status(view)
        if as_json:
            print(msgspec.json.encode(found).decode())
        else:
            statuses.show(found)

    return _looking(data, tell)


def explain(data: Path, user: str, *, last: int, as_json: bool) -> int:
    """Tell what is known of a user."""
    from modelstream.replay import explain as explaining

    def tell(view: View) -> None:
        found = explaining.explain(view, user, last)
        if not found.events and found.row is None:
            raise ConfigurationError(
                f"no event of {view.use_case.key} {user!r} is in the log",
                remedy="`python pipeline.py table features` lists users; an event of the last 5 s may not be there yet",
            )
        if as_json:
            print(msgspec.json.encode(found).decode())
        else:
            explaining.show(found, view)

    return _looking(data, tell)


def replay(data: Path, *, as_json: bool) -> int:
    """Compute all features again and compare."""
    from modelstream.replay import compare as replaying

    def compare(view: View) -> int:
        begun = time.monotonic()
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("replaying events", total=view.events_log.count() or None)
            found = replaying.replay(view, lambda events: bar.advance(task, events))
        seconds = time.monotonic() - begun
        print(replaying.as_json(found) if as_json else replaying.told(found, seconds))
        return 0 if found.equal else 1

    return _looking(data, compare)


def drift(data: Path, *, since: str | None, model: str | None, as_json: bool, output: Path | None) -> int:
    """Compare what was served with what the model was made of: 0 without drift, 1 with it, 2 for an error."""
    from modelstream.commands import drift as drift_command

    def compare(view: View) -> int:
        return drift_command.drift(view, since=since, version=model, as_json=as_json, output=output)

    return _looking(data, compare, failed=2)


def models(action: str, version: str, *, name: str, as_json: bool) -> int:
    """List the versions of the model, show or promote one, or roll back."""
    from modelstream.commands import models as model_commands

    try:
        registry = model_commands.open_registry(name)
        if action == "list":
            model_commands.list_versions(registry, as_json=as_json)
        elif action == "show":
            model_commands.show_version(registry, version, as_json=as_json)
        elif action == "promote":
            model_commands.promote(registry, version)
        else:
            model_commands.rollback(registry)
    except ModelstreamError as error:
        return fail(error)
    return 0


def train(data: Path, parameters: dict[str, Any], *, as_json: bool) -> int:
    """Train a model on what a folder holds, and register it."""
    from modelstream.commands import train as train_command

    try:
        train_command.train(load_project(), data, parameters, as_json=as_json)
    except ModelstreamError as error:
        return fail(error)
    except KeyboardInterrupt:
        print("Interrupted: nothing was registered.", file=sys.stderr)
        return 130
    return 0


def _looking(data: Path, action: Callable[[View], int | None], failed: int = 1) -> int:
    """Do something with a data folder that may be in use; return the exit status, `failed` after an error."""
    from modelstream.commands.view import View

    try:
        with View(data, load_project()) as view:
            return action(view) or 0
    except ModelstreamError as error:
        fail(error)
        return failed
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def fail(error: ModelstreamError) -> int:
    """Tell an error and its remedy; return the exit status."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]error:[/] {_escaped(str(error))}")
    if error.remedy:
        console.print(f"[bold]→[/] {_escaped(error.remedy)}")
    return 1


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _told(summary: Summary) -> str:
    not_counted = ", ".join(f"{number:,} {reason}" for reason, number in summary.not_counted.items())
    lines = [
        f"[bold]{summary.events:>12,}[/] events" + (f"  ({not_counted}: no vector)" if not_counted else ""),
        f"[bold]{summary.vectors:>12,}[/] feature vectors",
        f"[bold]{summary.predictions:>12,}[/] predictions"
        + (f"  (by version {summary.model_version} of the model)" if summary.model_version else ""),
        f"[bold]{summary.dead_letters:>12,}[/] dead letters",
        f"[bold]{summary.seconds:>12,.1f}[/] seconds"
        + (f", {summary.events_per_second:,.0f} events a second" if summary.events_per_second else ": nothing new")
        + f", after {summary.startup_seconds:.1f} to start; {summary.peak_rss_mb:,.0f} MB in all processes",
    ]
    if isinstance(summary.delay_ms, dict) and summary.delay_ms:
        p50, p99 = summary.delay_ms["p50"], summary.delay_ms["p99"]
        lines.append(f"[bold]{p50:>12,.1f}[/] ms from event to stored prediction (median; p99 {p99:,.1f} ms)")
    data = _escaped(_short(summary.data))
    logs = _escaped(_short(summary.logs))
    option = "" if data == "data" else f" --data {data}"
    lines += [
        "",
        f"The results are Parquet files in {logs}/events and {logs}/inference. To look at them:",
        f"  python -c 'import pandas; print(pandas.read_parquet(\"{logs}/inference\").tail())'",
        f"  python pipeline.py table features{option}",
        f"  python pipeline.py peek inference{option}",
    ]
    return "\n".join(lines)


def _short(path: str) -> str:
    """Return a path as a person would type it here."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
