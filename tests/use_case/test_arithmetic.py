"""Arithmetic over features gives what Python gives, one value at a time, and lets nothing else be computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.use_case.arithmetic import DEEPEST, LONGEST, ExpressionError, evaluate, names, parse, rewritten

VALUES = st.floats(-1e9, 1e9, allow_nan=False)
LEAVES = st.sampled_from(["a", "b", "spend_1h_sum", "2", "0.5", "1e3"])
WRITTEN: st.SearchStrategy[str] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        st.builds("-{}".format, inner),
        st.builds("log1p(max({}, 0))".format, inner),
    ),
    max_leaves=12,
)


def slowly(text: str, values: dict[str, float]) -> float:
    """Compute with Python's own numbers; NaN where that is an error, such as a division by zero."""
    functions: dict[str, Any] = {"min": min, "max": max, "log1p": math.log1p, "__builtins__": {}}
    try:
        return float(eval(text, functions, values))
    except (ZeroDivisionError, OverflowError, ValueError):
        return math.nan


@given(WRITTEN, st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=5))
def test_values_are_those_of_python_to_the_bit(text: str, rows: list[tuple[float, float, float]]) -> None:
    columns = {
        name: np.array(values) for name, values in zip(("a", "b", "spend_1h_sum"), zip(*rows, strict=True), strict=True)
    }
    with np.errstate(all="ignore"):
        found = np.broadcast_to(evaluate(parse(text), columns.__getitem__), len(rows))
    for got, row in zip(found.tolist(), rows, strict=True):
        wanted = slowly(text, dict(zip(("a", "b", "spend_1h_sum"), row, strict=True)))
        if math.isfinite(wanted):
            assert math.isclose(got, wanted, rel_tol=1e-15 if "log1p" in text else 0) or got == wanted


def test_names_are_found_once_in_their_order() -> None:
    assert names(parse("b / (a + b) - log1p(c)")) == ["b", "a", "c"]
    assert names(parse("1 + 2")) == []


def test_a_sum_of_a_hundred_features_is_not_too_deep() -> None:
    assert evaluate(parse(" + ".join("a" * DEEPEST)), lambda _: np.array([1.0])) == 100


@pytest.mark.parametrize(
    ("text", "written"),
    [("(a/b)+1", "a / b + 1"), (" a - (b-c) ", "a - (b - c)"), ("min( a,2 )", "min(a, 2)"), ("a **", "a **")],
)
def test_an_expression_is_written_in_one_way(text: str, written: str) -> None:
    assert rewritten(text) == written


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a **", "can't be read from column"),
        ("", "can't be read from column"),
        ("a = 1", "can't be read from column"),
        ("a if b else c", "'a if b else c' can't be computed"),
        ("a.b", "'a.b' can't be computed"),
        ("a[0]", "'a[0]' can't be computed"),
        ("__import__('os')", "can't be computed"),
        ("(lambda: 1)()", "can't be computed"),
        ("sum(a, b)", "'sum(a, b)' can't be computed"),
        ("min(a)", "min takes 2 values, not 1"),
        ("log1p(a, b)", "log1p takes 1 value, not 2"),
        ("max(a, key=b)", "can't be computed"),
        ("'a' + b", "can't be computed"),
        ("True + a", "can't be computed"),
        ("1j", "can't be computed"),
        ("1e999", "can't be computed"),
        ("a < b", "can't be computed"),
        ("+a", "can't be computed"),
        ("a // b", "can't be computed"),
        ("a\0b", "it can't be read"),
        ("-" * DEEPEST + "a", "it is nested more than 100 deep"),
        ("-" * (LONGEST - 1) + "a", "nested"),
        ("(" * 400 + "a" + ")" * 400, "can't be read"),
        ("a + " * 300 + "a", "longer than 1,000 characters"),
    ],
)
def test_anything_else_is_told(text: str, problem: str) -> None:
    with pytest.raises(ExpressionError) as told:
        parse(text)
    assert problem in str(told.value)
