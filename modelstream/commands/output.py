"""What commands print: tables that fit the terminal, JSON, and values as a person reads them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from modelstream.base.command_line import as_typed_here, pipeline

MOST_CHARACTERS = 50
"""Longest text shown in a table; more on a wide terminal."""
LEAST_CHARACTERS = 20
"""A text column is shortened to fit only if at least this much room is left."""
LEAST_HEAD = 8
"""Names of columns are not broken into shorter lines than this, where only narrow values stand below."""

Row = Mapping[str, Any]


def json_line(row: Row) -> bytes:
    """Return a row as JSON, times in ISO 8601.

    >>> json_line({"user": "u1", "sum": float("inf")})
    b'{"user":"u1","sum":null}'
    """
    return msgspec.json.encode(row)


def no_model_yet() -> str:
    """Return what to do while there is no model.

    >>> no_model_yet().partition("pipeline.py ")[2]
    'train --promote'
    """
    return f"no model yet → {pipeline('train --promote')}"


def print_json(value: object) -> None:
    """Print a result as one JSON object."""
    print(msgspec.json.encode(value).decode())


def fitting_table(rows: Sequence[Row], width: int, title: str = "") -> Group:
    """Return a table with as many columns as fit into `width` characters, under a title that names the others.

    Columns in which every row is null are left out; the last one that fits is cut if it is text. If not all fit, names
    are broken at their underscores, which makes room for more.
    """
    every = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in every if any(row.get(name) is not None for row in rows)]
    longest = max(MOST_CHARACTERS, width - MOST_CHARACTERS)
    texts = {name: [readable(row.get(name), longest) for row in rows] for name in names}
    widths = {name: max(map(len, texts[name])) for name in names}
    heads = {name: [name] for name in names}
    if sum(max(len(name), widths[name]) + 3 for name in names) >= width:
        heads = {name: _in_lines(name, widths[name]) for name in names}
    fitting: list[str] = []
    left = width - 1
    for name in names:
        wanted = max(widths[name], *map(len, heads[name])) + 3
        is_text = any(isinstance(row.get(name), str) for row in rows)
        if wanted > left and is_text and left >= len(name) + 3 and left >= LEAST_CHARACTERS:
            texts[name] = [readable(text, left - 3) for text in texts[name]]
        elif wanted > left and fitting:
            break
        fitting.append(name)
        left -= wanted
    hidden = names[len(fitting) :]
    if hidden:
        title += f"  (more columns: {', '.join(hidden)})"
    made = Table()
    for name in fitting:
        right = any(isinstance(row.get(name), int | float) for row in rows)
        made.add_column("\n".join(heads[name]), justify="right" if right else "left", no_wrap=True, vertical="bottom")
    for i in range(len(rows)):
        made.add_row(*(Text(texts[name][i]) for name in fitting))
    return Group(*([Text(title.strip(), style="bold")] if title else []), made)


def _in_lines(name: str, width: int) -> list[str]:
    """Return a column's name in lines that are broken at underscores, and not much longer than `width`.

    >>> _in_lines("time_of_the_first_reading", 3)
    ['time_of_', 'the_', 'first_', 'reading']
    """
    parts = re.findall(r"[^_]*_+|[^_]+", name)
    width = max(width, LEAST_HEAD, *map(len, parts))
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def readable(value: object, longest: int = MOST_CHARACTERS) -> str:
    """Return a value as a person reads it.

    >>> readable(1234.5678901), readable(None), readable(True), readable(3.0)
    ('1234.57', '', 'yes', '3')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ", "milliseconds").removesuffix(".000")
    text = str(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def warned(text: str) -> str:
    """Return a warning as `Console.print` takes it: marked, and its remedy on a line of its own.

    >>> print(warned("the table areas is empty → load it"))
    [bold yellow]warning:[/] the table areas is empty
    [bold]→[/] load it
    """
    what, arrow, remedy = escape(as_typed_here(text)).partition(" → ")
    return f"[bold yellow]warning:[/] {what}" + (f"\n[bold]→[/] {remedy}" if arrow else "")


def short_path(place: str) -> str:
    """Return a path as a person would type it here; a URL stays as it is."""
    return os.path.relpath(place) if Path(place).is_relative_to(Path.cwd()) else place


def plain_table(titles: Sequence[str], rows: Iterable[Sequence[str | int | Text]], right: Container[str] = ()) -> Table:
    """Return a table without lines, its numbers and the columns named in `right` to the right."""
    rows = list(rows)
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for i, title in enumerate(titles):
        number = title in right or (bool(rows) and isinstance(rows[0][i], int))
        made.add_column(title, justify="right" if number else "left", header_style="bold", overflow="fold")
    for row in rows:
        made.add_row(*(f"{value:,}" if isinstance(value, int) else value for value in row))
    return made


def is_terminal() -> bool:
    """Tell whether a person reads standard output."""
    return sys.stdout.isatty()


def console() -> Console:
    """Return the console to print to: as wide as the terminal, or wide enough for anything if there is no terminal."""
    return Console(highlight=False, width=None if is_terminal() else 1000)
