"""Event times are read as `datetime` reads them, and nothing else passes for a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.base.times import INVALID, parse_times, time_given
from modelstream.base.timestamps import FIRST, LAST, TIMESTAMP, datetime_of, rows_of
from modelstream.errors import ConfigurationError
from tests.lines_oracle import time_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(texts: list[str | None]) -> list[int | None]:
    return [None if micros == INVALID else micros for micros in parse_times(pa.array(texts, pa.string())).tolist()]


@st.composite
def times(draw: st.DrawFn) -> str:
    """Return a text as a source may write a time; some say a day that doesn't exist."""
    year, month, day = draw(st.integers(0, 9999)), draw(st.integers(0, 13)), draw(st.integers(0, 32))
    date = draw(
        st.sampled_from(
            [f"{year:04d}-{month:02d}-{day:02d}"] * 3
            + [
                f"{year:04d}{month:02d}{day:02d}",
                f"{year:04d}-W{day + 22:02d}-{month}",
                f"{year:04d}W{day:02d}{month % 9}",
            ]
        )
    )
    if draw(st.integers(0, 9)) == 0:
        return date
    clock = draw(st.sampled_from([":", ":", ""])).join(
        f"{draw(st.integers(0, top)):02d}" for top in (24, 60, 60)[: draw(st.integers(2, 3))]
    )
    fraction = draw(st.one_of(st.just(""), st.from_regex(r"[.,][0-9]{1,10}", fullmatch=True)))
    offset = draw(
        st.one_of(
            st.sampled_from(["", "Z", "z", " UTC", "UTC", " Z", "  UTC", " utc"]),
            st.from_regex(r" ?[+-][0-2][0-9](:?[0-6][0-9])?", fullmatch=True),
        )
    )
    return date + draw(st.sampled_from(" Tt_")) + clock + fraction + offset


EDIT = st.tuples(st.integers(0, 40), st.integers(0, 2), st.sampled_from("0123456789-:.,+ZTtz \x00é٣"))


def edited(text: str, edits: list[tuple[int, int, str]]) -> str:
    """Replace, insert or delete characters."""
    for place, what, character in edits:
        at = place % (len(text) + 1)
        text = text[:at] + ("" if what == 2 else character) + text[at + (what != 1) :]
    return text


@settings(deadline=None, max_examples=300)
@given(st.lists(times(), max_size=8))
def test_times_are_read_as_datetime_reads_them(texts: list[str]) -> None:
    assert parse([*texts]) == [time_of(text) for text in texts]


@settings(deadline=None, max_examples=300)
@given(times(), st.lists(EDIT, min_size=1, max_size=3))
@example("2026-03-28T20:01:19", [(19, 1, "٣")])
def test_a_text_that_is_almost_a_time_is_told_from_one(text: str, edits: list[tuple[int, int, str]]) -> None:
    text = edited(text, edits)
    assert parse([text]) == [time_of(text)]


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_what_datetime_writes_is_read(moment: datetime) -> None:
    expected = (moment - EPOCH) // timedelta(microseconds=1)
    local = moment.replace(tzinfo=None)
    assert parse([moment.isoformat(), moment.isoformat(" "), local.isoformat("T", "microseconds")]) == [expected] * 3


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01 00:00", 0),
        ("1969-12-31 23:59:59.999999", -1),
        ("1970-01-01 00:00:00.123456789", 123456),
        ("1970-01-01 00:00:00,5", 500000),
        ("1970-01-01T01:30:00+0130", 0),
        ("1970-01-01T01:00:00+01", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("2000-02-29 00:00:00Z", 951782400000000),
        ("1900-02-29 00:00:00", None),  # 1900 was no leap year
        ("2026-01-01 24:00:00", None),
        ("2026-01-01 00:00:60", None),
        ("2026-01-01 00:00:00.1234567890", None),
        ("2026-01-01 00:00:00.", None),
        ("2026-01-01 00:00.5", None),
        ("2026-01-01 00:00:00 UTC", 1767225600000000),
        ("2026-01-01 01:00:00.5 +0100", 1767225600500000),
        ("2026-01-01", 1767225600000000),
        ("20260101", 1767225600000000),
        ("2026-W01-4", 1767225600000000),
        ("2026W014T000000Z", 1767225600000000),
        ("20260101T000000.25Z", 1767225600250000),
        ("20260101 00:00", 1767225600000000),
        ("2020-W53-7", 1609632000000000),
        ("2021-W53-1", None),  # 2021 had 52 weeks
        ("2026-01-01T0000", None),  # either all dashes and colons, or the date without dashes
        ("2026-01", None),
        ("2026-W01", None),
        ("2026-01-01T", None),
        ("2026-01-01 UTC", None),
        ("2026-01-01 00:00:00 GMT+1", None),
        ("0001-01-01T00:00:00", -62135596800000000),
        ("9999-12-31T23:59:59.999999999", 253402300799999999),
        ("9999-12-31T23:59:59-05:00", None),  # .NET's MaxValue, in New York
        ("0001-01-01T00:00:00+02:00", None),
        ("9999-W52-6T00:00+12:00", None),
        ("0000-01-01", None),
        ("1764000000", None),
        ("", None),
        (" 2026-01-01 00:00:00", None),
        ("2026-01-01 00:00:00 ", None),
        ("2026-01-01 00:00:00+24:00", None),
    ],
)
def test_time(text: str, micros: int | None) -> None:
    assert parse([text]) == [micros]


def test_a_null_is_no_time_and_changes_no_other() -> None:
    assert parse([None, "1970-01-01 00:00:01", None]) == [None, 1_000_000, None]


def test_a_slice_of_an_array_is_read_from_its_place() -> None:
    texts = pa.array(["x", None, "1970-01-01 00:00:01", "1970-01-01 00:00:02", "y"])
    assert parse_times(texts.slice(2, 2)).tolist() == [1_000_000, 2_000_000]
    assert parse_times(texts.slice(5)).tolist() == []
    assert parse_times(pa.array([], pa.string())).tolist() == []
    assert parse_times(pa.array(["", ""])).tolist() == [INVALID, INVALID]


def test_times_that_no_datetime_holds_are_shown_as_text_among_others() -> None:
    """Earlier versions took them, so a log or a table may hold some."""
    outside = [LAST + 1, FIRST - 1]
    batch = pa.record_batch({"at": pa.array([0, None, *outside]).cast(TIMESTAMP), "n": [1, 2, 3, 4]})
    assert [row["at"] for row in rows_of(batch)] == [
        *(EPOCH, None),
        "10000-01-01T00:00:00.000000Z",
        "0000-12-31T23:59:59.999999Z",
    ]
    assert rows_of(batch.slice(0, 2)) == batch.slice(0, 2).to_pylist()
    assert [datetime_of(micros) for micros in outside] == [
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ]


# What a person gives.


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-01-01", 1_767_225_600_000_000),
        ("2026-01-01T00:00", 1_767_225_600_000_000),
        ("2026-01-01 01:00:00+01:00", 1_767_225_600_000_000),
        (" 2026-01-01 00:00:00Z ", 1_767_225_600_000_000),
        ("90s", (1_000_000 - 90) * 1_000_000),
        ("1.5d", (1_000_000 - 129_600) * 1_000_000),
    ],
)
def test_a_time_is_given_as_text_or_as_so_long_ago(text: str, microseconds: int) -> None:
    assert time_given(text, "--since", now=1_000_000) == microseconds


@pytest.mark.parametrize("text", ["", "yesterday", "5", "-1h", "2026-13-01", "2026-01-01T", "１h", "99999999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--until {text!r} is neither a time nor a duration") as error:
        time_given(text, "--until")
    assert "7d" in error.value.remedy and "2026-11-20" in error.value.remedy
