"""XXH3-64 of the values of a column: how distinct values and ids of events are remembered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]


def hashes_of(column: pa.Array) -> Int64s:
    """Return the hash of each value, int64[n]; 0 for null.

    A text is hashed as its UTF-8 bytes, a number as its 8 bytes (little-endian float64, or int64 for an integer and a
    truth value); -0.0 is 0.0.

    >>> hashes_of(pa.array(["a", None])).view(np.uint64).tolist() == [xxhash.xxh3_64_intdigest(b"a"), 0]
    True
    >>> hashes_of(pa.array([0.0, -0.0])).tolist() == hashes_of(pa.array([0, 0])).tolist()
    True
    """
    if not pa.types.is_string(column.type):
        known = column.is_valid().to_numpy(zero_copy_only=False)
        return np.where(known, _of_numbers(_eight_bytes(column)), 0)
    encoded = column.dictionary_encode()
    digest = xxhash.xxh3_64_intdigest
    values = encoded.dictionary.cast(pa.binary()).to_numpy(zero_copy_only=False)
    hashes = np.array([*map(digest, values), 0], np.uint64).view(np.int64)
    indices = encoded.indices.fill_null(len(hashes) - 1) if encoded.null_count else encoded.indices
    result: Int64s = hashes[indices.to_numpy()]
    return result


def _eight_bytes(column: pa.Array) -> UInt64s:
    if pa.types.is_floating(column.type):
        floats = column.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0  # which makes 0.0 of -0.0
        return np.asarray(floats, np.float64).view(np.uint64)
    integers = column.cast(pa.int64()).fill_null(0).to_numpy()
    return np.array(integers, np.int64).view(np.uint64)


def _of_numbers(numbers: UInt64s) -> Int64s:
    """Return XXH3-64 (without a seed) of 8 bytes each: its published code for 4 to 8 bytes, over a whole array."""
    first = (numbers << np.uint64(32)) | (numbers >> np.uint64(32))
    mixed = first ^ _SECRET
    mixed ^= _rotated(mixed, 49) ^ _rotated(mixed, 24)
    mixed *= _PRIME
    mixed ^= (mixed >> np.uint64(35)) + np.uint64(8)
    mixed *= _PRIME
    mixed ^= mixed >> np.uint64(28)
    return mixed.view(np.int64)


def _rotated(numbers: UInt64s, by: int) -> UInt64s:
    rotated: UInt64s = (numbers << np.uint64(by)) | (numbers >> np.uint64(64 - by))
    return rotated


_PRIME = np.uint64(0x9FB21C651E98DF25)
_SECRET = np.uint64(0x1CAD21F72C81017C ^ 0xDB979083E96DD4DE)
"""The words at 8 and 16 of XXH3's secret."""
