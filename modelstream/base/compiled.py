"""Compiles loops over arrays to machine code with numba; without numba the plain function runs."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=np.generic)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function compiled (cached on disk), or itself with `MODELSTREAM_NUMBA=0` or without numba.

    Floating point is strict (no fastmath, no fused multiply-add across statements), so both give the same bits.

    >>> @compiled
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double(21)
    42
    """
    return _compiled(function)


def compiled_in_place(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function compiled as `compiled` does, for one that makes no array, and is called by others like it.

    It is inlined, and arrays aren't counted: in a loop that passes a dozen of them on, the counts were four fifths of
    the time. What makes an array can't be compiled so.

    >>> @compiled_in_place
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double(21)
    42
    """
    return _compiled(function, forceinline=True, _nrt=False)


def unwritable(view: npt.NDArray[T]) -> npt.NDArray[T]:
    """Return an array that was made for this, and can't be written from now on.

    A function is compiled anew for arrays that can be: of Arrow's some can, and those of a message can't.

    >>> bool(unwritable(np.zeros(1)).flags.writeable)
    False
    """
    view.flags.writeable = False
    return view


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    if os.environ.get("MODELSTREAM_NUMBA", "1") == "0":
        return function
    try:
        import numba
    except ImportError:
        return function
    setattr(numba.config, "CACHE_DIR", _cache_folder())  # noqa: B010 (numba does not declare it)
    result: Callable[P, R] = function
    try:
        result = numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    except RuntimeError:  # a notebook's cell has no file whose compilation could be cached
        result = numba.njit(nogil=True, error_model="numpy", **options)(function)
    return result


@functools.cache
def _cache_folder() -> str:
    """Return the cache folder for the current source of all compiled functions.

    numba compiles anew when the file of a function changes, but not when a compiled function that it calls, in
    another file, does: an edit of `statistics.py` would leave the kernel as it was.
    """
    package = Path(__file__).parents[1]
    sources = (path.read_bytes() for path in sorted(package.rglob("*.py")))
    digest = hashlib.sha256(b"".join(source for source in sources if b"@compiled" in source)).hexdigest()[:12]
    for parent in (package / "__pycache__", Path(tempfile.gettempdir()) / f"modelstream-{os.getuid()}"):
        folder = parent / f"numba-{digest}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return str(folder)
    return ""
