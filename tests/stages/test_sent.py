"""What was looked up for an event when it was first sent is what its log keeps, whatever the table has by then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelstream.errors import UnavailableError
from modelstream.logs.parquet import ParquetLog
from modelstream.messages.codec import decode, encode
from modelstream.messages.identity import bucket_of
from modelstream.stages.event_handler import EventHandler
from modelstream.stages.sent import Sent, ends_of
from modelstream.stages.shard import Incoming, Shard
from modelstream.streams import Streams, open_streams
from tests.events.payments import PAYMENTS, line
from tests.raw_lines import lines_batch
from tests.stages.harness import settings

SHARDS = 4
READS, WRITES = "generated", "incoming-events"
CARD = next(f"c{i}" for i in range(100) if bucket_of(f"c{i}") % SHARDS == 0)
AWAY = next(f"c{i}" for i in range(100) if bucket_of(f"c{i}") % SHARDS == 1)


@pytest.fixture
def streams(tmp_path: Path) -> Iterator[Streams]:
    with open_streams(f"sqlite://{tmp_path / 'streams'}") as opened:
        for name in (READS, WRITES):
            opened.create(name, SHARDS)
        yield opened


class Process:
    """An event-handler's process: it begins with what is durable, and may end at any step."""

    def __init__(self, streams: Streams, folder: Path, table: dict[str, float]) -> None:
        self.table = table
        self.streams = streams
        self.log = ParquetLog(folder / "events", PAYMENTS.events_log_schema, 0)
        options = settings(reads=READS, writes=WRITES, shards=SHARDS)
        self.stage = EventHandler(None, options, streams, PAYMENTS, self.log, 0, look_up=self.look_up)
        self.away = False
        self.shard = self.opened()

    def look_up(self, table: str, keys: Sequence[str]) -> list[float | None]:
        if self.away:
            raise UnavailableError("the table is away")
        return [self.table.get(key) if table == "terminals" else None for key in keys]

    def opened(self) -> Shard:
        self.shard = Shard(0, checkpoint := self.stage.open(0), saved=checkpoint.offset)
        return self.shard

    def take(self, *messages: Incoming) -> None:
        fresh = [message for message in messages if message.offset > self.shard.checkpoint.offset]
        self.stage.take_all([(self.shard, fresh)])
        self.shard.checkpoint.offset = messages[-1].offset

    def send(self) -> None:
        self.streams.append(WRITES, self.shard.encoded()[0])
        self.shard.outbox.clear()

    def save(self) -> None:
        self.stage.save(self.shard)


def from_file(offset: int, *terminals: int) -> Incoming:
    texts = [line(card=CARD, merchant="m", terminal=terminal) for terminal in terminals]
    batch = lines_batch(texts, range(10 * offset, 10 * offset + len(texts)))
    return Incoming(0, offset, encode("lines", "a.ndjson", batch, ingested_at="1"), 1)


def from_client(offset: int, *terminals: int) -> Incoming:
    texts = [line(card=AWAY, merchant="m", terminal=terminal) for terminal in terminals]
    return Incoming(0, offset, b"[" + b",".join(texts) + b"]", 1)


def sent(streams: Streams) -> dict[tuple[str, int], list[float | None]]:
    """Return the values of each event in the order in which it was sent: the first is what was applied."""
    found: dict[tuple[str, int], list[float | None]] = {}
    for shard in range(SHARDS):
        for message in streams.read(WRITES, shard, 0, 1000, 1 << 30):
            rows = decode(message.body)
            risks = rows.batch.column("risk") if "risk" in rows.batch.schema.names else pa.nulls(rows.batch.num_rows)
            for position, risk in zip(rows.batch.column("position").to_pylist(), risks.to_pylist(), strict=True):
                found.setdefault((rows.origin, position), []).append(risk)
    return found


def logged(folder: Path) -> dict[tuple[str, int], float | None]:
    ParquetLog(folder / "events", pa.schema([]), 0).publish()
    rows = pq.read_table(folder / "events", partitioning=None).to_pylist()
    assert len({(row["origin"], row["position"]) for row in rows}) == len(rows)
    return {(row["origin"], row["position"]): row["risk"] for row in rows}


def test_looked_up_values_are_sent_and_logged_and_counted(streams: Streams, tmp_path: Path) -> None:
    process = Process(streams, tmp_path, {"7": 0.5})
    process.take(from_file(0, 7, 8), from_client(1, 7))
    process.send()
    process.save()
    assert logged(tmp_path) == {at: values[0] for at, values in sent(streams).items()}
    assert sorted(logged(tmp_path).values(), key=str) == [0.5, 0.5, None]
    counters = process.log.counters()
    assert (counters["lookups"], counters["lookup_misses"]) == (6, 4)  # by merchant, which is not found, and terminal
    assert (process.stage.counters.lookups, process.stage.counters.lookup_misses) == (6, 4)


@pytest.mark.parametrize("made", [from_file, from_client])
def test_an_event_that_was_sent_and_not_logged_is_logged_as_it_was_sent(
    streams: Streams, tmp_path: Path, made: Callable[..., Incoming]
) -> None:
    messages = [made(0, 7), made(1, 7, 8), made(2, 7)]
    first = Process(streams, tmp_path, {"7": 0.5})
    first.take(messages[0])
    first.send()
    first.save()
    first.take(messages[1])
    first.send()  # and is killed
    second = Process(streams, tmp_path, {"7": 0.75, "8": 0.25})
    second.take(messages[1])
    second.send()  # killed once more
    third = Process(streams, tmp_path, {"7": 1.0})
    third.take(messages[1])
    third.send()
    third.save()
    third.take(messages[2])
    third.send()
    third.save()
    assert logged(tmp_path) == {at: values[0] for at, values in sent(streams).items()}
    assert [*logged(tmp_path).values()] == [0.5, 0.5, None, 1.0]
    counters = third.log.counters()
    assert (counters["lookups"], counters["lookup_misses"]) == (8, 5)


def test_events_that_are_taken_in_several_cycles_after_a_crash_keep_their_values(
    streams: Streams, tmp_path: Path
) -> None:
    messages = [from_file(0, 7), from_file(1, 7), from_client(2, 7)]
    first = Process(streams, tmp_path, {"7": 0.5})
    first.take(*messages)
    first.send()
    second = Process(streams, tmp_path, {"7": 0.75})
    for message in messages:
        second.take(message)
        second.send()
        second.save()
    assert [*logged(tmp_path).values()] == [0.5] * 3


def test_a_table_that_is_away_stops_the_shard_until_it_is_back(streams: Streams, tmp_path: Path) -> None:
    process = Process(streams, tmp_path, {"7": 0.5})
    process.take(from_file(0, 7))
    process.send()
    process.away = True
    with pytest.raises(UnavailableError):
        process.take(from_file(1, 7))
    process.away, process.table = False, {"7": 0.75}
    process.opened()  # as the stage does after a step that failed
    process.take(from_file(0, 7), from_file(1, 7))
    process.send()
    process.save()
    assert [*logged(tmp_path).values()] == [0.5, 0.75]


def test_foreign_messages_in_the_stream_are_passed_over(streams: Streams) -> None:
    schema = pa.schema([PAYMENTS.event_schema.field(name) for name in ("position", "risk")])
    ends = ends_of(streams, WRITES)
    others = [
        b"?",
        encode("vectors", "a", pa.record_batch({"position": [1]})),
        encode("events", "a", pa.record_batch({"position": [1], "risk": ["high"]})),
        encode("events", "b", pa.record_batch({"position": [1, 2]})),
    ]
    streams.append(WRITES, [(0, body) for body in others])
    found = Sent(schema)
    found.read(streams, WRITES, 0, ends, own="generated/0")
    again = pa.record_batch({"position": [1, 2], "risk": [0.5, 0.5]}, schema)
    assert found.put_into("a", again).column("risk").to_pylist() == [0.5, 0.5]
    assert found.put_into("b", again).column("risk").to_pylist() == [None, None]
