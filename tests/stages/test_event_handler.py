"""The event-handler keeps every readable row once and passes it on; every other row becomes one dead letter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from modelstream.errors import UnavailableError
from modelstream.logs.parquet import ParquetLog
from modelstream.messages.codec import decode, encode
from modelstream.messages.identity import MAX_EVENTS_A_MESSAGE, UNANSWERED, Checkpoint, bucket_of, stream_position
from modelstream.messages.json_text import MAX_LINE
from modelstream.stages.event_handler import EventHandler
from modelstream.use_case.columns import MODEL_VERSION
from modelstream.use_case.file import load_use_case
from tests.events.test_parsing import BAD
from tests.faults.expected import Truth
from tests.raw_lines import as_arrow, lines_batch
from tests.stages.harness import APPENDED_AT, Harness, event, settings

ROOT = Path(__file__).parents[2]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
SHARDS = 4
READS = "generated"
INGESTED = 1_700_000_000_000_000


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    made = Harness(monkeypatch, reads=READS)
    yield made
    made.close()


def handler(harness: Harness, folder: Path, epoch: int = 0, transform: Any = None, **changed: Any) -> EventHandler:
    options = {"reads": READS, "writes": "incoming-events", "shards": SHARDS, **changed}
    log = ParquetLog(folder / "events", CHURN.events_log_schema, epoch)
    return EventHandler(harness.context, settings(**options), harness.streams, CHURN, log, epoch, transform)


def logger(harness: Harness, folder: Path, **changed: Any) -> EventHandler:
    options = settings(reads="inference", writes="", rows="predictions", shards=SHARDS, **changed)
    log = ParquetLog(folder / "inference", CHURN.inference_log_schema, 0)
    return EventHandler(harness.context, options, harness.streams, CHURN, log, 0)


def bet(key: str | int = "u1", amount: float = 2.5, **more: Any) -> bytes:
    found = {"user_id": key, "event_time": "2026-03-28 20:00:00", "event_type": "bet", "bet_amount": amount}
    return json.dumps(found | more).encode()


def shard_of(key: str) -> int:
    return bucket_of(key) % SHARDS


KEY = next(f"u{i}" for i in range(100) if shard_of(f"u{i}") == 0)
"""A key of shard 0."""


def lines(texts: Sequence[bytes], first: int = 0, origin: str = "a.ndjson", **metadata: str) -> bytes:
    batch = lines_batch(list(texts), range(first, first + len(texts)))
    return encode("lines", origin, batch, **{"ingested_at": str(INGESTED), **metadata})


def message(offset: int, body: bytes, shard: int = 0) -> Any:
    return event(offset, body, shard, READS)


def flush(harness: Harness, stage: EventHandler, *messages: Any) -> None:
    """Hand over messages and drain."""
    harness.handle(stage, *messages)
    harness.run(stage.drain())


def logged(folder: Path, name: str = "events") -> list[dict[str, Any]]:
    ParquetLog(folder / name, pa.schema([]), 0).publish()
    rows: list[dict[str, Any]] = pq.read_table(folder / name, partitioning=None).to_pylist()
    return rows


# Good rows.


def test_lines_are_kept_with_their_identity_and_passed_on(harness: Harness, tmp_path: Path) -> None:
    stage = handler(harness, tmp_path)
    flush(harness, stage, message(0, lines([bet(KEY, 1.0), bet(KEY, 2.0, city="X", device={"a": 1})], first=7)))
    rows = logged(tmp_path)
    assert [(row["origin"], row["position"], row["shard"], row["offset"]) for row in rows] == [
        ("a.ndjson", 7, 0, 0),
        ("a.ndjson", 8, 0, 0),
    ]
    assert [(row["bet_amount"], row["city"], row["extra"]) for row in rows] == [
        (1.0, None, None),
        (2.0, "X", '{"device": {"a": 1}}'),
    ]
    assert rows[0]["ingested_at"].timestamp() * 1e6 == INGESTED
    ((shard, sent),) = harness.sent("incoming-events")
    assert (shard, sent.kind, sent.origin) == (0, "events", "a.ndjson")
    assert sent.batch.column("position").to_pylist() == [7, 8]
    assert "extra" not in sent.batch.schema.names  # kept in the log, of no use downstream
    assert harness.acks == [(0, 0)]


@pytest.mark.parametrize(
    "body",
    [
        bet(KEY),
        b"[" + bet(KEY) + b"]",
        b"\n" + bet(KEY) + b"\n\n",
        json.dumps(json.loads(bet(KEY)), indent=2).encode(),
    ],
)
def test_a_body_without_identity_gets_one_from_its_place(harness: Harness, tmp_path: Path, body: bytes) -> None:
    stage = handler(harness, tmp_path, epoch=2)
    flush(harness, stage, message(0, bet(KEY, 1.0)), message(1, body))
    rows = logged(tmp_path)
    assert [(row["origin"], row["position"]) for row in rows] == [
        ("generated/0", stream_position(2, 0)),
        ("generated/0", stream_position(2, 1)),
    ]
    assert rows[0]["ingested_at"].timestamp() * 1e6 == APPENDED_AT


def test_events_of_a_body_go_to_the_shards_of_their_keys(harness: Harness, tmp_path: Path) -> None:
    keys = [f"u{i}" for i in range(30)]
    flush(harness, handler(harness, tmp_path), message(0, b"\n".join(map(bet, keys)), shard=1))
    found = {
        key: shard
        for shard, rows in harness.sent("incoming-events")
        for key in rows.batch.column("user_id").to_pylist()
    }
    assert found == {key: shard_of(key) for key in keys}
    assert {row["shard"] for row in logged(tmp_path)} == {1}


def test_unknown_types_are_kept_and_passed_on(harness: Harness, tmp_path: Path) -> None:
    flush(harness, handler(harness, tmp_path), message(0, lines([bet(KEY, event_type="login")])))
    assert [row["event_type"] for row in logged(tmp_path)] == ["login"]
    assert harness.letters() == []


def test_empty_messages_are_acknowledged(harness: Harness, tmp_path: Path) -> None:
    flush(
        harness,
        handler(harness, tmp_path),
        message(0, b""),
        message(1, b" \n"),
        message(2, b"[]"),
        message(3, lines([])),
    )
    assert harness.acks[-1] == (0, 3)
    assert (logged(tmp_path), harness.letters(), harness.sent("incoming-events")) == ([], [], [])


def test_pandas_reads_the_log_of_events_before_the_first_event(harness: Harness, tmp_path: Path) -> None:
    harness.run(handler(harness, tmp_path).drain())
    handler(harness, tmp_path).open(0)
    frame = pandas.read_parquet(tmp_path / "events")
    assert len(frame) == 0
    assert list(frame.columns) == CHURN.events_log_schema.names


# Bad rows.


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_becomes_one_letter_and_the_rows_around_it_are_processed(
    harness: Harness, tmp_path: Path, name: str
) -> None:
    bad, reason = BAD[name]
    flush(harness, handler(harness, tmp_path), message(0, lines([bet(KEY, 1.0), bad, bet(KEY, 3.0)])))
    (letter,) = harness.letters()
    assert letter.reason.startswith(reason)
    assert (letter.origin, letter.position, letter.stream, letter.shard, letter.offset) == ("a.ndjson", 1, READS, 0, 0)
    assert letter.content() == bad[:65536]
    assert letter.size == len(bad)
    assert [row["position"] for row in logged(tmp_path)] == [0, 2]
    assert [rows.batch.column("position").to_pylist() for _, rows in harness.sent("incoming-events")] == [[0, 2]]
    assert harness.acks == [(0, 0)]


def test_a_line_that_was_cut_is_a_letter_with_its_true_size_even_if_its_beginning_is_an_event(
    harness: Harness, tmp_path: Path
) -> None:
    body = lines([bet(KEY, 1.0), bet(KEY, 2.0) + b" " * 3000, bet(KEY, 3.0)], truncated='{"1": 20000000}')
    flush(harness, handler(harness, tmp_path), message(0, body))
    (letter,) = harness.letters()
    assert letter.reason == f"longer than {MAX_LINE:,} bytes: 20,000,000"
    assert letter.size == 20_000_000
    assert [row["bet_amount"] for row in logged(tmp_path)] == [1.0, 3.0]


UNREADABLE = {
    "a broken array": b"[" + bet(KEY),
    "a damaged Arrow message": lines([bet(KEY)])[:-100],
    "no Arrow message": b"\xff\xff\xff\xff what is this",
    "vectors": encode("vectors", "o", pa.record_batch({"position": [1]})),
    "lines without lines": as_arrow(pa.record_batch({"position": [1]}), kind="lines", origin="o", version="1"),
    "a broken description": lines([bet(KEY)], truncated="{"),
    "a broken time": lines([bet(KEY)], ingested_at="soon"),
    "a time beyond all times": lines([bet(KEY)], ingested_at=str(2**63)),
    "too many events": b"\n".join([b"{}"] * (MAX_EVENTS_A_MESSAGE + 1)),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_message_that_can_not_be_read_is_one_letter(harness: Harness, tmp_path: Path, name: str) -> None:
    body = UNREADABLE[name]
    stage = handler(harness, tmp_path)
    flush(harness, stage, message(0, bet(KEY, 1.0)), message(1, body), message(2, bet(KEY, 2.0)))
    (letter,) = harness.letters()
    assert (letter.origin, letter.position) == ("generated/0", stream_position(0, 1))
    assert letter.content() == body[:65536]
    assert [row["bet_amount"] for row in logged(tmp_path)] == [1.0, 2.0]
    assert harness.acks[-1] == (0, 2)


def test_the_largest_message_that_is_allowed_is_read(harness: Harness, tmp_path: Path) -> None:
    flush(harness, handler(harness, tmp_path), message(0, b"\n".join([bet(KEY)] * MAX_EVENTS_A_MESSAGE)))
    assert len(logged(tmp_path)) == MAX_EVENTS_A_MESSAGE
    assert sum(rows.batch.num_rows for _, rows in harness.sent("incoming-events")) == MAX_EVENTS_A_MESSAGE


def test_bad_messages_among_good_ones_keep_their_place(harness: Harness, tmp_path: Path) -> None:
    """A client's unreadable message has a position among the client's events: taken out of turn it would hide them."""
    stage = handler(harness, tmp_path, linger_ms=1000.0)
    bodies = [bet(KEY), b"{", b"[{", b"{", bet(KEY), b"[", bet(KEY)]
    flush(harness, stage, *(message(offset, body) for offset, body in enumerate(bodies)))
    assert [letter.position for letter in harness.letters()] == [stream_position(0, offset) for offset in (1, 2, 3, 5)]
    assert [row["position"] for row in logged(tmp_path)] == [stream_position(0, offset) for offset in (0, 4, 6)]


# Once.


def test_what_comes_again_is_neither_kept_nor_sent_nor_a_letter_again(harness: Harness, tmp_path: Path) -> None:
    texts = [bet(KEY, float(i)) if i % 3 else b"bad" for i in range(12)]
    stage = handler(harness, tmp_path)
    flush(harness, stage, message(0, lines(texts[:6])), message(1, lines(texts[3:9], first=3)))
    restarted = handler(harness, tmp_path)
    flush(harness, restarted, message(1, lines(texts[3:9], first=3)), message(2, lines(texts)))
    assert [row["position"] for row in logged(tmp_path)] == [i for i in range(12) if i % 3]
    sent = [p for _, rows in harness.sent("incoming-events") for p in rows.batch.column("position").to_pylist()]
    assert sent == [i for i in range(12) if i % 3]
    assert [letter.position for letter in harness.letters()] == [0, 3, 6, 9]
    assert stage.counters.repeated + restarted.counters.repeated >= 3 + 9


def test_rows_of_another_origin_are_other_rows(harness: Harness, tmp_path: Path) -> None:
    stage = handler(harness, tmp_path)
    flush(
        harness,
        stage,
        message(0, lines([bet(KEY)])),
        message(1, lines([bet(KEY)], origin="b.ndjson")),
        message(2, bet(KEY)),
    )
    assert {(row["origin"], row["position"]) for row in logged(tmp_path)} == {
        ("a.ndjson", 0),
        ("b.ndjson", 0),
        ("generated/0", stream_position(0, 2)),
    }


def test_a_killed_handler_repeats_what_it_sent_but_keeps_it_once(harness: Harness, tmp_path: Path) -> None:
    """It was killed between sending and the commit of its log."""

    class KilledError(BaseException):
        pass

    first = handler(harness, tmp_path)
    flush(harness, first, message(0, lines([bet(KEY, 1.0)])))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(first, "save", lambda _: (_ for _ in ()).throw(KilledError))
        flush(harness, first, message(1, lines([bet(KEY, 2.0), b"bad"], first=1)))
    second = handler(harness, tmp_path)
    flush(harness, second, message(1, lines([bet(KEY, 2.0), b"bad"], first=1)))
    assert [row["bet_amount"] for row in logged(tmp_path)] == [1.0, 2.0]
    assert [letter.position for letter in harness.letters()] == [2, 2]
    assert harness.acks == [(0, 0), (0, 1)]


def test_an_owner_that_is_late_keeps_only_what_the_other_did_not(harness: Harness, tmp_path: Path) -> None:
    late = handler(harness, tmp_path, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(late, message(0, lines([bet(KEY, 1.0)])), message(1, lines([bet(KEY, 2.0)], first=1)))
    other = handler(harness, tmp_path)
    flush(harness, other, message(0, lines([bet(KEY, 1.0)])))
    harness.run(late.drain())
    assert [row["bet_amount"] for row in logged(tmp_path)] == [1.0, 2.0]
    again = handler(harness, tmp_path)
    flush(harness, again, message(1, lines([bet(KEY, 2.0)], first=1)), message(2, lines([bet(KEY, 3.0)], first=2)))
    assert [row["bet_amount"] for row in logged(tmp_path)] == [1.0, 2.0, 3.0]


def test_an_owner_that_is_late_and_meets_a_full_disk_keeps_nothing_twice(harness: Harness, tmp_path: Path) -> None:
    """Once it has read the other's footer, the next number is free: it must not try with the same rows again."""
    late = handler(harness, tmp_path, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(late, message(0, lines([bet(KEY, 1.0)])), message(1, lines([bet(KEY, 2.0)], first=1)))
    other = handler(harness, tmp_path)
    flush(harness, other, message(0, lines([bet(KEY, 1.0)])), message(1, lines([bet(KEY, 2.0)], first=1)))
    append, tries = late._log.append, list[Checkpoint]()

    def full(shard: int, table: pa.Table, checkpoint: Checkpoint) -> None:
        tries.append(checkpoint)
        if len(tries) == 2:
            raise UnavailableError("no space left")
        append(shard, table, checkpoint)

    late._log.append = full  # type: ignore[method-assign]
    harness.run(late.drain())
    assert len(tries) == 3
    assert [row["bet_amount"] for row in logged(tmp_path)] == [1.0, 2.0]


# The transform hook.


def doubled(batch: pa.RecordBatch) -> pa.RecordBatch:
    place = batch.schema.get_field_index("bet_amount")
    return batch.set_column(place, batch.schema.field(place), pc.multiply(batch.column(place), 2.0))


def test_a_transform_changes_what_is_kept_and_sent(harness: Harness, tmp_path: Path) -> None:
    flush(
        harness,
        handler(harness, tmp_path, transform=doubled),
        message(0, lines([bet(KEY, 1.0), b"bad", bet(KEY, 2.0)])),
    )
    assert [row["bet_amount"] for row in logged(tmp_path)] == [2.0, 4.0]
    assert [rows.batch.column("bet_amount").to_pylist() for _, rows in harness.sent("incoming-events")] == [[2.0, 4.0]]
    assert [letter.position for letter in harness.letters()] == [1]


def test_a_transform_may_leave_rows_out(harness: Harness, tmp_path: Path) -> None:
    stage = handler(
        harness,
        tmp_path,
        transform=lambda batch: batch.filter(pc.greater(batch.column("bet_amount"), 1.5)),
        linger_ms=100.0,
    )
    flush(
        harness,
        stage,
        message(0, lines([bet(KEY, 1.0), b"bad", bet(KEY, 2.0)])),
        message(1, lines([bet(KEY, 1.0), bet(KEY, 3.0)], first=3)),
        message(2, bet(KEY, 1.0) + b"\n" + bet(KEY, 4.0)),
    )
    assert [row["bet_amount"] for row in logged(tmp_path)] == [2.0, 3.0, 4.0]
    assert [letter.position for letter in harness.letters()] == [1]


def test_a_row_that_a_transform_broke_is_a_letter(harness: Harness, tmp_path: Path) -> None:
    def broken(batch: pa.RecordBatch) -> pa.RecordBatch:
        place = batch.schema.get_field_index("bet_amount")
        amounts = pa.array([float("nan"), None, 3.0][: batch.num_rows])
        return batch.set_column(place, batch.schema.field(place), amounts)

    flush(harness, handler(harness, tmp_path, transform=broken), message(0, lines([bet(KEY)] * 3)))
    assert [(one.position, one.reason) for one in harness.letters()] == [
        (0, "bet_amount: not a finite number"),
        (1, "bet_amount: missing"),
    ]
    assert [row["bet_amount"] for row in logged(tmp_path)] == [3.0]


def renamed(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.set_column(2, batch.schema.field(2), pa.array(["somebody else"] * batch.num_rows))


WRONG = {
    "nothing": lambda _: None,
    "other columns": lambda batch: batch.drop_columns(["city"]),
    "other rows": lambda batch: batch.set_column(0, batch.schema.field(0), pc.add(batch.column(0), 100)),
    "another order": lambda batch: batch.take(pa.array(np.arange(batch.num_rows)[::-1])),
    "a row twice": lambda batch: batch.take(pa.array([0, 0])),
    "an error": lambda batch: batch.column("no such column"),
    "keys of another shard": renamed,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_transform_that_does_what_it_must_not_holds_the_shard(harness: Harness, tmp_path: Path, name: str) -> None:
    assert shard_of("somebody else") != 0
    stage = handler(harness, tmp_path, transform=WRONG[name])
    handling = harness.loop.create_task(harness.handling(stage, message(0, lines([bet(KEY, 1.0), bet(KEY, 2.0)]))))
    harness.wait(30)
    assert stage.held and stage.hopeless
    assert (logged(tmp_path), harness.acks, harness.streams.records) == ([], [], {})
    handling.cancel()


def test_an_outage_within_a_transform_holds_the_shard_until_it_passes(harness: Harness, tmp_path: Path) -> None:
    failures = [ConnectionError("the lookup service is away")] * 3

    def asks(batch: pa.RecordBatch) -> pa.RecordBatch:
        if failures:
            raise failures.pop()
        return batch

    stage = handler(harness, tmp_path, transform=asks)
    handling = harness.loop.create_task(harness.handling(stage, message(0, lines([bet(KEY, 1.0)]))))
    harness.wait(0.01)
    assert "the lookup service is away" in stage.held and f"{__file__}, line" in stage.held and not stage.hopeless
    harness.wait(30)
    assert handling.done() and not stage.held
    assert len(logged(tmp_path)) == 1


@pytest.mark.parametrize("mistake", [ValueError, ConnectionError])
def test_a_hooks_exception_and_its_row_are_told_but_not_logged(
    harness: Harness, tmp_path: Path, mistake: type[Exception]
) -> None:
    def fails(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise mistake(f"no number: {batch.column('city')[0]}")

    line = bet(KEY, 1.0, city="Bielefeld")
    stage = handler(harness, tmp_path, transform=fails)
    handling = harness.loop.create_task(harness.handling(stage, message(0, lines([line]))))
    harness.wait(0.01)
    assert "no number: Bielefeld" in stage.held
    assert (KEY in stage.held) is (mistake is ValueError)
    (logged,) = [entry["why"] for entry in harness.logged]
    assert logged == stage.held_logged
    assert mistake.__name__ in logged and f"{__file__}, line" in logged
    assert "Bielefeld" not in logged and KEY not in logged
    handling.cancel()


def test_a_key_that_a_transform_made_is_told_with_what_to_do_instead(harness: Harness, tmp_path: Path) -> None:
    stage = handler(harness, tmp_path, transform=renamed)
    handling = harness.loop.create_task(harness.handling(stage, message(0, lines([bet(KEY, 1.0)], first=7))))
    harness.wait(0.01)
    assert "made 'somebody else' the user_id at position 7 of a.ndjson" in stage.held
    assert "user_id: {type: key, path: after.id}" in stage.held
    assert "another user_id at position 7 of a.ndjson" in stage.held_logged == harness.logged[0]["why"]
    assert "somebody else" not in str(harness.logged)
    handling.cancel()


# The inference logger.


def predictions(positions: Sequence[int], origin: str = "a.ndjson") -> bytes:
    columns = []
    for field in CHURN.prediction_schema:
        values: pa.Array = pa.array(list(positions)).cast(pa.int64())
        columns.append(pa.array([KEY] * len(positions)) if pa.types.is_string(field.type) else values.cast(field.type))
    return encode("predictions", origin, pa.RecordBatch.from_arrays(columns, schema=CHURN.prediction_schema))


def test_predictions_are_kept_once(harness: Harness, tmp_path: Path) -> None:
    harness.reads = "inference"
    first = logger(harness, tmp_path)
    flush(harness, first, event(0, predictions([1, 2]), 0, "inference"), event(1, predictions([2, 5]), 0, "inference"))
    second = logger(harness, tmp_path)
    flush(
        harness, second, event(1, predictions([2, 5]), 0, "inference"), event(2, predictions([5, 5, 6]), 0, "inference")
    )
    rows = logged(tmp_path, "inference")
    assert [(row["origin"], row["position"]) for row in rows] == [("a.ndjson", p) for p in (1, 2, 5, 6)]
    assert list(rows[0]) == CHURN.inference_log_schema.names
    assert harness.streams.records == {}


def test_message_whose_columns_claim_to_have_no_nulls_is_kept_beside_others(harness: Harness, tmp_path: Path) -> None:
    harness.reads = "inference"
    stage = logger(harness, tmp_path)
    batch = decode(predictions([2])).batch
    claimed = pa.schema([field.with_nullable(False) for field in batch.schema])
    other = encode("predictions", "a.ndjson", pa.RecordBatch.from_arrays(batch.columns, schema=claimed))
    flush(harness, stage, event(0, predictions([1]), 0, "inference"), event(1, other, 0, "inference"))
    assert [row["position"] for row in logged(tmp_path, "inference")] == [1, 2]


def test_what_is_no_predictions_is_a_letter_of_the_inference_logger(harness: Harness, tmp_path: Path) -> None:
    harness.reads = "inference"
    stage = logger(harness, tmp_path)
    vectors = encode("vectors", "o", pa.RecordBatch.from_pylist([], schema=CHURN.vector_schema))
    flush(harness, stage, event(0, vectors, 0, "inference"), event(1, predictions([1]), 0, "inference"))
    (letter,) = harness.letters()
    assert "which is for predictions" in letter.reason
    assert len(logged(tmp_path, "inference")) == 1


# Any messages.

KEYS = [f"v{i}" for i in range(100) if shard_of(f"v{i}") == 0][:3]
TEXTS = st.sampled_from([bet(key, amount) for key in KEYS for amount in (1.0, 2.0)] + [b"bad", b"{}", b"\xff"])
BODIES = st.one_of(
    st.lists(TEXTS, max_size=4).map(b"\n".join),
    st.sampled_from([b"[{", b"", UNREADABLE["vectors"], UNREADABLE["no Arrow message"]]),
)


@st.composite
def any_messages(draw: st.DrawFn) -> list[bytes]:
    """Return what comes into a shard: the lines of two files, again and again from an earlier one, and bodies."""
    files = {origin: draw(st.lists(TEXTS, min_size=1, max_size=9)) for origin in ("a.ndjson", "b.ndjson")}
    sent = dict.fromkeys(files, 0)
    bodies: list[bytes] = []
    for origin, back, count in draw(
        st.lists(st.tuples(st.sampled_from([*files, ""]), st.integers(0, 3), st.integers(1, 4)), max_size=9)
    ):
        if not origin:
            bodies.append(draw(BODIES))
            continue
        first = max(0, sent[origin] - back)
        texts = files[origin][first : sent[origin] + count]
        sent[origin] = max(sent[origin], first + len(texts))
        bodies.append(lines(texts, first, origin))
    return bodies


@hypothesis_settings(deadline=None, max_examples=60)
@given(any_messages(), st.sampled_from([0.0, 50.0]), st.integers(0, 9))
def test_every_row_counts_once_however_messages_are_taken(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], linger: float, restart: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    truth = Truth(CHURN)
    with pytest.MonkeyPatch.context() as patch:
        harness = Harness(patch, reads=READS)
        stage = handler(harness, folder, linger_ms=linger)
        stage.open(0)
        for offset, body in enumerate(bodies):
            if offset == restart:
                harness.run(stage.drain())
                stage = handler(harness, folder, linger_ms=linger)
            truth.append(0, 0, offset, SHARDS, body)
            harness.handle(stage, message(offset, body))
        flush(harness, stage)
        harness.close()
    expected = [identity for rows in truth.events.values() for identity, _ in rows]
    assert [(row["origin"], row["position"]) for row in logged(folder)] == expected
    assert [(one.origin, one.shard, one.position) for one in harness.letters()] == list(truth.letters)
    sent = [
        (rows.origin, position)
        for _, rows in harness.sent("incoming-events")
        for position in rows.batch.column("position").to_pylist()
    ]
    assert sent == expected


# Predictions that no model has made.


def unanswered(positions: Sequence[int]) -> bytes:
    answer = (CHURN.prediction, CHURN.probability, MODEL_VERSION)
    return encode("predictions", "a.ndjson", decode(predictions(positions)).batch.drop_columns(answer))


def counted(folder: Path) -> tuple[int, int]:
    log = ParquetLog(folder / "inference", CHURN.inference_log_schema, 0)
    return log.count(), log.counters().get(UNANSWERED, 0)


def test_vectors_without_an_answer_are_kept_and_counted_once(harness: Harness, tmp_path: Path) -> None:
    harness.reads = "inference"
    flush(harness, logger(harness, tmp_path), event(0, unanswered([1, 2]), 0, "inference"))
    assert counted(tmp_path) == (2, 2)
    again = event(0, unanswered([1, 2]), 0, "inference"), event(1, unanswered([3]), 0, "inference")
    flush(harness, logger(harness, tmp_path), *again, event(2, predictions([4]), 0, "inference"))
    assert counted(tmp_path) == (4, 3)
    assert [row[MODEL_VERSION] is None for row in logged(tmp_path, "inference")] == [True, True, True, False]


def test_owner_that_is_late_counts_only_the_unanswered_that_the_other_did_not(harness: Harness, tmp_path: Path) -> None:
    harness.reads = "inference"
    late = logger(harness, tmp_path, commit_ms=10_000.0, commit_rows=1000)
    harness.handle(late, event(0, unanswered([1, 2]), 0, "inference"), event(1, unanswered([3]), 0, "inference"))
    flush(harness, logger(harness, tmp_path), event(0, unanswered([1, 2]), 0, "inference"))
    harness.run(late.drain())
    assert counted(tmp_path) == (3, 3)
