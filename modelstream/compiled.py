"""Compile a loop over arrays to machine code with numba, keeping the plain function for machines without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function compiled (cached on disk), or itself with `MODELSTREAM_NUMBA=0` or without numba.

    Floating point is strict (no fastmath, no fused multiply-add across statements), so both give the same bits.

    >>> @compiled
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double(21)
    42
    """
    if os.environ.get("MODELSTREAM_NUMBA", "1") == "0":
        return function
    try:
        import numba
    except ImportError:
        return function
    compiler: Callable[[Callable[P, R]], Callable[P, R]] = numba.njit(cache=True, nogil=True, error_model="numpy")
    return compiler(function)
