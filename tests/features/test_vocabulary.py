"""Every statistic in every window equals the oracle's to the bit, however events come and users are stored."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.features.engine import FeatureEngine, NoEventsError, features_of, no_rows, prepare, replay
from modelstream.use_case.declared import Clock, UseCase
from modelstream.use_case.vocabulary import From, Group, Recent, Sliding, Statistic
from tests.features.cases import LOOKED_UP, RandomEvents, batch_of, random_case
from tests.features.cases import case as plain
from tests.vocabulary_oracle import VocabularyOracle

BEGINNINGS = (1_700_000_000_000_000, -7_200_000_000)
"""The second lets times pass 1970, before which steps are counted down."""
PAUSES = (100_000, 2_000_000, 30_000_000, 1_800_000_000)


def lookup(table: str, keys: Sequence[str]) -> list[float | None]:
    return [LOOKED_UP.get((table, key)) for key in keys]


def bits(vector: Sequence[float]) -> list[int]:
    found: list[int] = np.array(vector, np.float64).view(np.int64).tolist()
    return found


class Served:
    """A stage that applies batches of any size, and stores, drops and loads users between them."""

    def __init__(self, rng: random.Random, case: UseCase) -> None:
        self.rng, self.case = rng, case
        self.engine = FeatureEngine(case)
        self.table: dict[str, dict[str, Any]] = {}
        self.position = 0
        self.counted = 0
        self.not_counted: dict[str, int] = {}

    def apply(self, events: Sequence[dict[str, Any]]) -> list[list[float] | None]:
        """Apply events, and return for each the vector that follows it."""
        missing = self.engine.missing([event["user"] for event in events])
        rows = [self.table[key] for key in missing if key in self.table]
        self.engine.load(missing, pa.RecordBatch.from_pylist(rows, schema=self.case.row_schema))
        batch = batch_of(events, self.case)
        applied = self.engine.apply(batch, np.arange(self.position, self.position + len(events)), lookup)
        self.position += len(events)
        self.counted += applied.counted
        for reason, count in applied.not_counted.items():
            self.not_counted[reason] = self.not_counted.get(reason, 0) + count
        vectors: list[list[float] | None] = [None] * len(events)
        for index, vector in zip(applied.indices.tolist(), applied.vectors.tolist(), strict=True):
            vectors[index] = vector
        return vectors

    def store(self) -> None:
        """Store what changed; then go on, begin again with what is stored, or drop some users."""
        self.table |= {row["user"]: row for row in self.engine.changed().to_pylist()}
        self.engine.clean()
        luck = self.rng.random()
        if luck < 0.4:
            self.engine = FeatureEngine(self.case)
        elif luck < 0.7:
            self.engine.evict(2)


def check(rng: random.Random, case: UseCase, events: Sequence[dict[str, Any]], batch: int, where: str = "") -> None:
    """Compare the engine with the oracle at each event, and in what is stored in the end."""
    oracle, served = VocabularyOracle(case, LOOKED_UP), Served(rng, case)
    done = 0
    while done < len(events):
        size = rng.randint(1, batch)
        for event, found in zip(events[done:], served.apply(events[done : done + size]), strict=False):
            expected = oracle.apply(event)
            assert (found is None) == (expected is None), (where, event)
            if found is not None and expected is not None and bits(found) != bits(expected):
                names = [n for n, a, b in zip(case.features, found, expected, strict=True) if bits([a]) != bits([b])]
                raise AssertionError((where, event, {name: case.forms.get(name.split("_")[0]) for name in names}))
        done += size
        if rng.random() < 0.3:
            served.store()
    assert served.not_counted == oracle.not_counted
    assert served.counted == oracle.counted
    served.table |= {row["user"]: row for row in served.engine.changed().to_pylist()}
    check_rows(case, events, oracle, served.table)


def check_rows(
    case: UseCase, events: Sequence[dict[str, Any]], oracle: VocabularyOracle, table: dict[str, dict[str, Any]]
) -> None:
    """Compare stored rows with those of a replay in one batch, and their readable view with the oracle."""
    engine = FeatureEngine(case)
    if events:
        list(replay(case, [batch_of(events, case)], lookup, engine))
    again = {row["user"]: row for row in engine.changed().to_pylist()}
    assert table == again
    rows = pa.RecordBatch.from_pylist(list(table.values()), schema=case.row_schema)
    for row in features_of(rows, case).to_pylist():
        user = oracle.users[row["user"]]
        expected = oracle.features(user, None, as_before=False)
        expected = {n: v for n, v in expected.items() if v == v and n not in case.profile_lookups}
        assert {name: bits([row[name]]) for name in expected} == {name: bits([v]) for name, v in expected.items()}
        assert all(row[name] is None for name in case.computed if name.endswith("_unseen"))
        assert {name: row[name] for name in case.profile_lookups} == {
            name: user.looked_up.get(name) for name in case.profile_lookups
        }


@settings(deadline=None, max_examples=300)
@given(rng=st.randoms(use_true_random=False))
def test_features_equal_the_oracle_to_the_bit(rng: random.Random) -> None:
    case = random_case(rng, groups=2)
    source = RandomEvents(rng, case, rng.randint(1, 3), rng.choice(PAUSES), rng.choice(BEGINNINGS))
    check(rng, case, [source.one() for _ in range(rng.randint(0, 60))], rng.choice([1, 5, 60]))


@pytest.mark.parametrize("seed", range(int(os.environ.get("MODELSTREAM_VOCABULARY_SEEDS", "20"))))
def test_features_of_many_events_equal_the_oracle_to_the_bit(seed: int) -> None:
    """Twenty use cases with 5,000 events each; for a million, set MODELSTREAM_VOCABULARY_SEEDS to 200."""
    rng = random.Random(seed)
    case = random_case(rng)
    source = RandomEvents(rng, case, rng.choice([3, 40, 300]), rng.choice(PAUSES), rng.choice(BEGINNINGS))
    check(rng, case, [source.one() for _ in range(5000)], rng.choice([10, 300, 2000]), f"seed {seed}")


def test_no_rows_have_the_columns_of_the_use_case() -> None:
    case = random_case(random.Random(1))
    assert no_rows(case).schema.equals(case.row_schema)


HOUR = 3_600_000_000
COUNTED = {"n": Group(("pay", "look"), give=(Statistic.COUNT,))}


def outcomes(case: UseCase, *events: dict[str, Any]) -> list[str]:
    """Return for each event its reason, or `counted`; the oracle agrees."""
    served, oracle = Served(random.Random(0), case), VocabularyOracle(case, LOOKED_UP)
    found: list[str] = []
    for event in events:
        before = dict(served.not_counted)
        served.apply([{"user": "u", "kind": "pay", "x": 1.0, **event}])
        oracle.apply({"user": "u", "kind": "pay", "x": 1.0, **event})
        assert served.not_counted == oracle.not_counted
        new = [reason for reason, count in served.not_counted.items() if count != before.get(reason, 0)]
        found.append(*(new or ["counted"]))
    return found


def test_how_far_behind_the_clock_an_event_may_lie() -> None:
    case = plain(COUNTED, written_time=Clock("at", None, "1h"))
    events = [{"at": at} for at in (5 * HOUR, 4 * HOUR, 4 * HOUR - 1, 6 * HOUR, 5 * HOUR - 1)]
    assert outcomes(case, *events) == ["counted", "counted", "too_late", "counted", "too_late"]


def test_how_far_ahead_of_its_arrival_an_event_may_lie() -> None:
    case = plain(COUNTED, written_time=Clock("at", "1h"))
    events = [{"at": at, "ingested_at": HOUR} for at in (2 * HOUR + 1, 2 * HOUR, 0)]
    assert outcomes(case, *events, {"at": 9 * HOUR}) == ["in_the_future", "counted", "counted", "counted"]


def test_what_lies_in_the_future_does_not_move_the_clock() -> None:
    case = plain(COUNTED, written_time=Clock("at", "1h", "1h"))
    assert outcomes(case, {"at": 9 * HOUR, "ingested_at": 0}, {"at": 0}) == ["in_the_future", "counted"]


def test_an_id_is_repeated_while_it_is_among_the_last_64_that_counted() -> None:
    case = plain(COUNTED, id="id")
    events: list[dict[str, Any]] = [{"at": 0, "id": str(i)} for i in [*range(64), 0, 63, 64, 0, 1]]
    events += [{"at": 0}] * 2
    assert outcomes(case, *events)[64:] == ["repeated", "repeated", "counted", "counted", "counted"] + ["counted"] * 2


@pytest.mark.parametrize(("before", "expected"), [(True, "counted"), (False, "window_not_open")])
def test_what_happened_before_the_window_opened(before: bool, expected: str) -> None:
    case = plain(COUNTED, window=From("pay", "1h", before))
    events: list[dict[str, Any]] = [{"at": 5, "kind": "look"}, {"at": 5}, {"at": 4}, {"at": 5 + HOUR}, {"at": 6 + HOUR}]
    assert outcomes(case, *events) == ["window_not_open", "counted", expected, "counted", "window_closed"]


def test_a_repeated_event_is_skipped_by_its_position_before_anything_else() -> None:
    case = plain(COUNTED, id="id")
    engine = FeatureEngine(case)
    engine.load(["u"], no_rows(case))
    events = batch_of([{"user": "u", "at": 0, "kind": "pay", "x": 1.0, "id": "a"}], case)
    assert engine.apply(events, np.array([3]), lookup).counted == 1
    assert engine.apply(events, np.array([3]), lookup).skipped == 1
    assert engine.apply(events, np.array([4]), lookup).not_counted == {"repeated": 1}


def test_an_event_without_what_its_type_needs_is_refused() -> None:
    events = [{"user": "u", "at": 0, "kind": "look"}, {"user": "u", "at": 0, "kind": "paid"}]
    with pytest.raises(NoEventsError, match=r"event 1 of the batch \(pay\) has no finite x"):
        prepare(plain(COUNTED), batch_of(events, plain(COUNTED)))


def test_a_use_case_cannot_ask_for_the_last_values_of_a_sliding_window() -> None:
    group = Group(("pay",), "x", windows=(Sliding("1h", 6),), give=(Recent(2),))
    with pytest.raises(ConfigurationError, match="gives its last 2 values in the window 1h"):
        FeatureEngine(plain({"spent": group}))
