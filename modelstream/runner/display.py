"""The live table that is shown while the pipeline works."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelstream.runner.state import FunctionState

RATE_WINDOW = 2.0
"""Seconds over which rates are averaged."""


class Display:
    """Shows the functions while they work: a live table on a terminal, otherwise a line every few seconds, and a line
    at once when a function is held."""

    def __init__(self, *, quiet: bool, title: str) -> None:
        self.console = Console(stderr=True)
        self._quiet = quiet
        self._title = title
        self._live: Live | None = None
        self._begun = time.monotonic()
        self._line_due = 0.0
        self._line = ""
        self._told: dict[str, str] = {}
        self._seen: dict[str, deque[tuple[float, int, int]]] = {}

    def __enter__(self) -> Display:
        if not self._quiet and self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, states: Iterable[FunctionState], progress: str) -> None:
        """Show the present state. Called several times a second."""
        now = time.monotonic()
        with suppress(OSError):  # the terminal was closed: SIGHUP says so
            self._show(states, progress, now)

    def _show(self, states: Iterable[FunctionState], progress: str, now: float) -> None:
        if self._live is not None:
            self._live.update(Group(self._table(states, now), Text(progress, style="dim")))
        elif not self._quiet:
            for state in states:
                if state.held and state.held != self._told.get(state.name):
                    self._print(now, f"{state.name} waits: {state.held}")
                self._told[state.name] = state.held
            if now >= self._line_due and progress != self._line:
                self._line_due = now + 5.0
                self._line = progress
                self._print(now, progress)

    def _print(self, now: float, text: str) -> None:
        print(f"{now - self._begun:5.0f} s  {text}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line above the table; none for an empty text."""
        if text and not self._quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _table(self, states: Iterable[FunctionState], now: float) -> Table:
        table = Table(title=Text(self._title, style="bold"), title_justify="left", expand=False)
        table.add_column("function")
        table.add_column("state")
        for name in ("rows in", "in/s", "rows out", "out/s", "lag", "dead letters"):
            table.add_column(name, justify="right")
        for row in states:
            rate_in, rate_out = self._rates(row, now)
            done = row.counters
            colour = {"working": "green", "done": "green", "idle": "cyan"}.get(row.state, "yellow")
            state = f"{row.state} ({row.restarts} restarts)" if row.restarts else row.state
            table.add_row(
                row.name,
                Text(state, style=colour),
                *(f"{number:,.0f}" for number in (done.rows_in, rate_in, done.rows_out, rate_out)),
                row.shown_lag,
                Text(f"{done.dead_letters:,}", style="red" if done.dead_letters else ""),
            )
            for problem in filter(None, (row.held, row.refused)):
                table.add_row("", Text(problem[:90], style="red"))
        return table

    def _rates(self, function: FunctionState, now: float) -> tuple[float, float]:
        """Return a function's rows a second in and out over the last two seconds."""
        done = function.counters
        seen = self._seen.setdefault(function.name, deque())
        seen.append((now, done.rows_in, done.rows_out))
        while len(seen) > 2 and now - seen[0][0] > RATE_WINDOW:
            seen.popleft()
        then, rows_in, rows_out = seen[0]
        passed = max(now - then, 0.1)
        return (done.rows_in - rows_in) / passed, (done.rows_out - rows_out) / passed
