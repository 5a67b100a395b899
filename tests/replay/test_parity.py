"""Replayed vectors are compared with the served ones one by one, to the bit, in whatever batches they come."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.logs import Log
from modelstream.replay.parity import MOST, Differences, Parity, ServedVectors
from modelstream.use_case.file import parse_use_case

USE_CASE = parse_use_case("""
{version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
 fields: {house: key, at: time, kind: text, celsius: number},
 events: {reading: {value: celsius}}, predict_on: [reading], model: {name: frost, prediction: will_freeze}}""")
Vector = tuple[str, int, float, float]
"""Origin, position, and two features."""
OTHER_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0001))[0]


def batch(vectors: Sequence[Vector]) -> pa.RecordBatch:
    origins, positions, means, counts = zip(*vectors, strict=True) if vectors else ((), (), (), ())
    return pa.record_batch(
        {
            "house": pa.array([f"h{position}" for position in positions], pa.string()),
            "origin": pa.array(origins, pa.string()),
            "position": pa.array(positions, pa.int64()),
            "reading_mean": pa.array(np.array(means, np.float64)),
            "reading_count": pa.array(np.array(counts, np.float64)),
        }
    )


class InferenceLog:
    """A log of so many batches."""

    def __init__(self, batches: list[Sequence[Vector]]) -> None:
        self.batches = batches
        self.asked: list[Any] = []

    def scan(self, columns: list[str], shards: Sequence[int] | None) -> Iterator[pa.RecordBatch]:
        self.asked.append((columns, shards))
        return iter([batch(vectors).select(columns) for vectors in self.batches])


def cut(vectors: list[Vector], places: list[int]) -> list[Sequence[Vector]]:
    """Return vectors in batches, some of them empty, that begin at so many places."""
    ends = [0, *sorted(place % (len(vectors) + 1) for place in places), len(vectors)]
    return [vectors[start:end] for start, end in pairwise(ends)]


def compared(served: list[Sequence[Vector]], replayed: list[Sequence[Vector]]) -> Parity:
    found = Parity()
    comparison = ServedVectors(USE_CASE, cast(Log, InferenceLog(served)), None)
    for vectors in replayed:
        made = batch(vectors)
        comparison.compare(made.column("origin"), made, found)
    comparison.end(found)
    return found


def counted(served: list[Vector], replayed: list[Vector]) -> tuple[int, int, int]:
    """Return how many vectors are equal, how many differ, and how many only one side has: slowly."""
    equal = differing = 0
    for ours, theirs in zip(replayed, served, strict=False):
        if ours[:2] != theirs[:2]:
            return equal, differing + 1, 0
        same = all(
            struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
            for one, other in zip(ours[2:], theirs[2:], strict=True)
        )
        equal, differing = equal + same, differing + (not same)
    return equal, differing, abs(len(served) - len(replayed))


FEATURES = st.sampled_from([0.0, -0.0, 0.1 + 0.2, 0.3, 1e308, math.inf, math.nan, OTHER_NAN])
VECTORS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), FEATURES, FEATURES), max_size=12)
CHANGES = st.lists(st.tuples(st.sampled_from(["gone", "more", "other"]), st.integers(0, 12)), max_size=3)
CUTS = st.lists(st.integers(0, 12), max_size=4)


@settings(max_examples=400)
@given(VECTORS, CHANGES, st.tuples(st.just("a"), st.just(9), FEATURES, FEATURES), CUTS, CUTS)
@example([("a", 0, math.nan, 0.0)], [("other", 0)], ("a", 9, OTHER_NAN, 0.0), [], [])
@example([("a", 0, 0.0, 0.0)] * 3, [("gone", 1), ("gone", 1), ("more", 0)], ("a", 9, 0.0, 0.0), [], [])
def test_every_vector_is_equal_differs_or_is_missed_whatever_the_batches(
    served: list[Vector], changes: list[tuple[str, int]], new: Vector, cuts: list[int], others: list[int]
) -> None:
    replayed = list(served)
    for what, number in changes:
        place = number % (len(replayed) + 1)
        if what == "more":
            replayed.insert(place, new)
        elif place < len(replayed):
            replayed[place : place + 1] = [] if what == "gone" else [(*replayed[place][:2], *new[2:])]
    found = compared(cut(served, cuts), cut(replayed, others))
    assert (found.vectors, found.differing.count, found.unmatched.count) == counted(served, replayed)
    for one in (found.differing, found.unmatched):
        assert len(one.first) == 0 if one.count == 0 else 1 <= len(one.first) <= min(MOST, one.count)


A, B, C = ("a", 1, 1.0, 1.0), ("a", 2, 2.0, 2.0), ("b", 3, 3.0, 3.0)


@pytest.mark.parametrize(
    ("served", "replayed", "said"),
    [
        ([A, B], [A], ["1 vector in the inference log"]),
        ([A], [A, B, C], ["2 vectors missing from the inference log", "of h2 after the event 2 of a"]),
        (
            [A, C],
            [A, B],
            ["replay", "of h2 after the event 2", "inference log", "of h3 after the event 3"],
        ),
        ([A, ("a", 2, 2.5, 7.0)], [A, B], ["of h2 after the event 2 of a: reading_mean was served as 2.5 and is 2.0"]),
        ([("a", 1, 1.0, -0.0)], [("a", 1, 1.0, 0.0)], ["reading_count was served as -0.0 and is 0.0"]),
    ],
)
def test_a_difference_is_told_in_words(served: list[Vector], replayed: list[Vector], said: list[str]) -> None:
    found = compared([served], [replayed])
    (told,) = [*found.differing.first, *found.unmatched.first]
    places = [told.find(words) for words in said]
    assert -1 not in places and places == sorted(places), told


def test_only_the_shards_and_columns_that_are_compared_are_read() -> None:
    log = InferenceLog([])
    ServedVectors(USE_CASE, cast(Log, log), [1, 3])
    assert log.asked == [(["house", "origin", "position", "reading_mean", "reading_count"], [1, 3])]


def test_the_first_differences_are_kept_in_words_and_all_are_counted() -> None:
    found = Differences()
    found.add("nothing", 0)
    for number in range(3 * MOST):
        found.add(f"number {number}", 2)
    assert found.count == 6 * MOST
    assert found.first == [f"number {number}" for number in range(MOST)]
