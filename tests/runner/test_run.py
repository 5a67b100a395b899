"""The delay of events is measured of those that came in this run, if there were any."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest

from modelstream.messages.codec import encode
from modelstream.runner.run import delays
from modelstream.streams.sqlite import SqliteStreams
from modelstream.use_case.columns import INGESTED_AT, POSITION

SECOND = 1_000_000


@pytest.fixture
def streams(tmp_path: Path) -> SqliteStreams:
    found = SqliteStreams(tmp_path)
    found.create("inference", 2)
    return found


def predict(streams: SqliteStreams, shard: int, *ingested: int) -> None:
    times = pa.array(ingested, pa.timestamp("us", tz="UTC"))
    batch = pa.record_batch({POSITION: range(len(ingested)), INGESTED_AT: times})
    streams.append("inference", [(shard, encode("predictions", "o", batch))])


def test_delays_are_of_events_appended_from_then_on(streams: SqliteStreams) -> None:
    now = time.time()
    micros = int(now * SECOND)
    predict(streams, 0, micros - 60 * SECOND, micros)
    predict(streams, 1, micros)
    found = delays(streams, "inference", now - 1)
    assert 0 <= found["p50"] <= found["p99"] < 60_000


def test_predictions_of_earlier_events_alone_give_no_delay(streams: SqliteStreams) -> None:
    now = time.time()
    predict(streams, 0, int((now - 60) * SECOND))
    assert delays(streams, "inference", now - 1) == {}
    assert delays(streams, "inference", now + 60) == {}
