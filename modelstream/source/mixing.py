"""Refuses an input that would merge with other data: generated events of another kind, or a file under a second name.

Several different files, one after the other, are what a folder is for; so is the same file once it has grown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import xxhash

from modelstream.base.words import counted
from modelstream.errors import ConfigurationError
from modelstream.source.input_file import open_input
from modelstream.source.readers import START_ANEW
from modelstream.tables import Input

_GENERATED = re.compile(r"generator:seed=(\d+),users=(\d+),events_per_user=(\d+)")
BLOCK = 8_000_000


def check_generated(origin: str, known: Sequence[Input]) -> None:
    """Raise ConfigurationError if generated events would be mixed with other events.

    >>> check_generated("generator:seed=1,users=30,events_per_user=9", [])
    >>> made = Input(origin="generator:seed=1,users=20,events_per_user=9", kind="generator")
    >>> check_generated("generator:seed=1,users=30,events_per_user=9", [made])
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: this folder's events were generated with --users 20, not --users 30
    """
    for other in known:
        if other.kind != "generator":
            raise ConfigurationError(
                f"this folder's events came from {_named(other)}: generated ones would be mixed with them",
                remedy=f"give --input to go on with your own events; or {START_ANEW}",
            )
        if other.origin != origin:
            before, now = _options(other.origin), _options(origin)
            changed = [name for name in now if now[name] != before.get(name)]
            made, wanted = (" ".join(f"--{name} {given.get(name, '?')}" for name in changed) for given in (before, now))
            whole = " ".join(f"--{name} {value}" for name, value in before.items())
            raise ConfigurationError(
                f"this folder's events were generated with {made}, not {wanted}",
                remedy=f"give {whole} to go on with them; or {START_ANEW}",
            )


def check_read(known: Sequence[Input]) -> None:
    """Raise ConfigurationError if events that are read would be mixed with generated ones."""
    for other in known:
        if other.kind == "generator":
            raise ConfigurationError(
                f"this folder's events were generated ({_named(other)}): your own would be mixed with them",
                remedy="give another --data for your own events, or start over with --fresh, which deletes the data",
            )


def check_file(path: Path, known: Sequence[Input]) -> None:
    """Raise ConfigurationError for a file that was read already under another name, as far as it was read.

    Its events would be taken for others, and count twice. Raises also for a file that can't be read.
    """
    check_read(known)
    if any(other.origin == str(path) for other in known):
        return
    read = sorted((other for other in known if other.kind == "file" and other.bytes), key=lambda one: one.bytes)
    hasher = xxhash.xxh3_128()
    at = 0
    with open_input(path) as file:
        size = path.stat().st_size
        for other in read:
            if other.bytes > size:
                return
            while at < other.bytes and (block := file.read(min(other.bytes - at, BLOCK))):
                hasher.update(block)
                at += len(block)
            if at == other.bytes and hasher.hexdigest() == other.digest:
                raise ConfigurationError(
                    f"{path} begins with all that was read from {other.origin} ({counted(other.lines, 'line')}): "
                    "they would count twice",
                    remedy=f"give the file its old name back to go on with it; or {START_ANEW}",
                )


def _named(known: Input) -> str:
    if known.kind == "stdin":
        return "standard input"
    if known.kind == "generator":
        return " ".join(f"--{name} {value}" for name, value in _options(known.origin).items())
    return known.origin


def _options(origin: str) -> dict[str, str]:
    """Return the options of the generator that made an origin."""
    found = _GENERATED.fullmatch(origin)
    if not found:
        return {}
    return dict(zip(("users", "events-per-user", "seed"), (found[2], found[3], found[1]), strict=True))
