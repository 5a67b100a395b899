"""Records for MLRun's model monitoring: their schema, how many, and that predictions never wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.errors import UnavailableError
from modelstream.model.onnx import Floats
from modelstream.model.scoring import Scores
from modelstream.stages import monitoring
from modelstream.stages.monitoring import MOST_ROWS, WAITING_ROWS, About, Connection, Monitor
from modelstream.streams import Streams, open_streams

ABOUT = About("churn", "Model", "modelstream/model-server", worker="1", host="pod")


@pytest.fixture
def streams(tmp_path: Path) -> Iterator[Streams]:
    with open_streams(f"sqlite://{tmp_path}") as found:
        found.create("monitoring", shards=4)
        yield found


def numbered(first: int, count: int) -> tuple[Floats, Scores]:
    """Return vectors whose first feature is a number of their own, and answers that follow from it."""
    numbers = np.arange(first, first + count)
    vectors = np.stack([numbers, -numbers, numbers / 3], axis=1).astype(np.float32)
    return vectors, Scores((numbers % 2).astype(np.int8), (numbers % 10) / 10)


def records(streams: Streams) -> list[dict[str, Any]]:
    bodies = [m.body for shard in range(4) for m in streams.read("monitoring", shard, 0, 10**6, 10**9)]
    return [msgspec.json.decode(body) for body in bodies]


def monitor(connect: Callable[[str], Connection], said: list[tuple[str, str]] | None = None) -> Monitor:
    return Monitor(ABOUT, connect, lambda what, why: None if said is None else said.append((what, why)), seed=1)


def to(streams: Streams) -> Callable[[str], Connection]:
    return lambda version: Connection(f"endpoint-of-{version}", streams, "monitoring")


def test_mlruns_stream_function_reads_every_row_of_a_record(streams: Streams) -> None:
    """Through the first step of MLRun's own monitoring function, which takes records apart."""
    from mlrun.common.schemas.model_monitoring.constants import StreamProcessingEvent
    from mlrun.model_monitoring.stream_processing import ProcessEndpointEvent

    sender = monitor(to(streams))
    vectors, scores = numbered(0, 5)
    sender.offer("3", vectors, scores, started=1_790_000_000.5)
    sender.send()
    (record,) = records(streams)
    written = {value for name, value in vars(StreamProcessingEvent).items() if name.isupper()}
    assert written - record.keys() == {"model_class", "error", "metrics"}, "as V2ModelServer's, of a success"
    step = ProcessEndpointEvent(project="modelstream")
    step.endpoints.add("endpoint-of-3")  # it would ask the API for the endpoint's first request
    rows = asyncio.run(step.do(SimpleNamespace(body=record, key=None))).body
    assert [row["features"] for row in rows] == vectors.tolist()
    assert [row["prediction"] for row in rows] == [[n % 2, n / 10] for n in range(5)]
    assert {(row["endpoint_id"], row["endpoint_name"], row["model_class"]) for row in rows} == {
        ("endpoint-of-3", "churn", "Model")
    }
    assert {row["timestamp"].isoformat() for row in rows} == {"2026-09-21T14:13:20.500000+00:00"}
    assert sum(row["estimated_prediction_count"] for row in rows) == 5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 900), st.sampled_from("12")), min_size=1, max_size=12))
def test_a_batch_holds_all_rows_or_a_sample_that_says_how_large_it_is(parts: list[tuple[int, str]]) -> None:
    taken: list[tuple[str, list[dict[str, Any]]]] = []
    sender, first = monitor(lambda _: pytest.fail("nothing is sent")), 0
    of_version: dict[str, set[int]] = {"1": set(), "2": set()}
    for count, version in parts:
        sender.offer(version, *numbered(first, count), started=0.0)
        of_version[version] |= {*range(first, first + count)}
        first += count
    taken = sender._sampled(sender._taken())
    found = [
        (version, int(row[0]), percentage, answer)
        for version, made in taken
        for record in made
        for row, answer in zip(record["request"]["inputs"], record["resp"]["outputs"], strict=True)
        for percentage in [record["sampling_percentage"]]
    ]
    assert len(found) == len({number for _, number, _, _ in found}) == min(first, MOST_ROWS)
    assert all(number in of_version[version] for version, number, _, _ in found)
    assert all(answer == [number % 2, number % 10 / 10] for _, number, _, answer in found)
    assert sum(100 / percentage for _, _, percentage, _ in found) == pytest.approx(first)


def test_a_sample_draws_every_row_with_the_same_chance() -> None:
    sender, counts = monitor(lambda _: pytest.fail("nothing is sent")), np.zeros(4000)
    for _ in range(60):
        for first in (0, 1000, 3000):
            sender.offer("1", *numbered(first, 2000 if first == 1000 else 1000), started=0.0)
        for _, made in sender._sampled(sender._taken()):
            for record in made:
                counts[[int(row[0]) for row in record["request"]["inputs"]]] += 1
    shares = counts.reshape(4, 1000).sum(axis=1) / 60 / 1000
    assert shares == pytest.approx([0.25] * 4, abs=0.02)


def test_a_record_stays_below_a_megabyte_however_wide_vectors_are(streams: Streams) -> None:
    sender = monitor(to(streams))
    scores = Scores(np.ones(1000, np.int8), np.full(1000, 1 / 3))
    sender.offer("1", np.full((1000, 2000), 1 / 3, np.float32), scores, started=0.0)
    sender.send()
    bodies = [m.body for shard in range(4) for m in streams.read("monitoring", shard, 0, 10**6, 10**9)]
    assert max(map(len, bodies)) < 1 << 20
    assert sum(len(record["request"]["inputs"]) for record in records(streams)) == 1000


def test_versions_go_to_their_own_endpoints(streams: Streams) -> None:
    sender = monitor(to(streams))
    for version in ("1", "2", "1"):
        sender.offer(version, *numbered(0, 2), started=0.0)
    sender.send()
    assert sorted(record["endpoint_id"] for record in records(streams)) == ["endpoint-of-1"] * 2 + ["endpoint-of-2"]
    assert {(record["endpoint_id"][-1], record["labels"]["version"]) for record in records(streams)} == {
        ("1", "1"),
        ("2", "2"),
    }


def test_after_an_outage_the_same_rows_are_sent_and_what_did_not_fit_is_told(streams: Streams) -> None:
    said: list[tuple[str, str]] = []
    away = True

    def connect(version: str) -> Connection:
        if away:
            raise UnavailableError("the API is away")
        return to(streams)(version)

    sender = monitor(connect, said)
    sender.offer("1", *numbered(0, 10), started=0.0)
    assert not sender._sent()
    assert not sender._sent()
    for place in range(WAITING_ROWS // 1000 + 3):
        sender.offer("1", *numbered(place * 1000, 1000), started=0.0)
    assert sender.left_out == 3000
    assert said == [("MLRun's monitoring gets no records", "the API is away")]
    away = False
    assert sender._sent()
    (first,) = records(streams)
    assert [row[0] for row in first["request"]["inputs"]] == [*range(10)]
    assert [what for what, _ in said[1:]] == ["MLRun's monitoring gets records", "not told to MLRun's monitoring"]
    assert said[2][1].startswith("3,000 predictions")
    assert sender._sent()
    sent = [record for record in records(streams) if record["request"]["id"] != first["request"]["id"]]
    assert sum(100 / one["sampling_percentage"] * len(one["request"]["inputs"]) for one in sent) == pytest.approx(
        WAITING_ROWS
    )
    assert len(said) == 3


def test_offering_waits_for_nothing(streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "EVERY", 0.001)
    asked, go = threading.Event(), threading.Event()

    def connect(version: str) -> Connection:
        asked.set()
        assert go.wait(60)
        return to(open_streams(f"sqlite://{tmp_path}"))(version)

    sender = monitor(connect)
    sender.start()
    sender.offer("1", *numbered(0, 10), started=0.0)
    assert asked.wait(60)
    for place in range(50):  # the thread hangs in `connect`; these return all the same
        sender.offer("1", *numbered(place, 1), started=0.0)
    go.set()
    deadline = time.monotonic() + 60
    while sum(len(record["request"]["inputs"]) for record in records(streams)) < 60:
        assert time.monotonic() < deadline
        time.sleep(0.01)
