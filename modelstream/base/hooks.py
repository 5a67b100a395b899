"""Calls a notebook's hook, so that an error tells the notebook, cell and line, and the row that caused it.

An exception that means a mistake in the hook (a KeyError, a TypeError …) will come again, so it is told as a HookError.
Any other, such as a ConnectionError of a service that the hook asks, may pass: it is left as it is, and the stage tries
again.
"""

from __future__ import annotations

import json
import os
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from modelstream.errors import HookError, ModelstreamError

T = TypeVar("T")

MISTAKES = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError),
    *(RecursionError, TypeError, ValueError),
)
"""Exceptions that mean a mistake in a hook, Arrow's among them, which are of these classes."""
MOST_SHOWN = 600
"""Characters of a row in an error."""

_NOT_HOOKS = (str(Path(__file__).parents[1]), str(Path(os.__file__).parent), sysconfig.get_path("purelib"))
"""Where the code is that is no hook: this library, Python's, and installed packages."""


def call_hook(name: str, hook: Callable[[int, int], T], count: int, row: Callable[[int], str]) -> T:
    """Return what a hook returns for rows 0 to `count` (exclusive).

    `hook` calls it with the rows from the first to the last (exclusive), `row` describes one. Raises HookError for a
    mistake in the hook, with the row, which is found by halving: at most two more calls for each time that `count` can
    be halved. Any other exception is passed on.

    >>> rows = [1, 2, 0, 4]
    >>> call_hook("reciprocals", lambda first, last: [1 / n for n in rows[first:last]], 4, lambda i: f"n={rows[i]}")
    Traceback (most recent call last):
    modelstream.errors.HookError: <doctest modelstream.base.hooks.call_hook[1]>, line 1: reciprocals: ZeroDivisionError: division by zero; at the row n=0
    """  # noqa: E501
    try:
        return hook(0, count)
    except Exception as error:
        if not _is_mistake(error):
            raise
        first, last, mistake = _smallest(hook, count, error)
        where = f"the row {row(first)[:MOST_SHOWN]}" if last - first == 1 else f"{last - first} rows together"
        what = f"{type(mistake).__name__}: {mistake}".removesuffix(": ")
        place = place_of(mistake.__traceback__)
        raise HookError(
            f"{place}{name}: {what}; at {where}",
            remedy="fix the hook for such a row (make lab)",
            logged=f"{place}{name}: {type(mistake).__name__}",
        ) from mistake


def row_text(row: Mapping[str, Any]) -> str:
    """Return a row as JSON, without what is null in it.

    >>> row_text({"position": 7, "celsius": None})
    '{"position": 7}'
    """
    return json.dumps({name: value for name, value in row.items() if value is not None}, default=str)


def place_of(trace: TracebackType | None) -> str:
    """Return the place in a hook that an exception came from, `FILE:cell N, line M: `, or "" if it is not from one.

    It is the deepest place in a notebook; on a cluster, where the function is a file, the deepest that is neither ours
    nor a library's.
    """
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(_NOT_HOOKS)]
    deepest = next(reversed([frame for frame in frames if ":cell " in frame.filename] or frames), None)
    return f"{deepest.filename}, line {deepest.lineno}: " if deepest else ""


def defined_at(hook: object) -> str:
    """Return where a hook is defined, `FILE:cell N, line M: `, or "" if that is not known."""
    code = getattr(hook, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}: " if code else ""


def _is_mistake(error: Exception) -> bool:
    # Some clients' errors are both: requests' JSONDecodeError is a ValueError, and an OSError as its others.
    return isinstance(error, MISTAKES) and not isinstance(error, OSError | ModelstreamError)


def _smallest(hook: Callable[[int, int], object], count: int, error: Exception) -> tuple[int, int, Exception]:
    """Return the fewest rows for which a hook fails, and how."""
    first, last = 0, count
    while last - first > 1:
        middle = (first + last) // 2
        for half in ((first, middle), (middle, last)):
            try:
                hook(*half)
            except Exception as found:
                if _is_mistake(found):
                    error = found
                    first, last = half
                    break
        else:
            break
    return first, last, error
