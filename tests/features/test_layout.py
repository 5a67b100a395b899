"""A row has a place for everything, and refuses the state of other features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from modelstream.errors import ConfigurationError
from modelstream.features.engine import FeatureEngine, no_lookup, no_rows
from modelstream.features.layout import Layout, row_bytes
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case
from modelstream.use_case.vocabulary import AllTime, From, Group, Recent, Session, Sliding, Statistic
from tests.features.cases import batch_of, case

CHURN = load_use_case(Path(__file__).parents[2] / "use_cases" / "churn.yaml")
COUNT, SUM, SINCE, RATE, DISTINCT = map(Statistic, ("count", "sum", "since", "rate", "distinct"))
MANY = case(
    {
        "spent": Group(("pay",), "x", windows=(AllTime(), Sliding("1h", 6), Session("10m")), give=(SUM, SINCE)),
        "backs": Group(("back",), windows=(From("pay", "24h"),), give=(COUNT, RATE)),
        "shops": Group(("pay",), "shop", windows=(Sliding("1h", 6),), give=(DISTINCT,), at_most=10),
        "last": Group(("pay",), "y", give=(Recent(3),)),
    },
    id="id",
)


def test_no_two_parts_of_a_row_share_a_word() -> None:
    layout = Layout(MANY)
    words = [word for key, word in layout.word.items() if key[0] not in {"ring", "fold"}]
    assert len(set(words)) == len(words)
    assert max(words) < layout.words


def test_columns_can_be_read_and_the_rest_is_packed() -> None:
    assert MANY.row_schema.names == [
        *("user", "applied", "clock", "spent_at", "spent_sum", "spent_mean", "spent_count", "spent_m2"),
        *("backs_opened", "backs_count", "last_sum", "last_mean", "last_count", "last_m2", "packed"),
    ]


def test_bytes_are_told_by_group() -> None:
    # spent: its time, four statistics, a step's bit and count and sum in six steps, count and sum of a session
    expected = {"times and values looked up": 8 * 3, "sessions": 8, "spent": 8 * (1 + 4 + 1 + 12 + 2), "backs": 8 * 2}
    expected |= {"shops": 8 * (1 + 2 * 10), "last": 8 * (4 + 1 + 3), "ids": 8 * 65}
    assert row_bytes(MANY) == expected
    packed = 8 * len(Layout(MANY).packed)
    assert sum(expected.values()) == 8 * 3 + 8 * 5 + 8 * 2 + 8 * 4 + packed


def test_rows_of_version_1_are_as_they_were() -> None:
    assert "packed" not in CHURN.row_schema.names
    assert "clock" not in CHURN.row_schema.names
    assert not Layout(CHURN).packed


def stored(use_case: UseCase) -> pa.RecordBatch:
    engine = FeatureEngine(use_case)
    engine.load(["u"], no_rows(use_case))
    event = {"user": "u", "at": 1, "kind": "pay", "x": 1.0, "shop": "a"}
    engine.apply(batch_of([event], use_case), np.array([0]), no_lookup)
    return engine.changed()


def with_packed(rows: pa.RecordBatch, content: bytes | None) -> pa.RecordBatch:
    columns = [*rows.columns[:-1], pa.array([content], pa.binary())]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


@pytest.mark.parametrize("content", [None, b"", b"12345678"])
def test_the_state_of_another_definition_is_refused(content: bytes | None) -> None:
    engine = FeatureEngine(MANY)
    with pytest.raises(ConfigurationError, match="state of another definition of shops"):
        engine.load(["u"], with_packed(stored(MANY), content))
    assert engine.missing(["u"]) == ["u"]


def test_a_sliding_window_without_a_tally_stores_nothing() -> None:
    use_case = case({"spent": Group(("pay",), windows=(Sliding("1h", 6),), give=(SINCE,))})
    assert use_case.row_schema.names == ["user", "applied", "clock", "spent_at"]
    assert stored(use_case).num_rows == 1
