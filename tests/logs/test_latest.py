"""The latest row of each key of a log."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.logs import latest
from modelstream.logs.latest import last_of_each


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=9), max_size=9), st.integers(1, 20))
def test_the_last_row_of_each_key_is_kept_however_often_rows_are_compacted(parts: list[list[str]], rows: int) -> None:
    expected: dict[str, int] = {}
    batches: list[pa.RecordBatch] = []
    number = 0
    for keys in parts:
        numbers = list(range(number, number + len(keys)))
        batches.append(pa.record_batch({"key": pa.array(keys, pa.string()), "n": pa.array(numbers, pa.int64())}))
        expected |= dict(zip(keys, numbers, strict=True))
        number += len(keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latest, "COMPACT_ROWS", rows)
        found = last_of_each(batches, "key")
    assert dict(zip(found["key"].to_pylist(), found.to_pydict().get("n", []), strict=True)) == expected
