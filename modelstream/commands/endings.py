"""How a command ends: with an exit status, and on an error with a message instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from modelstream.base.command_line import as_typed_here
from modelstream.errors import ModelstreamError

if TYPE_CHECKING:
    from modelstream.commands.view import View


@contextmanager
def errors_in_words(status: int = 1) -> Iterator[None]:
    """On an error that a user can fix, print what happened and what to do, and end the process with this status.

    An error that has another one of its own (`exit_status`) ends it with that.
    """
    try:
        yield
    except ModelstreamError as error:
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True, soft_wrap=True)
        console.print(f"[bold red]error:[/] {escape(as_typed_here(str(error)))}")
        if error.remedy:
            console.print(f"[bold]→[/] {escape(as_typed_here(error.remedy))}")
        sys.exit(max(status, error.exit_status))
    except ImportError as error:  # a damaged environment: of what is missing, pipeline.py tells at the start
        if (error.name or "").partition(".")[0] in ("", "modelstream"):
            raise
        print(f"error: {error}\n→ make the environment anew: rm -rf .venv; make env", file=sys.stderr)
        sys.exit(status)


@contextmanager
def looking(data: Path) -> Iterator[View]:
    """Open a data folder, which a pipeline may be using, to print what it holds."""
    from modelstream.commands.view import View
    from modelstream.runner.chosen import project_for

    try:
        with View(data, project_for(data)) as view:
            yield view
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
