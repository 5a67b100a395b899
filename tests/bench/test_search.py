"""The search for the highest rate that is sustained, against pipelines whose limit is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.search import BEHIND, PRECISE, PROBES, Probe, highest_rate


def limited(limit: float) -> Callable[[float], Probe]:
    """Return the probe of a pipeline that sustains up to a rate."""
    return lambda rate: Probe(rate, 5.0, 20.0 if rate <= limit else 900.0)


@given(st.floats(100, 100_000), st.floats(100, 50_000))
def test_a_limit_is_found_within_the_precision_when_there_are_probes_enough(limit: float, start: float) -> None:
    found = highest_rate(limited(limit), start, probes=30)
    assert found.best is not None
    assert found.is_bound
    assert limit / PRECISE / 1.05 <= found.best.rate <= limit  # rates have two digits


@given(st.floats(1, 500_000), st.floats(10, 500_000), st.integers(1, PROBES))
def test_no_more_probes_than_allowed_and_no_rate_twice(limit: float, start: float, probes: int) -> None:
    found = highest_rate(limited(limit), start, probes=probes)
    rates = [probe.rate for probe in found.probes]
    assert 1 <= len(rates) <= probes
    assert len(set(rates)) == len(rates)
    assert all(50 <= rate <= 200_000 for rate in rates)


@given(st.randoms(use_true_random=False), st.floats(200, 50_000), st.floats(0, 0.5))
def test_noise_never_makes_the_result_more_than_what_held(noise: random.Random, limit: float, share: float) -> None:
    def probe(rate: float) -> Probe:
        hiccup = noise.random() < share
        return Probe(rate, 5.0, 900.0 if hiccup or rate > limit else 20.0)

    found = highest_rate(probe, 3000)
    failed = [p.rate for p in found.probes if not p.holds]
    if found.best is not None:
        assert found.best.rate <= limit
        assert found.best.rate < min(failed, default=math.inf)
        assert found.best in found.probes


def test_what_is_never_sustained_ends_at_the_lowest_rate() -> None:
    found = highest_rate(limited(0), 1000, lowest=100)
    assert found.best is None
    assert not found.is_bound
    assert [probe.rate for probe in found.probes] == [1000, 500, 250, 120, 100]


def test_what_is_always_sustained_ends_at_the_highest_rate_as_a_lower_bound() -> None:
    found = highest_rate(limited(math.inf), 1000, highest=5000)
    assert found.best is not None
    assert (found.best.rate, found.is_bound) == (5000, False)


@pytest.mark.parametrize(
    ("probe", "holds"),
    [
        (Probe(100, 5, 100), True),
        (Probe(100, 5, 101), False),
        (Probe(100, 5, 50, behind=BEHIND + 0.1), False),
        (Probe(100, 5, 50, sent=0.9), False),
        (Probe(100, math.inf, math.inf), False),
    ],
)
def test_a_rate_holds_with_short_delays_no_backlog_and_all_sent(probe: Probe, holds: bool) -> None:
    assert probe.holds is holds
    assert ("not sustained" in str(probe)) is not holds
