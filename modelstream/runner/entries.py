"""The entries of a data folder that the pipeline makes, by name. Anything else in it is somebody else's, and stays."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from modelstream.project import TAKEN
from modelstream.runner.served import SERVED
from modelstream.settings import KINDS_OF_STORES

MARKER = "modelstream.json"
LOCK = ".lock"

Names = dict[str, Collection[str]]
"""The names of streams, tables and logs, by kind."""

_HALF_MADE = ".new-"
"""How the folders begin in which SQLite files are built before they get their names."""


def own(path: Path, names: Names) -> Iterator[Path]:
    """Yield the files and folders in a data folder that a pipeline with these names made, a folder after its content.

    The marker and the lock are left out.
    """
    streams, tables, logs = (names[kind] for kind in KINDS_OF_STORES)
    patterns = {
        "streams": _any_of([*streams, *TAKEN["streams"]]) + r"\.(db(-wal|-shm|-journal)?|\d+\.bodies)",
        "tables": _any_of([*tables, *TAKEN["tables"]]) + r"\.db(-wal|-shm|-journal)?",
        "logs": r".*\.log",  # what the functions printed
        **{f".{log}.writing": r".*" for log in logs},
    }
    for name, pattern in patterns.items():
        yield from _in_folder(path / name, re.compile(pattern))
    for log in logs:
        yield from _in_log(path / log)
    yield from (path / name for name in (SERVED, f".{SERVED}.tmp") if (path / name).exists())


def remove(path: Path, names: Names) -> None:
    """Delete what `own` yields. Folders stay that hold something else; of a link only the link goes."""
    for entry in own(path, names):
        if entry.is_dir() and not entry.is_symlink():
            with suppress(OSError):  # somebody else's files are in it
                entry.rmdir()
        else:
            entry.unlink(missing_ok=True)


def strangers(path: Path) -> list[str]:
    """Return the entries of a folder that is about to become a data folder: all of them are somebody else's."""
    return sorted(entry.name for entry in path.iterdir() if entry.name != LOCK)


def _in_folder(folder: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(_HALF_MADE) and entry.is_dir() and not entry.is_symlink():
                yield from sorted(entry.iterdir())
                yield entry
            elif pattern.fullmatch(entry.name) and (entry.is_symlink() or not entry.is_dir()):
                yield entry
    if folder.is_dir():
        yield folder


def _in_log(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    if not folder.is_symlink():
        from modelstream.logs.contract import is_own  # Parquet comes with it, 10 MB: a run that goes on does without

        yield from (entry for entry in sorted(folder.iterdir()) if is_own(entry.name))
    yield folder


def _any_of(names: Collection[str]) -> str:
    return f"({'|'.join(map(re.escape, names))})"
