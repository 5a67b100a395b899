"""Asks the machine for memory before a compiled loop needs it.

A row of a large table that is reached by a random place is in no cache: about 100 ns until it comes, or several times
that for one of some kilobytes. Asked for some rows ahead, it comes while others are worked on: with 200,000 users and 7
KB a row, an event took 0.8 µs rather than 1.5.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Prefetch = Callable[[npt.NDArray[np.int64], int, int], None]


def _nothing(table: npt.NDArray[np.int64], row: int, word: int) -> None:
    """Do nothing: without numba there is nothing to gain."""


def _made() -> Prefetch:
    if os.environ.get("MODELSTREAM_NUMBA", "1") == "0":
        return _nothing
    try:
        from llvmlite import ir  # type: ignore[import-untyped]
        from numba.core import types
        from numba.extending import intrinsic
        from numba.np.arrayobj import make_array
    except ImportError:
        return _nothing
    byte, short, long = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)

    def typed(_: Any, table: Any, row: Any, word: Any) -> Any:  # noqa: ARG001
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = make_array(signature.args[0])(context, builder, arguments[0])  # type: ignore[no-untyped-call]
            row_starts = builder.mul(arguments[1], builder.extract_value(array.strides, 0))
            place = builder.add(row_starts, builder.mul(arguments[2], ir.Constant(long, 8)))
            kind = ir.FunctionType(ir.VoidType(), [byte, short, short, short])
            function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            for_reading, keep, data = (ir.Constant(short, value) for value in (0, 3, 1))
            address = builder.gep(builder.bitcast(array.data, byte), [place])
            builder.call(function, [address, for_reading, keep, data])
            return context.get_dummy_value()

        return types.void(table, types.int64, types.int64), code

    return cast(Prefetch, intrinsic(typed))


prefetch = _made()
"""Asks for `table[row, word]` (int64, two dimensions) from a compiled function; `features.kernel` uses it."""
