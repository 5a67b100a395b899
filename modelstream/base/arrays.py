"""Arrow arrays of numpy's: a fifth of the time that `pyarrow.array` needs for a few values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.base.compiled import compiled

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_FEW = 1024
_NULLS: dict[pa.DataType, pa.Array] = {}


def nulls(count: int, kind: pa.DataType) -> pa.Array:
    """Return an array of nulls.

    >>> nulls(2, pa.string()).to_pylist()
    [None, None]
    """
    if count > _FEW:
        return pa.nulls(count, kind)
    if kind not in _NULLS:
        _NULLS[kind] = pa.nulls(_FEW, kind)
    return _NULLS[kind].slice(0, count)


def fixed_width(values: npt.NDArray[np.generic], kind: pa.DataType, known: Bools | None = None) -> pa.Array:
    """Return an array of `kind` (numbers of the values' width, timestamps, or truth values) without copying numbers.

    Where `known` (bool, same length) is false there is a null.

    >>> fixed_width(np.array([1, 2]), pa.int64(), np.array([True, False])).to_pylist()
    [1, None]
    """
    validity = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    values = values if known is None else np.where(known, values, np.zeros(1, values.dtype))
    if values.dtype == np.bool_:
        content = pa.py_buffer(np.packbits(values.view(np.bool_), bitorder="little"))
    else:
        content = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [validity, content])


@compiled
def _copy(data: Bytes, starts: Int64s, ends: Int64s, offsets: npt.NDArray[np.int32], out: Bytes) -> None:
    for row in range(len(starts)):
        # Slices, so that the compiler knows the indices as not negative: a memcpy, 20 times as fast.
        source = data[starts[row] : ends[row]]
        target = out[offsets[row] : offsets[row + 1]]
        for i in range(len(source)):
            target[i] = source[i]


def gather(data: Bytes, starts: Int64s, ends: Int64s, kind: pa.DataType, known: Bools | None = None) -> pa.Array:
    """Return the pieces `data[starts[i]:ends[i]]` as an Arrow array of `kind` (binary or string).

    Where `known` (bool, same length) is false there is a null.

    >>> data = np.frombuffer(b"abcdef", np.uint8)
    >>> gather(data, np.array([3, 0]), np.array([5, 1]), pa.string()).to_pylist()
    ['de', 'a']
    """
    validity = None
    if known is not None:
        starts, ends = np.where(known, starts, 0), np.where(known, ends, 0)
        validity = pa.py_buffer(np.packbits(known, bitorder="little"))
    offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(ends - starts, out=offsets[1:])
    out = np.empty(int(offsets[-1]), np.uint8)
    _copy(data, starts, ends, offsets, out)
    return pa.Array.from_buffers(kind, len(starts), [validity, pa.py_buffer(offsets), pa.py_buffer(out)])
