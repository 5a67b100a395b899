"""A row has columns that anybody can read, and one of bytes for the rest."""

from __future__ import annotations

import pytest

from modelstream.use_case.declared import Clock
from modelstream.use_case.stored import stored_columns
from modelstream.use_case.vocabulary import AllTime, From, Group, Recent, Session, Sliding, Statistic, Window
from tests.features.cases import case

ALL: tuple[Window, ...] = (AllTime(),)
FOUR = ["g_sum", "g_mean", "g_count", "g_m2"]


def columns(group: Group, **parts: object) -> list[str]:
    return [column.name for column in stored_columns(case({"g": group}, **parts))]


def given(text: str) -> tuple[Statistic, ...]:
    return tuple(map(Statistic, text.split()))


@pytest.mark.parametrize(
    ("value", "windows", "give", "expected"),
    [
        ("x", ALL, "sum", FOUR),
        ("x", ALL, "last min", [*FOUR, "g_min", "g_last"]),
        (None, ALL, "count", ["g_count"]),
        (None, ALL, "rate share", ["clock", "g_opened", "g_count", "g_shared"]),
        (None, ALL, "since", ["clock", "g_at", "g_count"]),
        (None, (From("pay", "1h"),), "count", ["g_opened", "g_count"]),
        ("shop", ALL, "distinct", ["g_count", "packed"]),
        ("x", (Sliding("1h", 6),), "sum", ["clock", "packed"]),
        ("x", (Sliding("1h", 6),), "since", ["clock", "g_at"]),
        ("x", (Session("1h"),), "since", ["clock", "g_at", "packed"]),
    ],
)
def test_columns_of_a_group(value: str | None, windows: tuple[Window, ...], give: str, expected: list[str]) -> None:
    assert columns(Group(("pay",), value, windows=windows, give=given(give))) == expected


def test_columns_of_all() -> None:
    group = Group(("pay",), "x", give=(Statistic.SUM,))
    assert columns(group, window=From("pay", "1h")) == ["first_pay_time", *FOUR]
    assert columns(group, id="id") == [*FOUR, "packed"]
    assert columns(group, written_time=Clock("at", late="1h")) == ["clock", *FOUR]
    assert columns(Group(("pay",), "x", give=(Recent(2),))) == [*FOUR, "packed"]
