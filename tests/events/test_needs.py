"""An event without a field that its type needs is refused with the field's name, whichever reader takes its line."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.events.checking import EventChecker, MessageLines
from modelstream.events.flat_lines import FlatReader
from modelstream.events.parsing import LineParser
from tests.events.payments import PAYMENTS, line

CHECKER = EventChecker(PAYMENTS)
WITH_HOOK = EventChecker(PAYMENTS, lambda batch: batch)


def reasons(*lines: bytes, checker: EventChecker = CHECKER) -> list[tuple[int, str]]:
    found = checker.check([MessageLines("file", pa.array(lines, pa.binary()), np.arange(len(lines)), 0)])
    return [(reject.index, reject.reason) for reject in found.rejects]


@pytest.mark.parametrize(
    ("kind", "without", "reason"),
    [
        ("payment", ["amount"], "amount: missing"),
        ("payment", ["merchant"], "merchant: missing"),
        ("paid", ["online"], "online: missing"),
        ("payment", ["online", "merchant"], "merchant: missing"),
        ("refund", ["merchant", "amount"], "merchant: missing"),
        ("refund", ["amount"], None),
        ("closed", ["amount", "merchant", "online"], None),
        ("unknown", ["amount", "merchant", "online"], None),
        ("payment", ["card", "amount"], "card: missing"),
    ],
)
def test_the_first_field_that_is_missing_is_told(kind: str, without: list[str], reason: str | None) -> None:
    lacking = line(kind, **dict.fromkeys(without))
    spelled = lacking.replace(b'"kind"', b'"k\\u0069nd"')  # with an escape it is read the slow way
    expected = [(1, reason)] if reason else []
    for checker in (CHECKER, WITH_HOOK):
        assert reasons(line(), lacking, line("refund"), checker=checker) == expected
        assert reasons(line(), spelled, line("refund"), checker=checker) == expected


def test_a_number_that_is_needed_is_finite() -> None:
    def spoil(batch: pa.RecordBatch) -> pa.RecordBatch:
        place = batch.schema.get_field_index("amount")
        return batch.set_column(place, batch.schema.field(place), pa.array([float("nan")] * batch.num_rows))

    assert reasons(line(), line("closed"), checker=EventChecker(PAYMENTS, spoil)) == [
        (0, "amount: not a finite number")
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["payment", "paid", "refund", "closed", "other"]),
            st.sets(st.sampled_from(["amount", "merchant", "online", "card", "at"])),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_fast_reader_is_content_exactly_if_nothing_is_missing(made: list[tuple[str, set[str]]]) -> None:
    lines = [line(kind, **dict.fromkeys(without)) for kind, without in made]
    needs: dict[str, set[str]] = {"payment": {"amount", "merchant", "online"}, "refund": {"merchant"}}
    needs["paid"] = needs["payment"]
    lacking = [bool(without & (needs.get(kind, set()) | {"card", "at"})) for kind, without in made]
    assert FlatReader(PAYMENTS).read(pa.array(lines, pa.binary())).complete is not any(lacking)
    assert [index for index, _ in reasons(*lines)] == [index for index, lacks in enumerate(lacking) if lacks]


# Values that are looked up are nobody's to send.


@pytest.mark.parametrize("value", [0.25, "high", None, {"x": 1}])
def test_a_field_called_as_a_value_that_is_looked_up_stands_in_extra(value: Any) -> None:
    sent = json.loads(line()) | {"risk": value, "shop_risk": value}
    events = LineParser(PAYMENTS).parse([json.dumps(sent).encode()], np.arange(1), 0).events
    assert events.schema == PAYMENTS.event_schema
    assert [events.column(name).to_pylist() for name in PAYMENTS.event_lookups] == [[None]] * 3
    assert json.loads(events.column("extra")[0].as_py()) == {"risk": value, "shop_risk": value}
