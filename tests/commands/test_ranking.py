"""The highest rows are found however they come in batches."""

from __future__ import annotations

import math

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from modelstream.commands.ranking import highest

VALUES = st.sampled_from([None, math.nan, -math.inf, -1.0, 0.0, 2.5, math.inf])


@given(st.lists(st.lists(VALUES, max_size=6), max_size=6), st.integers(1, 8))
def test_highest_rows_are_those_of_sorting_everything(parts: list[list[float | None]], limit: int) -> None:
    schema = pa.schema([("key", pa.string()), ("value", pa.float64())])
    batches, number = [], 0
    rows: list[tuple[str, float]] = []
    for values in parts:
        keys = [f"{number + i:03d}" for i in range(len(values))]
        number += len(values)
        batches.append(
            pa.RecordBatch.from_arrays([pa.array(keys, pa.string()), pa.array(values, pa.float64())], schema=schema)
        )
        rows += [(key, value) for key, value in zip(keys, values, strict=True) if value is not None and value == value]
    expected = sorted(rows, key=lambda row: (-row[1], row[0]))[:limit]
    found = highest(batches, schema, "value", limit)
    assert list(zip(found["key"].to_pylist(), found["value"].to_pylist(), strict=True)) == expected
