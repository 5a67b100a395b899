"""The same vectors in Quix Streams: one stateful function over a topic of Kafka, single events in, vectors out.

    python -m bench.peer_quix --broker 127.0.0.1:9092 --input events.ndjson --enrichment postcodes.csv [--rate N]

A process of its own sends each line as a message, keyed by its user: with --rate at so many a second as soon as the
first has been processed, otherwise all of them before the clock starts. Lines are decoded by msgspec; arithmetic is
that of `peer_bytewax`, so the vectors are equal to the bit. A user's state is in RocksDB and in a topic of changes, and
offsets are committed every 5 s, as is usual there: at least once. Nothing is scored and no log is written.

The delay of an event is from its sending to the time at which the broker appended its vector.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from quixstreams import Application, State

from bench.peer_bytewax import KINDS, Event, User, apply, read_enrichment
from bench.peer_polars import FEATURES

SHARDS = 8
TICK = 0.005
"""Seconds between two looks at what is due."""
PATIENCE = 3.0
"""Seconds without a message after which the application ends."""

Row = tuple[str, list[float], int, int]
"""Key, vector, and the milliseconds at which the event was sent and its vector was appended."""


def stateful(index: dict[str, float]) -> Callable[[bytes, Any, int, Any, State], dict[str, Any] | None]:
    """Return the function of an event and its user's state, for a lookup table."""
    decoder = msgspec.json.Decoder(Event)

    def vector(value: bytes, _key: object, timestamp: int, _headers: object, state: State) -> dict[str, Any] | None:
        event = decoder.decode(value)
        kind = KINDS.get(event.event_type)
        if kind is None:
            return None
        values = (event.amount, event.bet_amount, event.win_amount)
        x = values[kind - 1] if kind else index.get(str(event.postcode), 0.0)
        user, features = apply(_read(state.get("user")), (kind, event.event_time, x))
        state.set("user", [user.index, user.first and user.first.isoformat(), user.statistics])
        return None if features is None else {"at": timestamp, "vector": features}

    return vector


def _read(stored: Any) -> User | None:
    if stored is None:
        return None
    user = User()
    user.index, first, user.statistics = stored
    user.first = first and datetime.fromisoformat(first)
    return user


def send(broker: str, topic: str, path: Path, rate: float, most: int) -> None:
    """Send the first lines of a file: one, and after a line on standard input so many a second; 0 means all at once."""
    decoder = msgspec.json.Decoder(Event)
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    with path.open("rb") as file:
        lines = [line for line, _ in zip(file, range(most), strict=False)] if most else list(file)
    for number, line in enumerate(lines):
        if rate and number == 1:
            producer.flush()
            sys.stdin.readline()
        if number < 2:
            begun = time.monotonic()
        while rate and number > (time.monotonic() - begun) * rate:
            producer.poll(0)
            time.sleep(TICK)
        producer.produce(topic, line.rstrip(b"\n"), decoder.decode(line).user_id)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()


def run(broker: str, path: Path, index: dict[str, float], rate: float, most: int) -> tuple[list[Row], float, int]:
    """Run the application until no message comes; return the vectors, the seconds it took and the number of events."""
    name = uuid.uuid4().hex[:8]
    events, vectors = f"events-{name}", f"vectors-{name}"
    made = [
        NewTopic(events, SHARDS, 1),
        NewTopic(vectors, SHARDS, 1, config={"message.timestamp.type": "LogAppendTime"}),
    ]
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.create_topics(made).values():
        future.result(30)
    seen, times = 0, [0.0, 0.0]
    options = ["--broker", broker, "--input", str(path), "--rate", f"{rate:g}", "--events", str(most), "--send", events]
    sender = subprocess.Popen([sys.executable, "-m", "bench.peer_quix", *options], stdin=subprocess.PIPE)
    assert sender.stdin is not None
    go = sender.stdin

    def processed(*_: object) -> None:
        nonlocal seen
        seen += 1
        times[1] = time.perf_counter()
        if seen == 1:
            times[0] = times[1]
            if rate:
                go.write(b"go\n")
                go.flush()

    with tempfile.TemporaryDirectory() as folder:
        application = Application(
            broker_address=broker,
            consumer_group=name,
            auto_offset_reset="earliest",
            state_dir=folder,
            loglevel="ERROR",
            consumer_poll_timeout=0.1,
            on_message_processed=processed,
        )
        frame = application.dataframe(application.topic(events, value_deserializer="bytes"))
        frame = frame.apply(stateful(index), stateful=True, metadata=True)
        frame = frame.filter(lambda value: value is not None)
        frame.to_topic(application.topic(vectors))
        try:
            if not rate:
                sender.wait()
            application.run(timeout=PATIENCE)
            sender.wait()
        finally:
            sender.kill()
            sender.wait()
            go.close()
    return read(broker, vectors), times[1] - times[0], seen


def read(broker: str, topic: str) -> list[Row]:
    """Return all vectors of a topic, those of a user in their order."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": topic, "enable.auto.commit": False})
    places = [TopicPartition(topic, shard, OFFSET_BEGINNING) for shard in range(SHARDS)]
    left = sum(consumer.get_watermark_offsets(place, timeout=30)[1] for place in places)
    consumer.assign(places)
    rows = []
    while left:
        for message in consumer.consume(10_000, timeout=1.0):
            left -= 1
            rows.append(_row(message))
    consumer.close()
    return rows


def _row(message: Message) -> Row:
    key, value = message.key(), message.value()
    assert key is not None
    assert value is not None
    said = json.loads(value)
    return bytes(key).decode(), said["vector"], said["at"], message.timestamp()[1]


def result(rows: list[Row], seconds: float, events: int, settle: float) -> dict[str, Any]:
    """Return what was measured; the delay leaves out events of the first `settle` seconds."""
    sent, stored = (np.array([row[place] for row in rows], np.int64) for place in (2, 3))
    said: dict[str, Any] = {"events": events, "vectors": len(rows), "seconds": seconds}
    late = (stored - sent)[sent >= sent.min(initial=1 << 60) + 1000 * settle]
    if len(late):
        said["delay_ms"] = {name: float(np.percentile(late, part)) for name, part in (("p50", 50), ("p99", 99))}
    return said


def main() -> None:
    """Run the application and print one JSON object: events, vectors, seconds, and with --rate delay_ms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True, help="HOST:PORT")
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--enrichment", type=Path)
    parser.add_argument("--rate", type=float, default=0.0, help="events a second (default: all at once)")
    parser.add_argument("--events", type=int, default=0, help="send so many lines of the file (default: all)")
    parser.add_argument("--settle", type=float, default=0.0, help="the delay leaves out the first seconds")
    parser.add_argument("--output", type=Path, help="write the vectors to this Parquet file")
    parser.add_argument("--send", metavar="TOPIC", help="only send the events, into this topic")
    given = parser.parse_args()
    if given.send:
        send(given.broker, given.send, given.input, given.rate, given.events)
        return
    if given.enrichment is None:
        parser.error("--enrichment is missing")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    rows, seconds, events = run(given.broker, given.input, read_enrichment(given.enrichment), given.rate, given.events)
    if given.output:
        table = [(key, *vector) for key, vector, _, _ in rows]
        pl.DataFrame(table, schema=["user_id", *FEATURES], orient="row").write_parquet(given.output)
    print(json.dumps(result(rows, seconds, events, given.settle if given.rate else 0.0)))


if __name__ == "__main__":
    main()
