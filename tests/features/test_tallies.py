"""Tallies keep what they are asked for, and two of them merge into the statistics of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.features import tallies
from modelstream.features.plan import shape_of
from modelstream.features.terms import COUNT, PARTS

numbers = st.lists(st.floats(-1e6, 1e6), max_size=20)
SHAPE = shape_of(PARTS)


def tally(xs: list[float]) -> list[float]:
    words = np.zeros(len(PARTS))
    for x in xs:
        tallies.update(words, 0, SHAPE, x, x > 0)
    return list(words)


@settings(deadline=None)  # the first call compiles
@given(numbers, numbers)
def test_merged_tallies_are_those_of_all_numbers(older: list[float], newer: list[float]) -> None:
    words = np.array(tally(older) + tally(newer))
    tallies.merge(words, 0, words, len(PARTS), SHAPE)
    assert words[: len(PARTS)].tolist() == pytest.approx(tally(older + newer), rel=1e-6, abs=1e-3)


@settings(deadline=None)  # the first call compiles
@given(numbers, st.sets(st.sampled_from(PARTS[1:])))
def test_a_part_has_the_same_bits_whatever_else_is_kept(xs: list[float], parts: set[str]) -> None:
    if "m2" in parts:
        parts.add("mean")
    kept = [part for part in PARTS if part in {"count", *parts}]
    words, shape = np.zeros(len(kept) + 1), shape_of(kept)
    for x in xs:
        tallies.update(words, 1, shape, x, x > 0)
    whole = dict(zip(PARTS, tally(xs), strict=True))
    assert [x.hex() for x in words.tolist()] == [x.hex() for x in [0.0, *(whole[part] for part in kept)]]


def test_a_cleared_tally_is_one_of_nothing() -> None:
    words = np.array([9.0, *tally([1.0, 2.0])])
    tallies.clear(words, 1, SHAPE)
    assert words.tolist() == [9.0] + [0.0] * len(PARTS)
    assert tallies.variance(words, 1, SHAPE) == words[1 + SHAPE[COUNT]] == 0.0
