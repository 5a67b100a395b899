"""Values are remembered by the hash that any other XXH3 gives."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from modelstream.features.hashes import hashes_of


def unsigned(column: pa.Array) -> list[int]:
    found: list[int] = hashes_of(column).view(np.uint64).tolist()
    return found


@given(st.lists(st.floats(allow_nan=False) | st.none()))
def test_a_number_is_hashed_as_its_eight_bytes(numbers: list[float | None]) -> None:
    expected = [0 if x is None else xxhash.xxh3_64_intdigest(struct.pack("<d", x + 0.0)) for x in numbers]
    assert unsigned(pa.array(numbers, pa.float64())) == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none()))
def test_an_integer_is_hashed_as_its_eight_bytes(numbers: list[int | None]) -> None:
    expected = [0 if x is None else xxhash.xxh3_64_intdigest(struct.pack("<q", x)) for x in numbers]
    assert unsigned(pa.array(numbers, pa.int64())) == expected


@given(st.lists(st.text(max_size=300) | st.none()))
def test_a_text_is_hashed_as_utf_8(texts: list[str | None]) -> None:
    expected = [0 if text is None else xxhash.xxh3_64_intdigest(text.encode()) for text in texts]
    assert unsigned(pa.array(texts, pa.string())) == expected


@pytest.mark.parametrize("kind", [pa.int64(), pa.bool_()])
def test_a_truth_value_is_hashed_as_an_integer(kind: pa.DataType) -> None:
    assert unsigned(pa.array([0, 1, None], pa.int64()).cast(kind)) == [*unsigned(pa.array([0, 1], pa.int64())), 0]
