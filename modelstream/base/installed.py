"""Whether the environment that runs this has what `requirements.in` asks for, before anything of it is imported."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

PYTHON = (3, 11)
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*", re.MULTILINE)


def problem(
    folder: Path,
    *,
    environment: str = sys.prefix,
    python: tuple[int, int] = sys.version_info[:2],
    path: Iterable[str] = sys.path,
) -> str:
    """Return what is wrong with the environment for the project in a folder, and what to do; empty if nothing is.

    It takes a few ms: names of packages are compared, and of `.venv` the checksum of the lock that it was made from.
    """
    if python != PYTHON:
        return _told(f"This needs Python 3.11, and {sys.executable} is Python {python[0]}.{python[1]}")
    requirements = folder / "requirements.in"
    if not requirements.exists():  # the library without its project
        return ""
    asked = [_plain(name) for name in _NAME.findall(requirements.read_text("utf-8"))]
    there = _installed(path)
    if missing := [name for name in asked if name not in there]:
        what = "The environment is missing" if len(missing) == len(asked) else f"Not installed: {', '.join(missing)}"
        return _told(f"{what} ({sys.executable})")
    ours = folder / ".venv"
    made_from, lock = ours / "made-from", folder / "requirements.txt"
    if ours.resolve() != Path(environment).resolve() or not made_from.exists():
        return ""
    stale = made_from.read_text("utf-8").split()[:2] != [*map(str, cksum(lock.read_bytes()))]
    return _told("requirements.txt is not the one that .venv was made from") if stale else ""


def cksum(content: bytes) -> tuple[int, int]:
    """Return what POSIX's `cksum` prints, by which the Makefile tells whether an environment is stale.

    >>> cksum(b"123456789")
    (930766865, 9)
    """
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "little")
    # zlib's CRC is the same polynomial with the bits of each byte, and of the result, the other way round.
    found = zlib.crc32((content + length).translate(_REVERSED), 0xFFFFFFFF)
    return int(f"{found:032b}"[::-1], 2), size


def _told(what: str) -> str:
    return (
        f"{what}.\n→ run `make env`, then `.venv/bin/python pipeline.py` instead of `python pipeline.py`, "
        "or activate it first: `. .venv/bin/activate`"
    )


def _installed(path: Iterable[str]) -> set[str]:
    """Return the names of the packages in these folders."""
    found = set()
    for folder in path:
        try:
            entries = [entry.name for entry in Path(folder or ".").iterdir()]
        except OSError:  # a zip file, or nothing
            continue
        found |= {_plain(entry.partition("-")[0]) for entry in entries if entry.endswith((".dist-info", ".egg-info"))}
    return found


def _plain(name: str) -> str:
    """Return a package's name as PyPI compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()
