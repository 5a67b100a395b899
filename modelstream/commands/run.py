"""`pipeline.py run`: process events, to the last one, with the whole pipeline."""

from __future__ import annotations

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
    UseCaseFile,
    Workers,
    given_options,
    is_given,
)

if TYPE_CHECKING:
    pass

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
            help="No generated event is after this time, such as 2026-11-20T12:00 (default: now).",
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
    use_case: UseCaseFile = None,
    shards: Shards = None,
    streams: Streams = "",
    tables: Tables = "",
    logs: Logs = "",
) -> None:
    """Run events through the pipeline, to the last one. Without --input, generate them.

    If it stops for any reason, run it again with the same folder: it continues where it
    stopped, and counts nothing twice. Ctrl-C saves the work in progress. The folder
    remembers --use-case, --streams, --tables and --logs, so give them only the first time.

    The exit status is 3 if nothing of the input could be read; with --strict, also if
    some of it couldn't.

    Example: python pipeline.py run --input events.ndjson --data data-mine
    """
    from modelstream.base.command_line import pipeline
    from modelstream.commands.output import print_json
    from modelstream.commands.run_summary import print_summary
    from modelstream.runner import preflight
    from modelstream.runner import run as runs
    from modelstream.runner.chosen import project_for
    from modelstream.runner.data_folder import open_folder
    from modelstream.runner.display import Display
    from modelstream.runner.store_urls import checked
    from modelstream.settings import StoreUrls
    from modelstream.source.input_file import check_input

    source: dict[str, Any] = {"users": users, "events_per_user": events_per_user, "seed": seed, "end": end}
    if input is not None:
        if given := [f"--{name.replace('_', '-')}" for name in source if is_given(context, name)]:
            raise typer.BadParameter(
                f"{', '.join(given)} can't go with --input, which reads events instead of generating them: "
                "leave out one or the other"
            )
        source = {"input": input}
        if input != "-":  # a wrong name must not begin a folder, let alone empty one
            check_input(Path(input).expanduser(), pipeline("run", given_options(context, input="-")))
    source |= {"enrichment": [str(file) for file in enrichment] if enrichment else None, "rate": rate}
    project = project_for(data, use_case)
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
    if summary.nothing_read or (strict and not summary.all_read):
        if as_json:
            what = "nothing" if summary.nothing_read else "not all"
            print(f"error: {what} of the input could be read", file=sys.stderr)
        raise typer.Exit(UNREAD)
