"""An event's identity is the same in every process and for ever, and a watermark lets every row pass once."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.messages.identity import (
    BUCKETS,
    MAX_EPOCH,
    MAX_EVENTS_A_MESSAGE,
    MAX_OFFSET,
    Watermarks,
    bucket_of,
    buckets_of,
    stream_origin,
    stream_position,
)

KNOWN = {"": 0, "u1": 63, "0": 44, "123": 5, "ü☂😀": 4, "a" * 1000: 35}
"""Stored data depend on these: a test that fails here means that no old folder can be read on."""


@pytest.mark.parametrize("key", KNOWN)
def test_the_bucket_of_a_key_never_changes(key: str) -> None:
    assert bucket_of(key) == KNOWN[key]


def test_the_bucket_of_a_key_is_the_same_in_another_process() -> None:
    code = f"from modelstream.messages.identity import bucket_of; print([bucket_of(k) for k in {[*KNOWN]!a}])"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str([*KNOWN.values()])


@given(st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=3))), st.integers(0, 3))
def test_buckets_of_many_keys_are_those_of_each(keys: list[str | None], start: int) -> None:
    array = pa.array(keys, pa.string())
    assert buckets_of(array).tolist() == [bucket_of(key or "") for key in keys]
    assert buckets_of(array.slice(start)).tolist() == [bucket_of(key or "") for key in keys[start:]]


def test_buckets_are_used_evenly() -> None:
    counts = np.bincount(buckets_of(pa.array([f"user-{i}" for i in range(64_000)])), minlength=BUCKETS)
    assert len(counts) == BUCKETS
    assert counts.min() > 850
    assert counts.max() < 1150


PLACES = st.tuples(st.integers(0, MAX_EPOCH), st.integers(0, MAX_OFFSET), st.integers(0, MAX_EVENTS_A_MESSAGE))


@given(PLACES, PLACES)
def test_stream_positions_rise_with_epoch_offset_and_index_and_floats_hold_them(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    position = stream_position(*one)
    assert (position < stream_position(*other)) == (one < other)
    assert int(float(position)) == position < 2**53
    assert (position >> 48, position >> 14 & MAX_OFFSET, position & MAX_EVENTS_A_MESSAGE) == one


@pytest.mark.parametrize(
    "place", [(-1, 0, 0), (MAX_EPOCH + 1, 0, 0), (0, -1, 0), (0, MAX_OFFSET + 1, 0), (0, 0, 1 << 14)]
)
def test_a_place_without_a_position_is_refused(place: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no position"):
        stream_position(*place)


def test_origins_of_streams_differ_by_shard() -> None:
    assert len({stream_origin(stream, shard) for stream in ("a", "b") for shard in range(64)}) == 128


BATCHES = st.lists(
    st.tuples(
        st.sampled_from(["a.ndjson", "b.ndjson"]),
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, BUCKETS - 1)), max_size=8).map(sorted),
        st.booleans(),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(BATCHES)
def test_a_row_passes_once_if_its_bucket_has_not_passed_it(batches: list) -> None:  # type: ignore[type-arg]
    marks = Watermarks()
    highest: dict[tuple[str, int], int] = {}
    for origin, rows, stored in batches:
        expected = []
        for position, bucket in rows:
            new = position > highest.get((origin, bucket), -1)
            expected.append(new)
            if new:
                highest[origin, bucket] = position
        positions = np.array([position for position, _ in rows], np.int64)
        buckets = np.array([bucket for _, bucket in rows], np.uint8)
        assert marks.advance(origin, positions, buckets).tolist() == expected
        assert {(o, b): p for o, b, p in marks.items()} == highest
        assert all(marks.get(o, b) == p for (o, b), p in highest.items())
        if stored:
            marks = Watermarks.from_json(marks.to_json())


def test_a_repeated_message_lets_no_row_pass() -> None:
    marks = Watermarks()
    positions, buckets = np.array([3, 4, 9]), np.array([1, 63, 1], np.uint8)
    assert marks.advance("a", positions, buckets).all()
    assert not marks.advance("a", positions, buckets).any()
    assert marks.advance("b", positions, buckets).all()


def test_a_bucket_behind_another_is_not_held_back() -> None:
    """Per origin alone loses rows: an origin's keys spread over several consumers."""
    marks = Watermarks()
    marks.advance("a", np.array([100]), np.array([1], np.uint8))
    assert marks.advance("a", np.array([7]), np.array([2], np.uint8)).tolist() == [True]


def test_position_0_counts() -> None:
    marks = Watermarks()
    assert marks.get("a", 0) == -1
    assert marks.advance("a", np.array([0]), np.array([0], np.uint8)).tolist() == [True]
    assert marks.advance("a", np.array([0]), np.array([0], np.uint8)).tolist() == [False]
    assert Watermarks.from_json(marks.to_json()).get("a", 0) == 0
