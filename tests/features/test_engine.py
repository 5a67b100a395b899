"""Features come out to the bit, however events are batched, delivered again, or their users stored and reloaded."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.errors import UnavailableError
from modelstream.features import kernel
from modelstream.features.engine import Applied, FeatureEngine, features_of, no_lookup, no_rows, replay
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case, parse_use_case
from tests.oracle import Event, Oracle, batch_of, bits, lookup_in, read_events, read_values

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
BOILERS = load_use_case(ROOT / "tests" / "use_cases" / "boilers.yaml")
BARE = parse_use_case("""
{version: 1, name: bare, key: k, time: t, type: e, fields: {k: key, t: time, e: text, x: number},
 events: {tick: {value: x}}, statistics: [var], predict_on: [tick], model: {name: m, prediction: p}}
""")
UNWINDOWED = parse_use_case("""
{version: 1, name: unwindowed, key: k, time: t, type: e, fields: {k: key, t: time, e: text, x: number},
 events: {hello: , tick: {value: x}, tock: {value: x}}, profile: {event: hello, time: met_at},
 statistics: [mean, sum], predict_on: [hello, tock], model: {name: m, prediction: p}}
""")
OF_VERSION_1 = ("unknown_type", "unregistered", "window_not_open", "window_closed")
VALUES = {"a": 1.5, "b": -0.0, "7": 1e300}


class Table:
    """A table of rows: a row is replaced only by one that has applied more. Like SQLite it gives back NaN as null."""

    def __init__(self, case: UseCase) -> None:
        self._schema = case.row_schema
        self._key = case.key
        self.rows: dict[str, dict[str, Any]] = {}

    def get(self, keys: Sequence[str]) -> pa.RecordBatch:
        found = [self.rows[key] for key in keys if key in self.rows]
        return pa.RecordBatch.from_pylist(found, schema=self._schema)

    def put(self, rows: pa.RecordBatch) -> None:
        assert rows.schema == self._schema
        for row in rows.to_pylist():
            held = self.rows.get(row[self._key])
            if held is None or row["applied"] > held["applied"]:
                self.rows[row[self._key]] = {name: None if x != x else x for name, x in row.items()}


def deliver(
    engine: FeatureEngine, table: Table, events: Sequence[Event], first: int, values: dict[str, float]
) -> Applied:
    """Do what the stage does with a batch of events whose stream positions begin at `first`."""
    case = engine.use_case
    keys = [event[case.key] for event in events]
    missing = engine.missing(keys)
    engine.load(missing, table.get(missing))
    positions = np.arange(first, first + len(events))
    applied = engine.apply(batch_of(events, case), positions, lookup_in(values))
    assert applied.counted + sum(applied.not_counted.values()) + applied.skipped == len(events)
    return applied


def deliver_all(
    case: UseCase, events: Sequence[Event], size: int, values: dict[str, float]
) -> tuple[FeatureEngine, list[Applied]]:
    engine, table = FeatureEngine(case), Table(case)
    starts = range(0, len(events), size)
    return engine, [deliver(engine, table, events[i : i + size], i, values) for i in starts]


def exact(rows: Sequence[dict[str, Any]], case: UseCase) -> dict[str, dict[str, str]]:
    """Return rows by key so that they are equal only if they are to the last bit."""

    def text(value: object) -> str:
        if value is None or value != value:
            return "NaN or null"
        return value.hex() if isinstance(value, float) else repr(value)

    return {row[case.key]: {name: text(value) for name, value in row.items()} for row in rows}


def oracle_rows(oracle: Oracle) -> list[dict[str, Any]]:
    """Return the oracle's rows with times and numbers as Arrow gives them."""
    batch = pa.RecordBatch.from_pylist(oracle.rows(), schema=oracle.use_case.row_schema)
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows


# Golden data


@functools.cache
def golden(name: str) -> tuple[list[Event], dict[str, float], pa.Table, pa.Table]:
    """Return events, values to look up, expected vectors, expected rows."""
    prefix = {"reference": "", "edge": "edge_"}[name]
    return (
        read_events(GOLDEN / f"{name}_events.ndjson", CHURN),
        read_values(GOLDEN / "enrichment.csv"),
        pq.read_table(GOLDEN / f"{prefix}expected_vectors.parquet"),
        pq.read_table(GOLDEN / f"{prefix}expected_rows.parquet"),
    )


GOLDEN_RUNS = [("edge", 1), ("edge", 13), ("edge", 9999), ("reference", 100), ("reference", 1000), ("reference", 99999)]


@pytest.mark.parametrize(("name", "size"), GOLDEN_RUNS)
def test_golden_vectors_come_out_to_the_bit_in_batches_of_any_size(name: str, size: int) -> None:
    events, values, expected, _ = golden(name)
    _, batches = deliver_all(CHURN, events, size, values)
    vectors = np.concatenate([applied.vectors for applied in batches])
    assert bits(vectors) == bits(zip(*(expected[feature].to_pylist() for feature in CHURN.features), strict=True))
    stood_after = [events[i * size + index] for i, applied in enumerate(batches) for index in applied.indices]
    assert [event["user_id"] for event in stood_after] == expected["user_id"].to_pylist()
    names = [CHURN.event_names[code] for applied in batches for code in applied.codes]
    assert [CHURN.event_names[CHURN.event_codes[e["event_type"]]] for e in stood_after] == names


@pytest.mark.parametrize("name", ["edge", "reference"])
def test_golden_rows_come_out_to_the_bit(name: str) -> None:
    events, values, _, expected = golden(name)
    engine, _ = deliver_all(CHURN, events, 1000, values)
    features = pa.Table.from_batches([features_of(engine.changed(), CHURN)])
    found = features.append_column("value", pc.fill_null(features["socioeconomic_idx"], 0.0))
    found = found.drop_columns("socioeconomic_idx").rename_columns({"value": "socioeconomic_idx"})
    assert exact(found.select(expected.schema.names).to_pylist(), CHURN) == exact(expected.to_pylist(), CHURN)


@pytest.mark.parametrize("name", ["edge", "reference"])
def test_the_oracle_itself_agrees_with_the_golden_data(name: str) -> None:
    events, values, expected, _ = golden(name)
    oracle = Oracle(CHURN, values)
    vectors = [vector for i, event in enumerate(events) if (vector := oracle.apply(event, i))]
    assert bits(vectors) == bits(zip(*(expected[feature].to_pylist() for feature in CHURN.features), strict=True))


def test_reasons_are_counted_as_the_oracle_counts_them() -> None:
    events, values, _, _ = golden("edge")
    oracle = Oracle(CHURN, values)
    for i, event in enumerate(events):
        oracle.apply(event, i)
    _, batches = deliver_all(CHURN, events, 100, values)
    reasons = {reason: sum(applied.not_counted.get(reason, 0) for applied in batches) for reason in OF_VERSION_1}
    assert reasons == oracle.not_counted
    assert set(reasons) == set(OF_VERSION_1)
    assert sum(applied.counted for applied in batches) == oracle.counted
    assert sum(applied.lookups for applied in batches) == oracle.lookups > 0
    assert sum(applied.lookup_misses for applied in batches) == oracle.lookup_misses > 0


def test_plain_python_gives_the_same_bits_as_compiled_code() -> None:
    program = (
        "from tests.features.test_engine import *\n"
        "events, values, _, _ = golden('edge')\n"
        "assert not hasattr(kernel.apply, 'py_func')\n"
        "_, batches = deliver_all(CHURN, events, 500, values)\n"
        "print(bits(v for applied in batches for v in applied.vectors))"
    )
    environment = os.environ | {"MODELSTREAM_NUMBA": "0", "PYTHONPATH": str(ROOT)}
    plain = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    events, values, _, _ = golden("edge")
    _, batches = deliver_all(CHURN, events, 500, values)
    assert plain.stdout.strip() == str(bits(v for applied in batches for v in applied.vectors))


# Any events, any delivery


def events_of(case: UseCase) -> st.SearchStrategy[list[Event]]:
    """Draw events: few users, times around the window's edges, every type of field, missing or not."""
    length = case.window.microseconds if case.window else 5
    offsets = st.sampled_from([0, 1, -1, length, length + 1, -length, length // 2, 2 * length])
    number = st.floats(-1e3, 1e3) | st.floats(allow_nan=False, allow_infinity=False)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "key": st.sampled_from(["u1", "7", "ü ☂"]),
        "time": st.builds(lambda offset: 1_700_000_000_000_000 + offset, offsets),
        "text": st.sampled_from(["", "x", "né"]),
        "number": number,
        "integer": st.integers(-(2**63), 2**63 - 1),
        "identifier": st.sampled_from(["a", "b", "7", "nowhere"]),
        "boolean": st.booleans(),
    }
    fields = {name: kinds[kind] for name, kind in case.fields.items()}
    optional = {name: strategy for name, strategy in fields.items() if name not in (case.key, case.time, case.type)}
    types = [*case.event_codes, *case.event_names, *case.predict_on]

    def one(type_: str | None) -> st.SearchStrategy[Event]:
        needed = {case.key: fields[case.key], case.time: fields[case.time]}
        if type_ is not None:
            needed[case.type] = st.just(type_)
        if type_ in case.event_codes:
            needed |= {value: fields[value] for value in case.needs(case.event_names[case.event_codes[type_]])}
        rest = {name: strategy for name, strategy in optional.items() if name not in needed}
        return st.fixed_dictionaries(needed, optional=rest)

    event = st.sampled_from([*types, "nonsense", None]).flatmap(one)
    return st.lists(event, max_size=10) | st.lists(event, min_size=20, max_size=50)


CASES = {"churn": CHURN, "boilers": BOILERS, "bare": BARE, "unwindowed": UNWINDOWED}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


class Consumer:
    """A consumer that stores rows, crashes, drops users and begins again, by what hypothesis draws."""

    def __init__(self, case: UseCase, events: list[Event], data: st.DataObject) -> None:
        self.case, self.events, self.data = case, events, data
        self.engine, self.table = FeatureEngine(case), Table(case)
        self.next = self.stored = 0
        self.vectors: dict[int, list[list[str]]] = {}

    def batch(self) -> None:
        self.deliver(self.data.draw(st.integers(0, 15), "events in the batch"))

    def deliver(self, size: int) -> None:
        events = self.events[self.next : self.next + size]
        applied = deliver(self.engine, self.table, events, self.next, VALUES)
        for index, vector in zip(applied.indices, bits(applied.vectors), strict=True):
            self.vectors.setdefault(self.next + int(index), []).append(vector)
        self.next += len(events)

    def store(self) -> None:
        self.table.put(self.engine.changed())
        self.engine.clean()
        assert self.engine.changed().num_rows == 0
        self.stored = self.next

    def store_some_rows_and_crash(self) -> None:
        rows = self.engine.changed()
        some = self.data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)), "stored")
        self.table.put(rows.filter(pa.array(some, pa.bool_())))
        self.engine = FeatureEngine(self.case)
        self.begin_again()

    def drop_everything(self) -> None:
        self.engine.forget()
        assert len(self.engine) == 0
        self.begin_again()

    def begin_again(self) -> None:
        """From the last store, or from before it: a message may come any number of times."""
        self.next = self.data.draw(st.integers(0, self.stored), "begin again at")

    def evict(self) -> None:
        before, changed = len(self.engine), self.engine.changed()
        limit = self.data.draw(st.integers(0, 3), "users to keep")
        dropped = self.engine.evict(limit)
        assert len(self.engine) == before - dropped
        assert len(self.engine) <= max(limit, changed.num_rows)
        assert self.engine.changed().equals(changed)


STEPS = [Consumer.batch, Consumer.store, Consumer.store_some_rows_and_crash, Consumer.drop_everything, Consumer.evict]


@every_case
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_features_equal_the_oracle_through_any_delivery(case: UseCase, data: st.DataObject) -> None:
    events = data.draw(events_of(case), "events")
    consumer = Consumer(case, events, data)
    for step in data.draw(st.lists(st.sampled_from([Consumer.batch, *STEPS]), max_size=12), "steps"):
        step(consumer)
    consumer.deliver(len(events))
    consumer.store()

    oracle = Oracle(case, VALUES)
    expected = {i: vector for i, event in enumerate(events) if (vector := oracle.apply(event, i)) is not None}
    assert set(consumer.vectors) == set(expected)
    for position, vectors in consumer.vectors.items():
        assert vectors == bits([expected[position]] * len(vectors))
    assert exact(list(consumer.table.rows.values()), case) == exact(oracle_rows(oracle), case)


@every_case
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_replay_gives_what_was_served(case: UseCase, data: st.DataObject) -> None:
    events = data.draw(events_of(case), "events")
    size = data.draw(st.integers(1, 9), "events in a batch")
    served, batches = deliver_all(case, events, size, VALUES)
    engine = FeatureEngine(case)
    log = [batch_of(events[i : i + 7], case) for i in range(0, len(events), 7)]
    replayed = list(replay(case, log, lookup_in(VALUES), engine))
    assert [batch for batch, _ in replayed] == log
    assert bits(v for _, applied in replayed for v in applied.vectors) == bits(v for a in batches for v in a.vectors)
    assert exact(engine.changed().to_pylist(), case) == exact(served.changed().to_pylist(), case)


# Single promises

AT = 1_700_000_000_000_000
HALF_HOUR = 1_800_000_000


def boiler(what: str, at: int = 0, key: str = "b1", **fields: object) -> Event:
    return {"boiler": key, "measured_at": AT + at, "what": what, **fields}


def served(*events: Event) -> tuple[FeatureEngine, Applied]:
    engine, (applied,) = deliver_all(BOILERS, events, len(events), {"north": 3.0, "south": 4.0})
    return engine, applied


def test_second_profile_in_a_batch_takes_effect_in_order() -> None:
    engine, applied = served(
        boiler("installed", region="north", built=1990),
        boiler("ignition", 1),
        boiler("temperature", 2, celsius=50.0),
        boiler("set up", 3, region="south", rented=True),
        boiler("temperature", 4, celsius=60.0),
        boiler("installed", 5),
        boiler("temperature", 6, celsius=70.0),
    )
    prices, counts = applied.vectors[:, 0].tolist(), applied.vectors[:, 3].tolist()
    assert prices == [3.0, 3.0, 4.0, -1.5]
    assert counts == [0.0, 1.0, 2.0, 3.0]
    (row,) = engine.changed().to_pylist()
    assert row["built"] is None and row["rented"] is None and row["price"] is None
    assert row["installed_at"].timestamp() == (AT + 5) / 1e6
    assert row["applied"] == 6


@pytest.mark.parametrize(("at", "counts"), [(HALF_HOUR, True), (HALF_HOUR + 1, False), (-HALF_HOUR - 1, True)])
def test_window_is_closed_on_its_right_edge_and_open_to_the_past(at: int, counts: bool) -> None:
    _, applied = served(boiler("installed"), boiler("ignition", 0), boiler("temperature", at, celsius=1.0))
    assert len(applied.indices) == 1 + counts
    assert applied.not_counted == ({} if counts else {"window_closed": 1})


def test_first_reason_that_holds_is_given() -> None:
    _, applied = served(
        boiler("unheard of"),
        boiler("temperature", celsius=1.0),
        boiler("ignition"),
        boiler("installed"),
        boiler("p", bar=1.0),
        boiler("ignition"),
        boiler("°", HALF_HOUR + 1, bar=1.0),
        boiler("ignition", HALF_HOUR + 1),
        boiler("unheard of", HALF_HOUR + 1),
    )
    assert applied.not_counted == {"unknown_type": 2, "unregistered": 2, "window_not_open": 1, "window_closed": 2}
    assert (applied.counted, applied.skipped) == (2, 0)


def test_replayed_batch_changes_nothing() -> None:
    events = [boiler("installed"), boiler("ignition"), boiler("temperature", 1, celsius=1.0)]
    engine, first = served(*events)
    rows = engine.changed()
    again = deliver(engine, Table(BOILERS), events, 0, {})
    assert (len(first.indices), len(again.indices), again.counted, again.skipped) == (2, 0, 0, 3)
    assert engine.changed().equals(rows)


def test_events_that_do_not_count_leave_the_row_as_it_is_stored() -> None:
    engine, _ = served(boiler("installed"))
    engine.clean()
    deliver(engine, Table(BOILERS), [boiler("p", bar=1.0), boiler("nonsense")], 1, {})
    assert engine.changed().num_rows == 0


def test_users_without_a_profile_have_no_row() -> None:
    engine, _ = served(boiler("ignition"), boiler("installed", key="b2"))
    assert engine.changed()["boiler"].to_pylist() == ["b2"]
    assert (len(engine), engine.missing(["b1", "b2", "b3", "b3"])) == (2, ["b3"])


def test_least_recently_used_users_are_evicted_first() -> None:
    engine, _ = served(*(boiler("installed", key=key) for key in ("b1", "b2", "b3")))
    assert engine.evict(0) == 0
    engine.clean()
    deliver(engine, Table(BOILERS), [boiler("nonsense", key="b1")], 3, {})
    assert engine.evict(2) == 1
    assert engine.missing(["b1", "b2", "b3"]) in (["b2"], ["b3"])
    assert engine.evict(1) == 1
    assert engine.missing(["b1", "b2", "b3"]) == ["b2", "b3"]


def test_a_slot_that_is_used_again_holds_nothing_of_the_user_before() -> None:
    engine, _ = served(boiler("installed", region="north", built=1), boiler("ignition"), boiler("p", bar=9.0))
    engine.forget(["b1", "never seen"])
    events = [boiler("p", key="b2", bar=1.0), boiler("installed", key="b2"), boiler("p", key="b2", bar=1.0)]
    applied = deliver(engine, Table(BOILERS), events, 0, {})
    assert applied.not_counted == {"unregistered": 1, "window_not_open": 1}
    (row,) = engine.changed().to_pylist()
    assert (row["boiler"], row["built"], row["price"], row["pressure_count"]) == ("b2", None, None, 0.0)


def test_statistics_that_overflowed_survive_a_table_that_stores_nan_as_null() -> None:
    table = Table(BOILERS)
    engine, _ = served(boiler("installed"), boiler("ignition"), *(boiler("p", bar=x) for x in (1e308, -1e308, 1e308)))
    table.put(engine.changed())
    assert table.rows["b1"]["pressure_m2"] is None
    engine = FeatureEngine(BOILERS)
    applied = deliver(engine, table, [boiler("temperature", celsius=1.0)], 5, {})
    assert applied.vectors[0, 3:].tolist() == [1.0, 1.0]
    assert np.isnan(engine.changed()["pressure_m2"].to_numpy()[0])


def test_loading_a_user_who_is_in_memory_keeps_what_is_newer() -> None:
    engine, _ = served(boiler("installed", built=1))
    stored = engine.changed()
    deliver(engine, Table(BOILERS), [boiler("installed", built=2)], 1, {})
    engine.load(["b1", "b2"], stored)
    assert len(engine) == 2
    deliver(engine, Table(BOILERS), [boiler("ignition")], 2, {})
    (row,) = engine.changed().to_pylist()
    assert (row["built"], row["applied"]) == (2, 2)


def test_memory_grows_with_the_users() -> None:
    events = [boiler("installed", key=str(n), built=n) for n in range(5000)]
    engine, _ = deliver_all(BOILERS, events, 700, {})
    rows = engine.changed()
    assert sorted(zip(rows["boiler"].to_pylist(), rows["built"].to_pylist(), strict=True)) == sorted(
        (str(n), n) for n in range(5000)
    )


def test_what_users_take_is_measured_and_given_back() -> None:
    """Arrays, dictionary, keys and profiles, as Python and numpy allocate them."""
    users = 40_000
    lines = [boiler("installed", key=f"boiler number {n}", built=n, region="north") for n in range(users)]
    table, engine, taken = Table(BOILERS), FeatureEngine(BOILERS), []
    engine.nbytes  # noqa: B018 (what is imported late is not counted)
    for event in lines[:1], lines:
        batch = batch_of(event, BOILERS)
        positions = np.arange(len(event))
        gc.collect()
        tracemalloc.start()
        engine = FeatureEngine(BOILERS)
        engine.load(engine.missing(batch["boiler"].to_pylist()), table.get([]))
        engine.apply(batch, positions, lambda _, keys: [1.0] * len(keys))
        gc.collect()
        taken.append((engine.nbytes, tracemalloc.get_traced_memory()[0]))
        engine.clean()
        if len(event) > 1:
            assert engine.evict(users // 4) == users - users // 4
            gc.collect()
            taken.append((engine.nbytes, tracemalloc.get_traced_memory()[0]))
        tracemalloc.stop()
    (_, few), (_, many), (_, quarter) = ((said, real) for said, real in taken)
    assert all(0.98 < said / real < 1.2 for said, real in taken), taken  # what several users share is counted for each
    assert quarter < 0.4 * many and few < 0.05 * many


@pytest.mark.parametrize("keep", [0, 700, 2_500])
def test_users_are_right_after_room_was_given_back(keep: int) -> None:
    events = [boiler("installed", key=str(n), built=n) for n in range(3_000)]
    table, engine = Table(BOILERS), FeatureEngine(BOILERS)
    deliver(engine, table, events, 0, {})
    table.put(engine.changed())
    engine.clean()
    deliver(engine, table, [boiler("p", key="2999", bar=1.0)], 3_000, {})
    deliver(engine, table, [boiler("installed", key="7", built=-7)], 3_001, {})
    engine.evict(keep)
    assert len(engine) == max(keep, 1)
    assert engine.missing(["7"]) == []
    deliver(engine, table, [boiler("ignition", key=str(n)) for n in range(0, 5_000, 2)], 3_002, {})
    table.put(engine.changed())
    rows = table.rows.values()
    assert {row["boiler"]: row["built"] for row in rows} == {str(n): n if n != 7 else -7 for n in range(3_000)}
    assert {row["boiler"] for row in rows if row["applied"] > 3_001} == {str(n) for n in range(0, 3_000, 2)}


def test_each_distinct_key_is_looked_up_once_a_batch_and_not_for_what_is_held() -> None:
    asked: list[tuple[str, list[str]]] = []

    def lookup(table: str, keys: Sequence[str]) -> list[float | None]:
        asked.append((table, list(keys)))
        return [1.0] * len(keys)

    events = [boiler("installed", key=str(n), region="north" if n % 2 else "south") for n in range(6)]
    events.append(boiler("set up", key="no region"))
    engine = FeatureEngine(BOILERS)
    engine.load([event["boiler"] for event in events], no_rows(BOILERS))
    for _ in range(2):
        engine.apply(batch_of(events, BOILERS), np.arange(7), lookup)
    assert asked == [("tariffs", ["south", "north"])]
    assert engine.changed()["price"].to_pylist() == [1.0] * 6 + [None]


def test_failed_lookup_leaves_everything_as_it_was() -> None:
    def fails(_: str, keys: Sequence[str]) -> list[float | None]:
        raise UnavailableError(f"can't look up {keys}")

    events = batch_of([boiler("installed", region="north"), boiler("ignition")], BOILERS)
    engine = FeatureEngine(BOILERS)
    engine.load(["b1"], no_rows(BOILERS))
    with pytest.raises(UnavailableError):
        engine.apply(events, np.arange(2), fails)
    assert engine.changed().num_rows == 0
    assert engine.apply(events, np.arange(2), lookup_in({"north": 3.0})).vectors[:, 0].tolist() == [3.0]


@pytest.mark.parametrize("celsius", [None, float("nan"), float("inf")])
def test_event_without_its_value_is_refused_and_nothing_is_applied(celsius: float | None) -> None:
    engine, _ = served(boiler("installed"), boiler("ignition"))
    rows = engine.changed()
    events = [boiler("p", bar=1.0), boiler("temperature", celsius=celsius)]
    with pytest.raises(ValueError, match=r"event 1 of the batch \(temperature\) has no finite celsius"):
        deliver(engine, Table(BOILERS), events, 2, {})
    assert engine.changed().equals(rows)


def test_events_of_users_who_were_not_loaded_are_refused() -> None:
    with pytest.raises(ValueError, match="'b1' was not loaded"):
        FeatureEngine(BOILERS).apply(batch_of([boiler("installed")], BOILERS), np.arange(1), no_lookup)


@pytest.mark.parametrize("column", ["boiler", "measured_at"])
def test_events_without_key_or_time_are_refused(column: str) -> None:
    engine, _ = served(boiler("installed"))
    with pytest.raises(ValueError, match="events without"):
        engine.apply(batch_of([boiler("installed") | {column: None}], BOILERS), np.arange(1), no_lookup)


def test_rows_of_another_use_case_are_refused() -> None:
    with pytest.raises(ValueError, match="another use case"):
        FeatureEngine(BOILERS).load(["b1"], no_rows(CHURN))


def test_each_feature_lies_in_one_piece_so_that_arrow_needs_no_copy() -> None:
    _, applied = served(*[boiler("installed"), *[boiler("ignition")] * 3])
    assert applied.vectors.shape == (3, len(BOILERS.features))
    assert all(applied.vectors[:, i].flags.c_contiguous for i in range(len(BOILERS.features)))


@pytest.mark.skipif(not hasattr(kernel.apply, "signatures"), reason="without numba nothing is compiled")
def test_the_kernel_is_compiled_once_whatever_arrays_come() -> None:
    """A compilation takes seconds: arrays that are read-only, sliced or of another width must not cause one."""
    events = batch_of([boiler("installed"), boiler("ignition", region="north")], BOILERS)
    engine, _ = served(boiler("installed"))
    compiled = len(kernel.apply.signatures)  # type: ignore[attr-defined]
    read_only = pa.array([10, 11, 12, 13], pa.int64()).to_numpy()
    for n, positions in enumerate((read_only[::2], read_only[2:], np.array([20, 21], np.int32))):
        engine.apply(events.slice(n % 2), positions[n % 2 :], no_lookup)
    assert len(kernel.apply.signatures) == compiled  # type: ignore[attr-defined]


def test_features_of_rows_keep_what_was_not_found_as_null() -> None:
    engine, _ = served(
        *(boiler("installed", region="nowhere", built=3), boiler("ignition")),
        *(boiler("p", bar=1.0), boiler("p", bar=2.0)),
    )
    (features,) = features_of(engine.changed(), BOILERS).to_pylist()
    assert list(features) == BOILERS.features_schema.names
    assert (features["price"], features["built"], features["pressure_mean"]) == (None, 3, 1.5)
