"""The hook of the notebook, where there is one: it sees the events of each message alone, once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from modelstream.events.checking import Checked, EventChecker, MessageLines
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
