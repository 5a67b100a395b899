"""What is looked up at events is served, logged and replayed as it was at the event, whatever the tables have later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from modelstream.features.engine import FeatureEngine, replay
from modelstream.replay.misses import lookup_warnings
from modelstream.replay.recompute import Recomputation
from modelstream.settings import StoreNames, StoreUrls
from modelstream.stages.event_handler import EventHandler
from modelstream.stages.shard import Incoming, Shard
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.stores import Stores
from modelstream.use_case.declared import Clock, UseCase
from tests.events.payments import PAYMENTS, line
from tests.stages.harness import settings

USE_CASE: UseCase = msgspec.structs.replace(PAYMENTS, written_time=Clock("at", ahead="1h", late="2h"), id="shop")
AT = 1_774_728_000_000_000
"""2026-03-28 20:00 UTC, when the events arrive."""


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with Stores(StoreUrls().within(tmp_path), StoreNames(), USE_CASE) as opened:
        for name in ("generated", "incoming-events", "serving"):
            opened.streams.create(name, 1)
        yield opened


def load(stores: Stores, table: str, **values: float) -> None:
    keys, numbers = pa.array(values, pa.string()), pa.array(values.values(), pa.float64())
    stores.lookups[table].load([pa.record_batch({"key": keys, "value": numbers})])


class Pipeline:
    """The event-handler and stream-to-features, one message at a time."""

    def __init__(self, stores: Stores) -> None:
        handles = settings(reads="generated", writes="incoming-events", shards=1)
        features = settings(reads="incoming-events", writes="serving", shards=1)
        self.warned: list[dict[str, Any]] = []
        context = SimpleNamespace(logger=SimpleNamespace(warn_with=lambda _, **more: self.warned.append(more)))
        self.handler = EventHandler(
            context, handles, stores.streams, USE_CASE, stores.events_log, 0, look_up=stores.look_up
        )
        self.features = StreamToFeatures(
            None, features, stores.streams, USE_CASE, stores.features, stores.look_up, epoch=0
        )
        self.shards = [Shard(0, stage.open(0), saved=-1) for stage in (self.handler, self.features)]
        self.stores = stores
        self.vectors: list[list[float]] = []

    def take(self, *lines: bytes) -> None:
        first, second = self.shards
        offset = first.checkpoint.offset = first.checkpoint.offset + 1
        self.handler.take_all([(first, [Incoming(0, offset, b"[" + b",".join(lines) + b"]", AT)])])
        records, letters = first.encoded()
        assert letters == []
        self.stores.streams.append("incoming-events", records)
        first.outbox.clear()
        self.handler.save(first)
        for _, body in records:
            offset = second.checkpoint.offset = second.checkpoint.offset + 1
            self.features.take(second, Incoming(0, offset, body, AT))
        for *_, batch in second.outbox:
            self.vectors += np.column_stack([batch.column(name) for name in USE_CASE.features]).tolist()
        second.outbox.clear()
        self.features.save(second)


def replayed(stores: Stores) -> tuple[list[list[float]], dict[str, int]]:
    again = Recomputation(stores)
    found: list[list[float]] = []
    reasons: dict[str, int] = {}
    for _, applied in replay(USE_CASE, again.events(), again.lookup, FeatureEngine(USE_CASE)):
        found += applied.vectors.tolist()
        for reason, number in applied.not_counted.items():
            reasons[reason] = reasons.get(reason, 0) + number
    return found, reasons


def column(vectors: Sequence[Sequence[float]], name: str) -> list[float]:
    return [vector[USE_CASE.features.index(name)] for vector in vectors]


def test_replay_gives_the_values_and_decisions_of_the_log(stores: Stores) -> None:
    pipeline = Pipeline(stores)
    load(stores, "terminals", t1=0.5)
    pipeline.take(line(terminal="t1", shop="1"), line(terminal="t2", shop="2"))
    load(stores, "terminals", t1=0.75, t2=0.25)
    pipeline.take(
        line(terminal="t1", shop="3"),
        line(terminal="t1", shop="3"),  # repeated
        line(terminal="t1", shop="4", at="2026-03-28 17:00"),  # too_late
        line(terminal="t1", shop="5", at="2026-03-28 21:30"),  # in_the_future
        line(terminal="t2", shop="6"),
    )
    load(stores, "terminals", t1=9.0, t2=9.0)
    load(stores, "shops", **{"1": 9.0})
    assert pipeline.warned == [{"table": "terminals, shops", "lookups": 21, "misses": 15}]
    assert column(pipeline.vectors, "risk") == [0.5, 0.0, 0.75, 0.25]
    assert column(pipeline.vectors, "shop_risk") == [0.5] * 4  # the default
    vectors, reasons = replayed(stores)
    assert vectors == pipeline.vectors
    assert reasons == {"repeated": 1, "too_late": 1, "in_the_future": 1}
    counters = stores.counters(1)
    assert {name: counters[name] for name in reasons} == reasons == pipeline.features.counters.not_counted
    assert (counters["lookups"], counters["lookup_misses"]) == (21, 1 + 7 + 7)
    assert pipeline.features.counters.repeated == pipeline.handler.counters.repeated == 0  # of deliveries


def test_of_several_tables_those_that_miss_are_told(stores: Stores) -> None:
    pipeline = Pipeline(stores)
    load(stores, "terminals", t1=0.5, m1=1.0)
    load(stores, "shops", a=0.5)
    pipeline.take(*(line(terminal="t1", shop=f"s{number}") for number in range(5)))
    counters = stores.counters(1)
    (told,) = lookup_warnings(stores, counters["lookups"], counters["lookup_misses"])
    assert told.startswith(
        "5 of 15 lookups found nothing, many of them in the table shops: shop_risk is then the default"
    )
    assert "shop 's0' was looked up, and the table has 'a'" in told
