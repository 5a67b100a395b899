"""`pipeline.py serve`: keep the functions running and accept events over HTTP, until Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelstream.base.words import counted
from modelstream.commands.options import (
    DATA,
    Enrichment,
    KeptIn,
    Logs,
    Quiet,
    Shards,
    Streams,
    Tables,
    UseCaseFile,
    Workers,
)

if TYPE_CHECKING:
    from modelstream.http.service import Saved


def serve(
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8080,
    enrichment: Enrichment = None,
    workers: Workers = 1,
    max_delay: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=10,
            help="Answer events with 503 while one that was taken has waited longer than this (up to 5 s are usual).",
        ),
    ] = 30.0,
    quiet: Quiet = False,
    data: KeptIn = DATA,
    use_case: UseCaseFile = None,
    shards: Shards = None,
    streams: Streams = "",
    tables: Tables = "",
    logs: Logs = "",
) -> None:
    """Accept events over HTTP and keep the functions running, until Ctrl-C.

    POST a JSON object, an array or NDJSON to /events; 202 means that it is stored. GET
    / describes the other paths. Ctrl-C finishes and saves the work in progress; the
    next start with the same folder continues. The folder also remembers --use-case,
    --streams, --tables and --logs.

    Example: python pipeline.py serve --port 8080 --data data-mine
    """
    from modelstream.http import service
    from modelstream.runner.chosen import project_for
    from modelstream.runner.data_folder import open_folder
    from modelstream.runner.display import Display
    from modelstream.runner.store_urls import checked
    from modelstream.settings import StoreUrls

    project = project_for(data, use_case)
    try:
        with Display(quiet=quiet, title=f"{project.name} → {data}") as display:
            urls = checked(StoreUrls(streams, tables, logs), project)
            folder = open_folder(data.resolve(), project, shards=shards, urls=urls)
            if folder.note:
                display.say(f"note: {folder.note}")
            saved = service.serve(
                project, folder, service.ServeOptions(port, workers, enrichment or [], max_delay), display
            )
    except KeyboardInterrupt:
        print("Stopped at once; nothing is lost. The same command goes on where it stopped.", file=sys.stderr)
        raise typer.Exit(130) from None
    print(summary(saved, data))


def summary(saved: Saved, data: Path) -> str:
    """Return what was saved, as a person reads it."""
    what = "the work in progress is saved" if saved.complete else "the work in progress is repeated at the next start"
    lines = [f"Stopped: {what} in {data}. {counted(saved.accepted, 'event')} taken by HTTP."]
    lines += [
        f"  {function.name:20}{function.rows_in:>12,} rows in {function.rows_out:>12,} out   "
        + (
            f"{'about ' if function.about else ''}{counted(function.waiting, 'row')} waiting in {function.reads}"
            if function.waiting
            else "nothing waits"
        )
        for function in saved.functions
    ]
    lines += [f"warning: {warning}" for warning in saved.warnings]
    return "\n".join([*lines, "The same command continues from here."])
