"""Stream-to-features sends the golden vectors however its events come, and keeps rows that nothing can set back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from modelstream.errors import UnavailableError
from modelstream.events.parsing import LineParser
from modelstream.features.engine import features_of
from modelstream.messages.codec import encode
from modelstream.messages.identity import stream_position
from modelstream.stages import stream_to_features
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.tables import Tables, open_tables
from modelstream.use_case.file import load_use_case
from tests.oracle import bits, read_values
from tests.stages.harness import Harness, event, settings

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
INGESTED = 1_800_000_000_000_000
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
READS = "incoming-events"


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    made = Harness(monkeypatch, reads=READS)
    yield made
    made.close()


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    with open_tables(f"sqlite://{tmp_path}/tables") as opened:
        values = read_values(GOLDEN / "enrichment.csv")
        opened.lookup("enrichment").load([pa.record_batch({"key": [*values], "value": [*values.values()]})])
        yield opened


def stage_of(harness: Harness, tables: Tables, derive: Any = None, epoch: int = 0, **changed: Any) -> StreamToFeatures:
    options = settings(reads=READS, writes="serving", **changed)
    table, lookup = tables.features(CHURN.row_schema), tables.lookup("enrichment")
    return StreamToFeatures(
        harness.context, options, harness.streams, CHURN, table, lambda _, keys: lookup.get_many(keys), epoch, derive
    )


def batch(lines: Sequence[bytes], first: int = 0) -> pa.RecordBatch:
    parsed = LineParser(CHURN).parse(list(lines), np.arange(first, first + len(lines)), INGESTED)
    assert not parsed.rejects
    return parsed.events.drop_columns(["extra"])


def messages(events: pa.RecordBatch, sizes: Sequence[int], origin: str = "a.ndjson", first: int = 0) -> list[Any]:
    """Cut events into messages of these sizes, the last size again and again."""
    made: list[Any] = []
    start = 0
    while start < events.num_rows:
        size = sizes[min(len(made), len(sizes) - 1)]
        made.append(event(first + len(made), encode("events", origin, events.slice(start, size)), 0, READS))
        start += size
    return made


def of_user(key: str, *rest: dict[str, Any], **fields: Any) -> list[bytes]:
    """Return the lines of a registered user who has purchased, then bets `rest`."""
    usual = {"user_id": key, "event_time": "2026-03-28 20:00:00"}
    registration = {"event_type": "registration", "postcode": "10000", **fields}
    purchase = {"event_type": "purchase", "amount": 10}
    bets = [{"event_type": "bet", **bet} for bet in rest]
    return [json.dumps(usual | one).encode() for one in (registration, purchase, *bets)]


def vectors(harness: Harness) -> list[tuple[str, int, list[float]]]:
    """Return what was sent: origin, position, vector; a position that is sent again is left out."""
    found, seen = [], set()
    for shard, rows in harness.sent("serving"):
        assert (shard, rows.kind) == (0, "vectors")
        assert rows.batch.schema.remove_metadata().equals(CHURN.vector_schema)
        columns = [rows.batch.column(name).to_pylist() for name in CHURN.features]
        positions = rows.batch.column("position").to_pylist()
        for position, vector in zip(positions, zip(*columns, strict=True), strict=True):
            if (rows.origin, position) not in seen:
                seen.add((rows.origin, position))
                found.append((rows.origin, position, list(vector)))
    return found


def flush(harness: Harness, stage: StreamToFeatures, *found: Any) -> None:
    harness.handle(stage, *found)
    harness.run(stage.drain())


def counters(tables: Tables) -> dict[str, int]:
    return tables.features(CHURN.row_schema).checkpoint(0).counters


# The golden data.

GOLDEN_LINES = {
    name: [line for line in (GOLDEN / name).read_bytes().split(b"\n") if line.strip()]
    for name in ("reference_events.ndjson", "edge_events.ndjson")
}


@pytest.mark.parametrize("name", ["", "edge_"])
@pytest.mark.parametrize(("sizes", "restarts"), [([10_000], 0), ([997], 3), ([1, 7, 400], 2)])
def test_golden_events_give_golden_vectors_and_rows(
    harness: Harness, tables: Tables, name: str, sizes: list[int], restarts: int
) -> None:
    """Whatever the messages, and also after kills that repeat what was not committed."""
    lines = GOLDEN_LINES["edge_events.ndjson" if name else "reference_events.ndjson"]
    found = messages(batch(lines), sizes)
    stage = stage_of(harness, tables, commit_ms=10_000.0, commit_rows=700)
    for restart in range(restarts):
        harness.handle(stage, *found[: (restart + 1) * len(found) // (restarts + 1)])
        stage = stage_of(harness, tables, commit_ms=10_000.0, commit_rows=700)  # nothing more of the old one
    flush(harness, stage, *found)
    expected = pq.read_table(GOLDEN / f"{name}expected_vectors.parquet").select(list(CHURN.features))
    rows = zip(*(expected[feature].to_pylist() for feature in CHURN.features), strict=True)
    sent = vectors(harness)
    assert bits(vector for *_, vector in sent) == bits(rows)
    assert counters(tables)["vectors"] == len(sent)
    assert_rows(tables, pq.read_table(GOLDEN / f"{name}expected_rows.parquet"))


def assert_rows(tables: Tables, expected: pa.Table) -> None:
    stored = pa.Table.from_batches([features_of(b, CHURN) for b in tables.features(CHURN.row_schema).scan()])
    assert stored.num_rows == expected.num_rows > 0
    assert len(set(CHURN.features) & set(expected.column_names)) > 3
    by_key = {row["user_id"]: row for row in stored.to_pylist()}
    for row in expected.to_pylist():
        ours = by_key[row["user_id"]]
        for name in set(CHURN.features) & set(row):  # the golden rows have 0 where no value was found, ours null
            assert repr(0.0 if ours[name] is None else ours[name]) == repr(row[name]), name


# Messages.


def test_a_vector_carries_the_event_that_it_stands_after(harness: Harness, tables: Tables) -> None:
    lines = of_user("u1", {"bet_amount": 2.5, "event_type": "new_bet"})
    flush(harness, stage_of(harness, tables), *messages(batch(lines, first=40), [3]))
    ((_, rows),) = harness.sent("serving")
    (row,) = rows.batch.select(["position", "user_id", "event_type", "bet_sum"]).to_pylist()
    assert row == {"position": 42, "user_id": "u1", "event_type": "bet", "bet_sum": 2.5}
    assert rows.origin == "a.ndjson"


def test_lookups_and_misses_are_counted_once_and_most_misses_are_logged_once(harness: Harness, tables: Tables) -> None:
    keys = [" 10000", "10000 ", "10000.0", 10000, "1", "", None, *["none"] * 30]
    lines = [line for n, key in enumerate(keys) for line in of_user(f"u{n}", postcode=key)[:1]]
    stage = stage_of(harness, tables)
    found = messages(batch(lines), [10])
    flush(harness, stage, *found[:3])
    flush(harness, stage, *found)  # delivered again: what was applied is dropped
    assert (stage.counters.lookups, stage.counters.lookup_misses) == (37, 33)
    assert counters(tables) == {"vectors": 0, "lookups": 37, "lookup_misses": 33}
    (warning,) = [said for said in harness.logged if "lookups find nothing" in said["message"]]
    assert (warning["table"], warning["misses"]) == ("enrichment", 16)
    assert "none" not in warning.values(), "a key is people's data, which logs don't hold"
    again = stage_of(harness, tables)
    flush(harness, again, *messages(batch(of_user("v")[:1], first=100), [1], first=len(found)))
    assert (again.counters.lookups, counters(tables)["lookups"]) == (1, 38), "a process counts what it looked up itself"


def test_table_loaded_by_another_process_is_seen_at_once_and_registered_users_keep_their_value(
    harness: Harness, tables: Tables, tmp_path: Path
) -> None:
    before, after = of_user("before", {"bet_amount": 1}), of_user("after", {"bet_amount": 1})
    lines = [*before, *after, before[-1]]
    found = messages(batch(lines), [3])
    stage = stage_of(harness, tables)
    flush(harness, stage, found[0])
    with open_tables(f"sqlite://{tmp_path}/tables") as others:
        others.lookup("enrichment").load([pa.record_batch({"key": ["10000"], "value": [77.0]})])
    assert tables.lookup("enrichment").delay == 0
    flush(harness, stage, *found[1:])
    assert [vector[0] for _, _, vector in vectors(harness)] == [3.0, 77.0, 3.0]


def test_events_that_do_not_count_are_counted_by_reason(harness: Harness, tables: Tables) -> None:
    lines = [
        *of_user("u1", {"bet_amount": 1.0}, {"event_type": "login"}),
        *of_user("u2", {"bet_amount": 1.0, "event_time": "2026-04-28 20:00:00"})[1:],
        *of_user("u3")[:1],
        json.dumps(
            {"user_id": "u3", "event_time": "2026-03-28 20:00:00", "event_type": "win", "win_amount": 1}
        ).encode(),
    ]
    flush(harness, stage_of(harness, tables), *messages(batch(lines), [2]))
    reasons = {"unknown_type": 1, "unregistered": 2, "window_not_open": 1}
    assert counters(tables) == {"vectors": 1, "lookups": 2, "lookup_misses": 0, **reasons}


@pytest.mark.parametrize(
    "body", [b"{}", b"", b"\xff\xff\xff\xff", encode("vectors", "o", pa.record_batch({"position": [1]}))]
)
def test_a_message_that_is_no_events_is_a_letter(harness: Harness, tables: Tables, body: bytes) -> None:
    good = messages(batch(of_user("u1", {"bet_amount": 1.0})), [10], first=1)
    flush(harness, stage_of(harness, tables, epoch=1), event(0, body, 0, READS), *good)
    (letter,) = harness.letters()
    assert (letter.origin, letter.position) == (f"{READS}/0", stream_position(1, 0))
    assert len(vectors(harness)) == 1
    assert harness.acks[-1] == (0, 1)
    flush(harness, stage_of(harness, tables, epoch=1), event(0, body, 0, READS), *good)
    assert len(harness.letters()) == 1


# Once.


def test_repeated_and_overlapping_messages_change_nothing(harness: Harness, tables: Tables) -> None:
    events = batch(of_user("u1", *({"bet_amount": float(i)} for i in range(10))))
    whole = stage_of(harness, tables)
    flush(harness, whole, *messages(events.slice(0, 6), [6]))
    flush(harness, whole, *messages(events.slice(0, 6), [6]))
    flush(harness, stage_of(harness, tables), *messages(events.slice(2), [3, 2, 3], first=1))
    assert [position for _, position, _ in vectors(harness)] == list(range(2, 12))
    sums = [vector[CHURN.features.index("bet_sum")] for *_, vector in vectors(harness)]
    assert sums == np.cumsum(np.arange(10.0)).tolist()
    assert counters(tables)["vectors"] == 10


def test_a_killed_stage_sends_the_same_vectors_again(harness: Harness, tables: Tables) -> None:
    """It was killed between sending and the commit of its table."""

    class KilledError(BaseException):
        pass

    found = messages(batch(of_user("u1", *({"bet_amount": float(i)} for i in range(6)))), [4])
    stage = stage_of(harness, tables)

    def killed(*_: Any) -> None:
        raise KilledError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(stage, "save_all", killed)
        flush(harness, stage, *found)
    flush(harness, stage_of(harness, tables), *found)
    by_position: dict[int, set[str]] = {}
    for _, rows in harness.sent("serving"):
        for row in rows.batch.to_pylist():
            by_position.setdefault(row["position"], set()).add(repr(row))
    assert sorted(by_position) == [2, 3, 4, 5, 6, 7]
    assert all(len(seen) == 1 for seen in by_position.values())
    assert counters(tables)["vectors"] == 6


def test_a_lookup_that_fails_in_the_middle_leaves_nothing_behind(harness: Harness, tables: Tables) -> None:
    lines = [*of_user("u1", {"bet_amount": 1.0}), *of_user("u2", {"bet_amount": 2.0})]
    stage = stage_of(harness, tables, commit_ms=10_000.0, commit_rows=1000)
    get_many, failures = stage._look_up, [UnavailableError("away"), UnavailableError("away")]

    def failing(table: str, keys: Sequence[str]) -> list[float | None]:
        if failures and len(keys):
            raise failures.pop()
        return [*get_many(table, keys)]

    stage._look_up = failing
    flush(harness, stage, *messages(batch(lines), [2]))
    assert not failures
    assert [vector[CHURN.features.index("bet_sum")] for *_, vector in vectors(harness)] == [1.0, 2.0]
    assert counters(tables)["vectors"] == 2


def test_an_owner_that_is_late_sets_nothing_back_and_goes_on_rightly(harness: Harness, tables: Tables) -> None:
    found = messages(batch(of_user("u1", *({"bet_amount": 1.0} for _ in range(10)))), [3])
    late = stage_of(harness, tables, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(late, *found[:1])
    flush(harness, stage_of(harness, tables), *found[:3])
    harness.handle(late, *found[1:2])  # its rows are in memory, of the past
    harness.run(late.drain())
    flush(harness, late, *found[3:])
    expected = [float(i) for i in range(1, 11)]
    assert [vector[CHURN.features.index("bet_sum")] for *_, vector in vectors(harness)] == expected
    assert counters(tables)["vectors"] == 10
    (row,) = tables.features(CHURN.row_schema).get("u1").to_pylist()
    assert row["bet_count"] == 10


def test_an_owner_that_is_late_and_reads_rows_of_its_future_counts_every_vector(
    harness: Harness, tables: Tables
) -> None:
    one, two = batch(of_user("u1", {"bet_amount": 1.0})), batch(of_user("u2", *({"bet_amount": 1.0},) * 4), first=3)
    found = [*messages(one, [3]), *messages(two, [3], first=1)]
    late = stage_of(harness, tables, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(late, found[0])
    flush(harness, stage_of(harness, tables), *found[:2])
    harness.handle(late, *found[1:])  # u2's row comes from the table, where the other has put it
    harness.run(late.drain())
    assert counters(tables)["vectors"] == len(vectors(harness)) == 5


def test_users_that_do_not_fit_into_memory_are_read_again(
    harness: Harness, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_to_features, "CACHED_BYTES", 100_000)
    users = [of_user(f"u{i}", *({"bet_amount": float(i)} for _ in range(5))) for i in range(8)]
    lines = [user[event_number] for event_number in range(7) for user in users]
    stage = stage_of(harness, tables)
    harness.handle(stage, *messages(batch(lines), [5]))
    assert len(stage._engines[0]) <= 3
    harness.run(stage.drain())
    assert len(vectors(harness)) == 40
    last = {position % 8: vector for _, position, vector in vectors(harness)}
    assert [last[i][CHURN.features.index("bet_sum")] for i in range(8)] == [5.0 * i for i in range(8)]


def test_memory_is_bounded_over_all_shards_together_and_users_of_lost_shards_are_forgotten(
    harness: Harness, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 2_000_000
    monkeypatch.setattr(stream_to_features, "CACHED_BYTES", bound)
    stage, most, seen = stage_of(harness, tables), 0, 0
    for number in range(30):
        keys = [f"u{number}-{i}" for i in range(400)]
        lines = [line for key in keys for line in of_user(key)[:1]]
        shard, offset = number % 3, number // 3
        body = encode("events", "a.ndjson", batch(lines, first=number * 400))
        harness.handle(stage, event(offset, body, shard, READS))
        taken = sum(engine.nbytes for engine in stage._engines.values())
        most, seen = max(most, taken), seen + len(keys)
        assert taken <= bound
    held = sum(map(len, stage._engines.values()))
    assert bound / 2 < most, "it is used"
    assert 2_000 < held < seen / 2
    assert all(len(engine) > held / 6 for engine in stage._engines.values()), "each shard keeps its part"
    harness.run(stage.drain())
    assert stage._engines == {}
    assert tables.features(CHURN.row_schema).count() == seen


@pytest.mark.parametrize(("few", "many", "saved"), [(0, 1000, [1, 1, 1]), (4, 1000, [2, 1]), (0, 15, [3])])
def test_few_rows_of_several_shards_are_committed_at_once_and_all_of_them_after_many_events(
    harness: Harness, tables: Tables, monkeypatch: pytest.MonkeyPatch, few: int, many: int, saved: list[int]
) -> None:
    monkeypatch.setattr(stream_to_features, "FEW_ROWS", few)
    monkeypatch.setattr(stream_to_features, "MANY_EVENTS", many)
    stage = stage_of(harness, tables, commit_ms=10_000.0, commit_rows=1000)
    commits, commit_all = [], stage._features.commit_all

    def noted(given: Sequence[Any]) -> list[bool]:
        commits.append([one[0] for one in given])
        return commit_all(given)

    monkeypatch.setattr(stage._features, "commit_all", noted)
    for shard in range(3):
        lines = [line for i in range(2) for line in of_user(f"u{shard}-{i}", {"bet_amount": 1.0})]
        body = encode("events", "a.ndjson", batch(lines, first=shard * 6))
        harness.handle(stage, event(0, body, shard, READS))
    assert commits == []
    harness.run(stage.drain())
    assert [len(one) for one in commits] == saved
    assert sorted(shard for one in commits for shard in one) == [0, 1, 2]
    assert sorted(harness.acks) == [(0, 0), (1, 0), (2, 0)]


# The derive hook.


def test_a_hook_may_change_vectors(harness: Harness, tables: Tables) -> None:
    def negated(events: pa.RecordBatch, found: pa.RecordBatch) -> pa.RecordBatch:
        assert events.column("event_type").to_pylist() == found.column("event_type").to_pylist()
        place = found.schema.get_field_index("bet_sum")
        return found.set_column(place, found.schema.field(place), pa.compute.negate(found.column(place)))

    lines = of_user("u1", {"bet_amount": 1.0}, {"bet_amount": 2.0})
    flush(harness, stage_of(harness, tables, derive=negated), *messages(batch(lines), [3]))
    assert [vector[CHURN.features.index("bet_sum")] for *_, vector in vectors(harness)] == [-1.0, -3.0]


@pytest.mark.parametrize(
    "derive",
    [
        lambda _, found: found.slice(1),
        lambda _, found: found.drop_columns(["bet_sum"]),
        lambda events, _: events,
        lambda _, found: found.column("no such column"),
    ],
)
def test_a_hook_that_does_what_it_must_not_holds_the_shard(harness: Harness, tables: Tables, derive: Any) -> None:
    stage = stage_of(harness, tables, derive=derive)
    found = messages(batch(of_user("u1", {"bet_amount": 1.0})), [10])
    handling = harness.loop.create_task(harness.handling(stage, found[0]))
    harness.wait(30)
    assert stage.held
    assert (harness.streams.records, harness.acks, counters(tables)) == ({}, [], {})
    handling.cancel()


# Any cut, any order of repetition.


@hypothesis_settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=5),
    st.sampled_from([0.0, 50.0]),
)
def test_vectors_do_not_depend_on_messages_or_restarts(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], restarts: list[tuple[int, bool]], linger: float
) -> None:
    lines = GOLDEN_LINES["edge_events.ndjson"][:300]
    found = messages(batch(lines), sizes)
    with (
        pytest.MonkeyPatch.context() as patch,
        open_tables(f"sqlite://{tmp_path_factory.mktemp('tables')}") as tables,
    ):
        values = read_values(GOLDEN / "enrichment.csv")
        tables.lookup("enrichment").load([pa.record_batch({"key": [*values], "value": [*values.values()]})])
        harness = Harness(patch, reads=READS)
        stage = stage_of(harness, tables, linger_ms=linger, commit_rows=100, commit_ms=10_000.0)
        at = 0
        for count, told in restarts:
            harness.handle(stage, *found[at : at + count])
            if told:
                harness.run(stage.drain())
            stage = stage_of(harness, tables, linger_ms=linger, commit_rows=100, commit_ms=10_000.0)
            at = dict(harness.acks).get(0, -1) + 1
        flush(harness, stage, *found[at:])
        harness.close()
        expected = pq.read_table(GOLDEN / "edge_expected_vectors.parquet").select(list(CHURN.features))
        rows = list(zip(*(expected[feature].to_pylist() for feature in CHURN.features), strict=True))
        ours = [vector for *_, vector in vectors(harness)]
        assert bits(ours) == bits(rows[: len(ours)])
        assert counters(tables)["vectors"] == len(ours) > 20
