"""What an event itself says becomes features, in columns, as one row at a time would."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.features.own import OwnFeatures
from modelstream.use_case.file import parse_use_case
from modelstream.use_case.vocabulary import Category

USE_CASE = parse_use_case(
    """
version: 2
name: heating
key: house
time: at
type: kind
fields: {house: key, at: time, kind: text, celsius: number, floor: integer, lit: boolean, room: text, seen: time}
events: {reading: {}}
features:
  double: {compute: celsius * 2, otherwise: 7}
  celsius: {number: celsius, otherwise: -1}
  floor: {number: floor}
  lit: {number: lit}
  price: {look_up: prices, by: room, otherwise: 3}
  hour: {hour: at, offset: "-03:30"}
  weekday: {weekday: at}
  hour_seen: {hour: seen}
  room: {category: room, one_of: [bath, hall]}
  level: {category: floor, one_of: ["0", "1"]}
  count: {of: reading, give: [count]}
  ratio: {compute: double / (floor - 1), otherwise: 0.5}
predict_on: [reading]
model: {name: frost, prediction: will_freeze}
"""
)
NAMES = USE_CASE.computed
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(-(10**15), 4 * 10**15),
            "celsius": st.none() | st.floats(-1e3, 1e3),
            "floor": st.none() | st.integers(-1, 3) | st.integers(-(2**63), 2**63 - 1),
            "lit": st.none() | st.booleans(),
            "room": st.none() | st.sampled_from(["bath", "hall", "attic", "other", ""]),
            "price": st.none() | st.floats(0, 10),
        }
    ),
    max_size=8,
)


def slowly(row: dict[str, Any]) -> dict[str, float]:
    at = EPOCH + row["at"] * MICROSECOND
    found: dict[str, float] = {
        "celsius": -1.0 if row["celsius"] is None else row["celsius"],
        "floor": float(row["floor"] or 0),
        "lit": float(row["lit"] or False),
        "price": 3.0 if row["price"] is None else row["price"],
        "hour": float(at.astimezone(timezone(-timedelta(hours=3, minutes=30))).hour),
        "weekday": float(at.weekday()),
        "hour_seen": 0.0,
        **{f"room_{name}": float(row["room"] == name) for name in ("bath", "hall")},
        "room_other": float(row["room"] not in ("bath", "hall")),
        **{f"level_{level}": float(row["floor"] == level) for level in (0, 1)},
        "level_other": float(row["floor"] not in (0, 1)),
    }
    found["double"] = found["celsius"] * 2
    below = found["floor"] - 1
    found["ratio"] = found["double"] / below if below else 0.5
    return found


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    schema = USE_CASE.event_schema
    columns = {name: pa.array([row[name] for row in rows], schema.field(name).type) for name in rows[0]} if rows else {}
    return pa.RecordBatch.from_pydict(columns) if columns else pa.record_batch({"at": pa.array([], pa.int64())})


@given(ROWS, st.data())
def test_each_row_has_what_it_says(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    which = data.draw(st.lists(st.sampled_from(range(len(rows))), unique=True).map(sorted)) if rows else []
    vectors = np.full((len(NAMES), len(which)), 99.0)
    OwnFeatures(USE_CASE).fill(batch(rows), np.array(which, np.int64), vectors)
    for column, row in enumerate(which):
        found = dict(zip(NAMES, vectors[:, column].tolist(), strict=True))
        assert found == {**slowly(rows[row]), "count_count": 99.0}


def test_columns_that_are_missing_are_null() -> None:
    vectors = np.full((len(NAMES), 2), 99.0)
    events = pa.record_batch({"at": pa.array([0, 0], pa.timestamp("us", "UTC"))})
    OwnFeatures(USE_CASE).fill(events, np.array([0, 1]), vectors)
    row = {"at": 0, "celsius": None, "floor": None, "lit": None, "room": None, "price": None}
    assert dict(zip(NAMES, vectors[:, 1].tolist(), strict=True)) == {**slowly(row), "count_count": 99.0}


def test_of_a_stored_row_is_known_what_needs_no_event() -> None:
    use_case = parse_use_case(
        """
{version: 2, name: heating, key: house, time: at, type: kind, fields: {house: key, at: time, kind: text, c: number},
 events: {reading: {}}, predict_on: [reading], model: {name: frost, prediction: will_freeze},
 features: {c: {number: c}, all: {of: reading, value: c, give: [sum, count]}, more: {compute: all_sum / all_count},
            next: {compute: more + c}, two: {compute: 1 + 1}}}
"""
    )
    known = {"all_sum": np.array([6.0, 0.0]), "all_count": np.array([2.0, 0.0])}
    found = OwnFeatures(use_case).readable(known, 2)
    assert {name: column.to_pylist() for name, column in found.items()} == {
        "c": [None, None],
        "more": [3.0, 0.0],
        "next": [None, None],
        "two": [2.0, 2.0],
    }


def test_a_table_gives_each_category_its_value(tmp_path: Any) -> None:
    (tmp_path / "rooms.csv").write_text('category,value\nbath,2.5\n"a,b",-1\n')
    text = """
{version: 2, name: heating, key: house, time: at, type: kind, fields: {house: key, at: time, kind: text, room: text},
 events: {reading: {}}, features: {risk: {category: room, table: rooms.csv, otherwise: 9}}, predict_on: [reading],
 model: {name: frost, prediction: will_freeze}}
"""
    use_case = parse_use_case(text, "it.yaml", tmp_path)
    vectors = np.empty((1, 4))
    events = pa.record_batch({"room": ["bath", "a,b", None, "hall"]})
    OwnFeatures(use_case).fill(events, np.arange(4), vectors)
    assert vectors.tolist() == [[2.5, -1.0, 9.0, 9.0]]


@given(st.integers(1, 40), st.lists(st.none() | st.integers(0, 45).map(str), max_size=12))
def test_a_table_of_any_size_gives_each_category_its_value(size: int, asked: list[str | None]) -> None:
    table = {str(i): i / 8 for i in range(size)}
    form = Category("room", table="rooms.csv", otherwise=-1.0, values=table)
    use_case = msgspec.structs.replace(USE_CASE, forms={"risk": form})
    vectors = np.empty((1, len(asked)))
    events = pa.record_batch({"room": pa.array(asked, pa.string())})
    OwnFeatures(use_case).fill(events, np.arange(len(asked)), vectors)
    assert vectors[0].tolist() == [table.get(one or "", -1.0) for one in asked]


def test_a_number_that_is_none_is_otherwise() -> None:
    events = pa.record_batch({"celsius": [math.nan, math.inf, 1.5], "price": [-math.inf, math.nan, 2.5]})
    vectors = np.empty((len(NAMES), 3))
    OwnFeatures(USE_CASE).fill(events, np.arange(3), vectors)
    found = dict(zip(NAMES, vectors.tolist(), strict=True))
    assert (found["celsius"], found["price"]) == ([-1.0, -1.0, 1.5], [3.0, 3.0, 2.5])


@pytest.mark.parametrize("form", ["{number: celsius}", "{compute: 1 + 1}"])
def test_whether_there_is_anything_to_fill_is_known(form: str) -> None:
    text = f"""
{{version: 2, name: heating, key: house, time: at, type: kind,
 fields: {{house: key, at: time, kind: text, celsius: number}}, events: {{reading: }}, predict_on: [reading],
 features: {{count: {{of: reading, give: count}}, more: {form}}}, model: {{name: frost, prediction: will_freeze}}}}
"""
    assert OwnFeatures(parse_use_case(text)).needed
    assert not OwnFeatures(parse_use_case(text.replace(f", more: {form}", ""))).needed
