"""The hook of the notebook, where there is one: it sees the events of each message alone, once, and mends values."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from modelstream.base.timestamps import LAST, TIMESTAMP
from modelstream.errors import HookError
from modelstream.events.checking import Checked, EventChecker, MessageLines, Transform
from modelstream.messages.identity import bucket_of
from tests.events.test_parsing import CHURN

BAD = b"bad"


def bet(amount: float) -> bytes:
    return b'{"user_id": "u1", "event_time": "2026-03-28 20:00", "event_type": "bet", "bet_amount": %g}' % amount


def message(*lines: bytes) -> MessageLines:
    return MessageLines("file", pa.array(lines, pa.binary()), np.arange(len(lines)), 0)


def amounts(checked: Checked) -> list[float]:
    found: list[float] = checked.events.column("bet_amount").to_pylist()
    return found


MESSAGES = [message(bet(1), BAD, bet(2)), message(), message(BAD), message(bet(3)), message(BAD, bet(4), bet(5))]
"""Eight lines; the first and the last are readable in part, those between them wholly or not at all."""


def test_a_transform_sees_the_events_of_each_message_alone_and_once() -> None:
    seen: list[list[float]] = []

    def note(batch: pa.RecordBatch) -> pa.RecordBatch:
        seen.append(batch.column("bet_amount").to_pylist())
        return batch

    checked = EventChecker(CHURN, note).check(MESSAGES)
    assert seen == [[1, 2], [3], [4, 5]]
    assert amounts(checked) == [1, 2, 3, 4, 5]
    assert checked.indices.tolist() == [0, 2, 4, 6, 7]
    assert [reject.index for reject in checked.rejects] == [1, 3, 5]


@pytest.mark.parametrize("least", [0, 2, 3, 9])
def test_rows_that_a_transform_leaves_out_are_neither_events_nor_refused(least: float) -> None:
    def large(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.filter(pc.greater_equal(batch.column("bet_amount"), least))

    checked = EventChecker(CHURN, large).check(MESSAGES)
    kept = [(place, amount) for place, amount in zip([0, 2, 4, 6, 7], [1, 2, 3, 4, 5], strict=True) if amount >= least]
    assert list(zip(checked.indices.tolist(), amounts(checked), strict=True)) == kept
    assert [reject.index for reject in checked.rejects] == [1, 3, 5]
    buckets = np.zeros(8, np.uint8)
    buckets[[place for place, _ in kept]] = bucket_of("u1")
    assert checked.buckets.tolist() == buckets.tolist()


def test_a_transform_that_changes_nothing_is_as_good_as_none() -> None:
    checked, plain = (EventChecker(CHURN, transform).check(MESSAGES) for transform in (lambda batch: batch, None))
    assert checked.events.equals(plain.events)
    assert checked.indices.tolist() == plain.indices.tolist()
    assert checked.buckets.tolist() == plain.buckets.tolist()
    assert checked.rejects == plain.rejects


# What a transform mends.

OTHERS = [
    b'{"user_id": "u1", "event_time": "28.3.2026 20:00", "event_type": "bet", "bet_amount": 1}',
    b'{"user_id": "u1", "event_time": "2026-03-28 20:00", "event_type": "bet", "bet_amount": "2,50", "name": 5}',
    b'{"user_id": "u1", "event_time": "2026-03-28 20:00", "event_type": "bet", "bet_amount": 3}',
    b'{"user_id": "u1", "event_time": "soon", "event_type": "bet", "bet_amount": "4"}',
]


def filled(batch: pa.RecordBatch, name: str, of: Callable[[object], object]) -> pa.RecordBatch:
    """Return a batch with the values of a field that did not fit, made of what came."""
    values = batch.column(name).to_pylist()
    for row, extra in enumerate(batch.column("extra").to_pylist()):
        if extra and name in (came := json.loads(extra)):
            values[row] = of(came[name])
    place = batch.schema.get_field_index(name)
    return batch.set_column(place, name, pa.array(values, batch.schema.field(place).type))


def german(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Amounts with a comma, and days before months."""
    batch = filled(batch, "bet_amount", lambda text: float(str(text).replace(",", ".")))

    def time(text: object) -> datetime | None:
        return datetime.strptime(f"{text} +0000", "%d.%m.%Y %H:%M %z") if str(text)[:1].isdigit() else None

    return filled(filled(batch, "event_time", time), "name", str)


def test_a_transform_mends_values_that_do_not_fit_their_fields() -> None:
    checked = EventChecker(CHURN, german).check([message(*OTHERS[:3])])
    assert checked.rejects == []
    assert amounts(checked) == [1, 2.5, 3]
    assert checked.events.column("name").to_pylist() == [None, "5", None]
    assert set(checked.events.column("event_time").to_pylist()) == {datetime(2026, 3, 28, 20, tzinfo=UTC)}
    assert checked.events.column("extra").to_pylist() == [
        '{"event_time": "28.3.2026 20:00"}',
        '{"bet_amount": "2,50", "name": 5}',
        None,
    ]


def test_what_a_transform_does_not_mend_is_refused_for_what_came() -> None:
    checked = EventChecker(CHURN, german).check([message(*OTHERS), message(OTHERS[3])])
    told = [(reject.index, reject.reason) for reject in checked.rejects]
    assert told == [(3, "event_time: not an ISO 8601 time: soon"), (4, "event_time: not an ISO 8601 time: soon")]
    assert checked.indices.tolist() == [0, 1, 2]
    unmended = EventChecker(CHURN, lambda batch: batch).check([message(*OTHERS)])
    assert unmended.rejects == EventChecker(CHURN).check([message(*OTHERS)]).rejects


def test_a_row_that_a_transform_leaves_out_is_not_refused_for_what_does_not_fit() -> None:
    checked = EventChecker(CHURN, lambda batch: batch.filter(pc.is_valid(batch.column("event_time")))).check(
        [message(*OTHERS)]
    )
    assert [reject.index for reject in checked.rejects] == [1]
    assert checked.indices.tolist() == [2]


def test_a_time_that_a_transform_moves_out_of_the_years_is_refused_with_its_row() -> None:
    def later(batch: pa.RecordBatch) -> pa.RecordBatch:
        place = batch.schema.get_field_index("event_time")
        moved = pa.array([LAST + 1, *batch.column(place).view(pa.int64()).to_pylist()[1:]]).view(TIMESTAMP)
        return batch.set_column(place, batch.schema.field(place), moved)

    checked = EventChecker(CHURN, later).check([message(bet(1), bet(2))])
    assert [(reject.index, reject.reason) for reject in checked.rejects] == [
        (0, "event_time: outside the years 1 to 9999 in UTC, after transform(batch)")
    ]
    assert amounts(checked) == [2]


# A transform that fails.


def test_the_row_that_a_transform_fails_at_is_told() -> None:
    def halves(batch: pa.RecordBatch) -> pa.RecordBatch:
        assert all(amount != 3 for amount in batch.column("bet_amount").to_pylist())
        return batch

    with pytest.raises(HookError, match="AssertionError") as told:
        EventChecker(CHURN, halves).check([message(*(bet(amount) for amount in range(1000)))])
    assert f"{__file__}, line " in str(told.value)
    assert '"position": 3, ' in str(told.value) and '"bet_amount": 3.0' in str(told.value)
    assert '"position": 2' not in str(told.value)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda _: None, "the columns that it was given, but NoneType"),
        (lambda batch: batch.drop_columns(["city"]), "but the columns position, ingested_at, user_id"),
        (
            lambda batch: batch.set_column(2, "user_id", pa.array([1] * batch.num_rows)),
            "user_id is int64, not string",
        ),
    ],
)
def test_a_transform_that_returns_something_else_is_refused_with_its_place(transform: Transform, said: str) -> None:
    with pytest.raises(HookError) as told:
        EventChecker(CHURN, transform).check([message(bet(1))])
    assert said in str(told.value) and str(told.value).startswith(f"{__file__}, line ")


# Texts that are none.


def test_a_message_in_utf_16_or_with_half_a_surrogate_pair_harms_no_neighbour() -> None:
    foreign = [bet(1).decode().encode("utf-16"), bet(1).replace(b"u1", rb"\ud83d"), bet(1).decode().encode("utf-16-le")]
    checked = EventChecker(CHURN).check([message(bet(1), foreign[0], bet(2), foreign[1], bet(3), foreign[2])])
    assert amounts(checked) == [1, 2, 3]
    assert [(reject.index, reject.reason.partition(":")[0]) for reject in checked.rejects] == [
        (1, "not UTF-8 text"),
        (3, r"\ud83d at byte 13 is half a UTF-16 surrogate pair, not a character"),
        (5, "not UTF-8 text; it looks like UTF-16"),
    ]
