"""`pipeline.py run`: process events, to the last one, with the whole pipeline."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelstream.commands.options import (
    DATA,
    FLAG,
    KEPT,
    AsJson,
    Enrichment,
    KeptIn,
    Logs,
    Quiet,
    Shards,
    Streams,
    Tables,
    Workers,
    is_given,
)

if TYPE_CHECKING:
    from modelstream.project import Project
    from modelstream.runner.summary import Summary
    from modelstream.use_case.declared import UseCase

UNREAD = 3
"""The exit status when nothing of the input could be read, or with --strict not all of it."""
GENERATED = "Generated events"
"""The panel of options that can't go with --input."""


def run(
    context: typer.Context,
    input: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Read events from this file of JSON lines instead of generating them. - means standard "
            "input; lines of it that are not read yet are lost if the pipeline is killed.",
        ),
    ] = None,
    enrichment: Enrichment = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="N", min=0.001, help="Send N events a second, one by one (default: as fast as they are processed)."
        ),
    ] = None,
    workers: Workers = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
    users: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many users to generate.", rich_help_panel=GENERATED)
    ] = 2000,
    events_per_user: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Events per user, after the profile event.",
            rich_help_panel=GENERATED,
        ),
    ] = 1000,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Seed of the generator: the same --seed and --end give the same events.",
            rich_help_panel=GENERATED,
        ),
    ] = 1,
    end: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The time of the last events, such as 2026-11-20T12:00 (default: now).",
            rich_help_panel=GENERATED,
        ),
    ] = None,
    data: KeptIn = DATA,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            metavar=FLAG,
            help="Delete what earlier runs left in the folder, and start over.",
            rich_help_panel=KEPT,
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", metavar=FLAG, help="End with status 3 if anything in the input could not be read."),
    ] = False,
    shards: Shards = None,
    streams: Streams = "",
    tables: Tables = "",
    logs: Logs = "",
) -> None:
    """Run events through the pipeline, to the last one. Without --input, generate them.

    If it stops for any reason, run it again with the same folder: it continues where it
    stopped, and counts nothing twice. Ctrl-C saves the work in progress. The folder
    remembers --streams, --tables and --logs, so give them only the first time.

    The exit status is 3 if nothing of the input could be read; with --strict, also if
    some of it couldn't.

    Example: python pipeline.py run --input events.ndjson --data data-mine
    """
    from modelstream.commands.output import print_json
    from modelstream.project import load_project
    from modelstream.runner import preflight
    from modelstream.runner import run as runs
    from modelstream.runner.data_folder import open_folder
    from modelstream.runner.display import Display
    from modelstream.runner.store_urls import checked
    from modelstream.settings import StoreUrls
    from modelstream.source.input_file import check_input
    from modelstream.stores import Stores

    source: dict[str, Any] = {"users": users, "events_per_user": events_per_user, "seed": seed, "end": end}
    if input is not None:
        if given := [f"--{name.replace('_', '-')}" for name in source if is_given(context, name)]:
            raise typer.BadParameter(
                f"{', '.join(given)} can't go with --input, which reads events instead of generating them: "
                "leave out one or the other"
            )
        source = {"input": input}
        if input != "-":  # a wrong name must not begin a folder, let alone empty one
            check_input(Path(input).expanduser())
    source |= {"enrichment": str(enrichment) if enrichment else None, "rate": rate}
    project = load_project()
    try:
        with Display(quiet=quiet or (as_json and not sys.stderr.isatty()), title=f"{project.name} → {data}") as display:
            urls = checked(StoreUrls(streams, tables, logs), project)
            ready = partial(preflight.check, project, source)
            folder = open_folder(data.resolve(), project, shards=shards, urls=urls, fresh=fresh, preflight=ready)
            if folder.note:
                display.say(f"note: {folder.note}")
            summary = runs.run(project, folder, runs.RunOptions(source, workers, rate), display)
    except runs.Interrupted as stop:
        saved = "the work in progress is saved" if stop.saved else "stopped at once; nothing is lost"
        print(f"Interrupted: {saved}. The same command continues where it stopped.", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, project)
    with Stores.of_project(project, folder.urls) as stores:
        for stranger in stores.log_strangers():
            note = f"note: {stranger} is not the pipeline's, and is read with the log's files by pandas and others"
            print(note, file=sys.stderr)
    if summary.nothing_read or (strict and not summary.all_read):
        if as_json:
            what = "nothing" if summary.nothing_read else "not all"
            print(f"error: {what} of the input could be read", file=sys.stderr)
        raise typer.Exit(UNREAD)


def print_summary(summary: Summary, project: Project) -> None:
    """Print what came of a run, what the folder holds if that is more, and how to look at it, for a person."""
    from rich.console import Console

    from modelstream.use_case.file import load_use_case

    use_case = load_use_case(project.use_case_file)
    Console(soft_wrap=True, highlight=False).print(
        "\n".join([*_did(summary, use_case), *_folder(summary), *_hints(summary, project)])
    )


def _did(summary: Summary, use_case: UseCase) -> list[str]:
    """Return what the run did."""
    from modelstream.use_case.reasons import explained

    not_counted = ", ".join(f"{number:,} {reason}" for reason, number in summary.not_counted.items())
    versions = [f"{number:,} by version {version}" for version, number in summary.predictions_by_version.items()]
    if len(versions) == 1:
        versions = [f"by version {next(iter(summary.predictions_by_version))}"]
    lines = [
        f"[bold]{summary.events:>12,}[/] events" + (f"  ({not_counted}: no vector)" if not_counted else ""),
        *(f"{'':15}{line}" for line in explained(summary.not_counted, use_case)),
        f"[bold]{summary.vectors:>12,}[/] feature vectors",
        f"[bold]{summary.predictions:>12,}[/] predictions"
        + (f"  ({', '.join(versions)} of the model)" if versions else ""),
        f"[bold]{summary.dead_letters:>12,}[/] dead letters" + _reason(summary),
        *([f"[bold]{summary.lookups:>12,}[/] lookups  ({_found(summary)})"] if summary.lookups else []),
        f"[bold]{summary.seconds:>12,.1f}[/] seconds"
        + (f", {summary.events_per_second:,.0f} events a second" if summary.events_per_second else ": nothing new")
        + f", after {summary.startup_seconds:.1f} to start; {summary.peak_rss_mb:,.0f} MB in all processes",
    ]
    if isinstance(summary.delay_ms, dict) and summary.delay_ms:
        p50, p99 = summary.delay_ms["p50"], summary.delay_ms["p99"]
        lines.append(f"[bold]{p50:>12,.1f}[/] ms from event to stored prediction (median; p99 {p99:,.1f} ms)")
    if summary.unfinished_line:
        lines.append(
            f"Line {summary.unfinished_line} is unfinished: it has no line break, and is not whole JSON. "
            "Run again when it is complete."
        )
    elif summary.input_is_empty:
        lines.append("[bold]Nothing could be read[/]: the input is empty.")
    if summary.nothing_read and summary.dead_letters:
        lines.append("[bold]Nothing could be read[/]: there is no event in the input.")
    return lines


def _reason(summary: Summary) -> str:
    """Return the most frequent reason of dead letters, in brackets."""
    from rich.markup import escape

    if not summary.dead_letter_reasons:
        return ""
    reason, number = next(iter(summary.dead_letter_reasons.items()))
    return escape(f"  ({f'{number:,} times: ' if number < summary.dead_letters else ''}{reason})")


def _folder(summary: Summary) -> list[str]:
    """Return what the folder holds, if it holds more than what the run did."""
    from rich.markup import escape

    from modelstream.commands.output import short_path

    held = summary.folder
    if (held.events, held.predictions, held.dead_letters) == (
        summary.events,
        summary.predictions,
        summary.dead_letters,
    ):
        return []
    return [
        f"{escape(short_path(summary.data))} now holds {held.events:,} events, {held.vectors:,} feature vectors, "
        f"{held.predictions:,} predictions and {held.dead_letters:,} dead letters, of all runs."
    ]


def _hints(summary: Summary, project: Project) -> list[str]:
    """Return how to look at what there is."""
    from rich.markup import escape

    from modelstream.base.command_line import pipeline, python
    from modelstream.commands.output import short_path, warned

    data, logs = short_path(summary.data), escape(short_path(summary.logs))
    option = "" if data == "data" else f" --data {shlex.quote(data)}"
    names, predictions = project.names, project.predictions
    look = f'import pandas; print(pandas.read_parquet("{logs}/{names.inference_log}").tail())'
    lines = [part for warning in summary.warnings for part in ("", warned(warning))] + [""]
    if summary.dead_letters:
        lines += ["See why lines became dead letters:", f"  {escape(pipeline(f'peek {names.dead_letters}{option}'))}"]
    if summary.folder.events and not summary.nothing_read:
        lines += [
            f"The results are Parquet files in {logs}/{names.events_log} and {logs}/{names.inference_log}. "
            "Look at them:",
            f"  {escape(python())} -c '{look}'",
            f"  {escape(pipeline(f'table {names.features}{option}'))}",
            f"  {escape(pipeline(f'peek {predictions}{option}'))}",
        ]
    return lines if len(lines) > 1 else []


def _found(summary: Summary) -> str:
    return f"{summary.lookup_misses:,} found nothing" if summary.lookup_misses else "all found a value"
