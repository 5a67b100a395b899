"""`pipeline.py replay`: recompute all features, and compare them with the stored rows and the served vectors."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from modelstream.base.command_line import pipeline
from modelstream.base.words import counted
from modelstream.commands.endings import looking
from modelstream.commands.options import DATA, AsJson, Data

if TYPE_CHECKING:
    from modelstream.replay.compare import Findings


def replay(as_json: AsJson = False, data: Data = DATA) -> None:
    """Compute all features again and compare them, bit for bit.

    Every event of the log is applied again. The results must equal the stored rows and
    the vectors that were served. The exit status is 1 if anything differs, and the
    first differences are printed.

    Example: python pipeline.py replay --data data-mine
    """
    from rich.console import Console
    from rich.progress import Progress

    from modelstream.commands.output import print_json
    from modelstream.replay.compare import compare

    with looking(data) as view:
        begun = time.monotonic()
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("replaying events", total=view.events_log.count() or None)
            found = compare(view, view.project, lambda events: bar.advance(task, events))
        if as_json:
            print_json({"equal": found.equal} | asdict(found))
        else:
            print(summary(found, time.monotonic() - begun))
    raise typer.Exit(0 if found.equal else 1)


def summary(found: Findings, seconds: float) -> str:
    """Return findings as a person reads them."""
    lines = [
        f"Replayed {counted(found.events, 'event')} in {seconds:.1f} s: "
        f"{counted(found.vectors, 'vector')} equal those that were served, "
        f"and {counted(found.rows, 'row')} equal those that are stored, bit for bit."
    ]
    lines += [f"DIFFERENT: {what}" for what in found.differing.first]
    if found.settled:
        lines += [f"DIFFERENT: {what}" for what in found.unmatched.first]
        count = found.differing.count + found.unmatched.count
    else:
        count = found.differing.count
        if found.unmatched.count:
            lines.append(
                f"{found.unmatched.count:,} vectors and rows can't be compared yet, because events are still "
                f"being processed. When `{pipeline('status')}` shows that no rows wait, run replay again."
            )
    if count:
        lines.append(f"{count:,} differences in all.")
    return "\n".join(lines)
