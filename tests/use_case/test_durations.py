"""Lengths of time are read as they are written, and offsets from UTC too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.use_case.durations import duration, microseconds, offset_microseconds


@given(st.integers(1, 10**17) | st.integers(1, 10**6).map(lambda hours: hours * 3_600_000_000))
def test_a_length_that_is_written_is_read_as_it_was(length: int) -> None:
    assert microseconds(duration(length)) == length


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1.5s", 1.5), ("2m", 120), ("1h30m", 5400), ("24h", 86400), ("1d", 86400), ("1d2h3m4s", 93784)],
)
def test_lengths_are_read(text: str, seconds: float) -> None:
    assert microseconds(text) == seconds * 1_000_000


@pytest.mark.parametrize(
    "text", ["", "0s", "24", "h", "-1h", "1 h", "1h 30m", "30m1h", "1.5h", "1w", "1H", "1h\n", "٣h"]
)
def test_what_is_no_length_is_not_read(text: str) -> None:
    assert microseconds(text) is None


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("+00:00", 0), ("-00:30", -30), ("+05:45", 345), ("+14:00", 840), ("Z", None), ("+1:00", None), ("+01:60", None)],
)
def test_offsets_are_read(text: str, minutes: int | None) -> None:
    assert offset_microseconds(text) == (None if minutes is None else minutes * 60_000_000)
