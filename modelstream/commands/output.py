"""What commands print: tables that fit the terminal, JSON, and values as a person reads them."""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

MOST_CHARACTERS = 50
"""Longest text shown in a table; more on a wide terminal."""
LEAST_CHARACTERS = 20
"""A text column is shortened to fit only if at least this much room is left."""

Row = Mapping[str, Any]


def json_line(row: Row) -> bytes:
    """Return a row as JSON, times in ISO 8601.

    >>> json_line({"user": "u1", "sum": float("inf")})
    b'{"user":"u1","sum":null}'
    """
    return msgspec.json.encode(row)


def no_model_yet(data: str = "") -> str:
    """Return what to do while there is no model, for a data folder as `short_path` shows it.

    >>> no_model_yet("data-mine")
    'no model yet → python pipeline.py train --promote --data data-mine'
    """
    return "no model yet → python pipeline.py train --promote" + (f" --data {data}" if data not in ("", "data") else "")


def print_json(value: object) -> None:
    """Print a result as one JSON object."""
    print(msgspec.json.encode(value).decode())


def fitting_table(rows: Sequence[Row], width: int, title: str = "") -> Table:
    """Return a table with as many columns as fit into `width` characters; the title names the others.

    Columns in which every row is null are left out; the last one that fits is cut if it is text.
    """
    every = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in every if any(row.get(name) is not None for row in rows)]
    longest = max(MOST_CHARACTERS, width - MOST_CHARACTERS)
    texts = {name: [readable(row.get(name), longest) for row in rows] for name in names}
    fitting: list[str] = []
    left = width - 1
    for name in names:
        wanted = max(len(name), *(len(text) for text in texts[name])) + 3
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
    made = Table(title=Text(title.strip()) if title else None, title_justify="left", title_style="bold")
    for name in fitting:
        right = any(isinstance(row.get(name), int | float) for row in rows)
        made.add_column(name, justify="right" if right else "left", no_wrap=True)
    for i in range(len(rows)):
        made.add_row(*(Text(texts[name][i]) for name in fitting))
    return made


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
