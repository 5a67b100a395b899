"""Conditions hold as they read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelstream.features.conditions import Conditions
from modelstream.use_case.vocabulary import Condition, Group, Statistic
from tests.features.cases import batch_of, case

CASE = case({"n": Group(("pay",), give=(Statistic.COUNT,))})
EVENTS: list[dict[str, Any]] = [
    {"user": "u", "at": 0, "kind": "paid", "shop": "5", "n": 2**53 + 1, "x": 1.0, "ok": True},
    {"user": "u", "at": 0, "kind": "back", "shop": "a", "n": 0, "x": -0.0, "ok": False},
    {"user": "u", "at": 0, "kind": "nonsense"},
]


@pytest.mark.parametrize(
    ("field", "condition", "expected"),
    [
        ("shop", Condition(is_=5), [1, 0, 0]),
        ("shop", Condition(is_not="a"), [1, 0, 0]),
        ("shop", Condition(in_=("a", 5)), [1, 1, 0]),
        ("n", Condition(is_=2**53), [0, 0, 0]),
        ("n", Condition(is_=2**53 + 1), [1, 0, 0]),
        ("n", Condition(is_not=0), [1, 0, 0]),
        ("x", Condition(is_=0), [0, 1, 0]),
        ("x", Condition(above=0.0), [1, 0, 0]),
        ("x", Condition(above=-1.0, below=1.0), [0, 1, 0]),
        ("x", Condition(in_=(0, 1)), [1, 1, 0]),
        ("ok", Condition(is_=False), [0, 1, 0]),
        ("ok", Condition(is_not=False), [1, 0, 0]),
        ("y", Condition(is_not=1), [0, 0, 0]),
        ("kind", Condition(is_="pay"), [1, 0, 0]),
        ("kind", Condition(is_not="pay"), [0, 1, 0]),
        ("kind", Condition(in_=("pay", "back")), [1, 1, 0]),
    ],
)
def test_conditions(field: str, condition: Condition, expected: list[int]) -> None:
    codes = np.array([CASE.event_codes.get(event["kind"], -1) for event in EVENTS])
    events = batch_of(EVENTS, CASE)
    assert Conditions(CASE, events, codes).met({field: condition}).tolist() == [bool(x) for x in expected]


def test_all_conditions_must_hold() -> None:
    conditions = Conditions(CASE, batch_of(EVENTS, CASE), np.array([0, 1, -1]))
    both = {"x": Condition(above=-1.0), "shop": Condition(is_="a")}
    assert conditions.met(both).tolist() == [False, True, False]
    assert conditions.met({}).tolist() == [True, True, True]
