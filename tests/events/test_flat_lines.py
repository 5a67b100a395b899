"""A line that the flat reader takes has the values that the json module finds; all others it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelstream.events.flat_lines import FlatReader
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).parents[2]
READER = FlatReader(load_use_case(ROOT / "use_cases" / "churn.yaml"))
LINE = (
    b'{"user_id": "u\xc3\xbc1", "event_time": "2026-03-28 20:00:00.25", "event_type": "bet", "bet_amount": 2.5, '
    b'"label": -3, "postcode": 52974, "name": null}'
)
numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


def read(*lines: bytes) -> list[dict[str, object] | None]:
    """Return the values that each line holds, None for one that was left alone."""
    flat = READER.read(pa.array(lines, pa.binary()))
    times = flat.columns["event_time"].cast(pa.int64())
    rows = pa.RecordBatch.from_pydict(flat.columns | {"event_time": times}).to_pylist()
    held = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return [row if good else None for row, good in zip(held, flat.good, strict=True)]


def test_values_have_the_types_of_their_fields() -> None:
    assert read(LINE) == [
        {
            "user_id": "uü1",
            "event_time": 1_774_728_000_250_000,
            "event_type": "bet",
            "bet_amount": 2.5,
            "label": -3,
            "postcode": "52974",
        }
    ]


@given(numbers)
@example("9007199254740993")
@example("0.1e23")
@example("123456789012345.67e-22")
@example("-0.0")
@example("179769313486231580793728971405301e99")
def test_a_number_is_rounded_as_json_rounds_it(text: str) -> None:
    (row,) = read(b'{"bet_amount": ' + text.encode() + b"}")
    if row is not None:
        assert repr(row["bet_amount"]) == repr(float(text))


@pytest.mark.parametrize("text", ["0", "7", "12.5", "-0.25", "1e3", "2.5E-3", "9007199254740992", "1e22", "0.001"])
def test_a_usual_number_is_taken(text: str) -> None:
    assert read(b'{"amount": ' + text.encode() + b"}") == [{"amount": float(text)}]


def test_no_beginning_of_a_line_is_taken_for_a_line() -> None:
    for size in range(len(LINE)):
        assert read(LINE[:size]) == [None], LINE[:size]


@pytest.mark.parametrize("line", [b"{}{}", b'{"amount": 1} }', b"{}}", b'{"name": "}', b"{},{}", b"{ }\n{ }"])
def test_what_comes_after_an_object_makes_it_no_object(line: bytes) -> None:
    assert read(line, b"{}") == [None, {}]


@pytest.mark.parametrize("place", range(3))
def test_what_stands_beside_a_broken_line_does_not_complete_it(place: int) -> None:
    for size in range(len(LINE)):
        lines = [LINE[:size], LINE[size:], LINE]
        lines = lines[place:] + lines[:place]
        alone = [read(line)[0] for line in lines]
        assert read(*lines) == alone


def test_part_of_an_array_is_read_like_a_whole_one() -> None:
    lines = pa.array([b"{}", LINE, b"[", b'{"user_id": "u2"}', b"{}"], pa.binary())
    part = lines.slice(1, 3)
    flat = READER.read(part)
    assert flat.good.tolist() == [True, False, True]
    assert flat.columns["user_id"].to_pylist() == ["uü1", None, "u2"]
    assert flat.columns["bet_amount"].to_pylist() == [2.5, None, None]


def test_a_line_that_is_left_alone_has_no_values() -> None:
    flat = READER.read(pa.array([b'{"user_id": "u1", "bet_amount": 1, "unknown": 1}', b'{"user_id": "u2"}']))
    assert flat.good.tolist() == [False, True]
    assert [flat.columns[name].to_pylist() for name in ("user_id", "bet_amount")] == [[None, "u2"], [None, None]]


def test_the_events_of_the_generator_are_flat() -> None:
    lines = [line for line in (ROOT / "tests/golden/reference_events.ndjson").read_bytes().split(b"\n") if line]
    flat = READER.read(pa.array(lines, pa.binary()))
    assert flat.good.all()
    truths = [json.loads(line) for line in lines]
    for name in ("user_id", "event_type", "bet_amount", "win_amount", "amount", "label", "name"):
        assert flat.columns[name].to_pylist() == [truth.get(name) for truth in truths]
    assert np.array_equal(flat.columns["bet_amount"].is_valid(), ["bet_amount" in truth for truth in truths])
