"""The events that the page at `GET /` shows lead to a prediction, whatever they need."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from modelstream.events.checking import EventChecker, MessageLines
from modelstream.http.about import about, example_events
from modelstream.use_case.declared import UseCase
from modelstream.use_case.vocabulary import Category, Condition, From, Group, Number, Statistic
from tests.events.payments import PAYMENTS

COUNT = (Statistic.COUNT,)
USE_CASE: UseCase = msgspec.structs.replace(
    PAYMENTS,
    window=From("refund", "24h"),
    forms={
        **PAYMENTS.event_lookups,
        "own": Number("amount"),
        "shop": Category("shop", one_of=("a", "b")),
        "large": Group(
            ("payment",), where={"amount": Condition(above=100.0), "kind": Condition(is_="paid")}, give=COUNT
        ),
        "some": Group(("payment",), where={"terminal": Condition(in_=("t1", "t2"))}, give=COUNT),
        "small": Group(("refund",), "terminal", where={"amount": Condition(below=5.0)}, give=(Statistic.DISTINCT,)),
    },
)


def test_events_have_what_they_need_and_what_features_are_made_of() -> None:
    refund, payment = example_events(USE_CASE)
    assert refund["kind"] == "refund" and refund.keys() >= {"merchant", "terminal"} and refund["amount"] == 4.0
    assert payment["kind"] == "payment" and payment.keys() >= {"merchant", "online", "shop"}
    assert (payment["amount"], payment["terminal"]) == (101.0, "t1")
    lines = [json.dumps(event).encode() for event in (refund, payment)]
    checked = EventChecker(USE_CASE).check([MessageLines("x", pa.array(lines, pa.binary()), np.arange(2), 0)])
    assert checked.rejects == [] and checked.events.num_rows == 2


def test_ids_differ_and_the_page_says_that_a_retry_is_safe() -> None:
    assert "sent again" not in about(USE_CASE, Path("data"), "http://127.0.0.1:1").replace("send it again", "")
    with_id = msgspec.structs.replace(USE_CASE, id="shop")
    assert [event["shop"] for event in example_events(with_id)] == ["1", "2"]
    page = " ".join(about(with_id, Path("data"), "http://127.0.0.1:1").split())
    assert "What has the shop of one of the last 64 events of a card that counted doesn't count again" in page
