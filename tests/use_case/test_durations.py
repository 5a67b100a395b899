"""A length of time has one writing, and comes back from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.use_case.durations import duration, microseconds, offset_microseconds


@given(st.integers(1, 10**16))
def test_a_length_is_written_so_that_it_comes_back(length: int) -> None:
    assert microseconds(duration(length)) == length


@pytest.mark.parametrize(
    ("text", "length"),
    [("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5_400), ("1d1h1m1s", 90_061)],
)
def test_lengths_are_read(text: str, length: int) -> None:
    assert microseconds(text) == length * 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0s",
        "0d",
        "1",
        "h",
        "-1h",
        "1 h",
        "30m1h",
        "1.5h",
        "1w",
        "١h",
        "9" * 5000 + "d",
        "9" * 400 + "s",
        "0.1234567s",
    ],
)
def test_what_is_no_length_is_none(text: str) -> None:
    assert microseconds(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("+00:00", 0), ("-00:00", 0), ("+01:00", 3_600), ("-03:30", -12_600), ("+14:00", 50_400)]
)
def test_offsets_are_read(text: str, seconds: int) -> None:
    assert offset_microseconds(text) == seconds * 1_000_000


@pytest.mark.parametrize("text", ["", "Z", "1", "01:00", "+1:00", "+25:00", "+01:60", "+0100"])
def test_what_is_no_offset_is_none(text: str) -> None:
    assert offset_microseconds(text) is None
