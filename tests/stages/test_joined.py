"""Messages taken together have the effects that they have one by one, in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelstream.messages.codec import Decoded, UnreadableError, decode, encode
from modelstream.messages.identity import Checkpoint, bucket_of
from modelstream.model.scoring import Scorer
from modelstream.settings import Settings, StoreNames, StoreUrls
from modelstream.stages.base import Stage
from modelstream.stages.event_handler import EventHandler
from modelstream.stages.joined import LARGE, join
from modelstream.stages.model_server import ModelServerStage
from modelstream.stages.shard import Incoming, Shard
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.stores import Stores
from modelstream.use_case.file import parse_use_case

HEATING = parse_use_case("""
{version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean, count],
 fields: {house: key, at: time, kind: text, celsius: number, note: text},
 events: {reading: {value: celsius}}, predict_on: [reading],
 model: {name: frost, prediction: will_freeze}}
""")
SHARDS = 3
HOUSES = [f"h{i}" for i in range(6)]
BAD = (b"?", b"{}")


class _Model:
    features = len(HEATING.features)
    spec = SimpleNamespace(version="1")

    def predict(self, vectors: Any) -> Any:
        return (vectors[:, 0] % 7) / 7


def events(rows: list[tuple[int, str, float | None, str | None]], kind: str) -> pa.RecordBatch:
    made = [
        {"position": p, "ingested_at": 5, "house": h, "at": p, "kind": kind, "celsius": c, "note": note}
        for p, h, c, note in rows
    ]
    return pa.RecordBatch.from_pylist(made, HEATING.event_schema)


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[int, str, pa.RecordBatch | bytes]]:
    """Return messages: shard, origin, and events of its houses; or bytes. Positions repeat at times."""
    position, found = 0, []
    for _ in range(draw(st.integers(2, 10))):
        shard, origin = draw(st.integers(0, SHARDS - 1)), draw(st.sampled_from(("a", "a", "a", "b")))
        what = draw(st.sampled_from(("rows",) * 8 + ("bad", "unchecked", "types")))
        if what == "bad":
            found.append((shard, origin, draw(st.sampled_from(BAD))))
            continue
        own = [house for house in HOUSES if bucket_of(house) % SHARDS == shard] or [HOUSES[0]]
        position = max(0, position - draw(st.sampled_from((0, 0, 0, 2, 5))))
        rows = []
        for _ in range(draw(st.integers(0 if what == "rows" else 1, 4))):
            celsius = None if what == "unchecked" else draw(st.integers(-40, 40)) / 4
            rows.append((position, draw(st.sampled_from(own)), celsius, draw(st.sampled_from((None, None, "x")))))
            position += 1
        batch = events(rows, "reading")
        if what == "types":
            batch = batch.set_column(batch.schema.get_field_index("celsius"), "celsius", pa.array(["1"] * len(rows)))
        found.append((shard, origin, batch))
    return found


class Pair:
    """Two stages of a kind: one takes messages together, the other one by one."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.stores = [Stores(StoreUrls().within(folder / name), StoreNames(), HEATING) for name in ("a", "b")]
        self.stages = [self._stage(stores) for stores in self.stores]
        self.shards = [[Shard(n, stage.open(n) or Checkpoint(), -1) for n in range(SHARDS)] for stage in self.stages]

    def _stage(self, stores: Stores) -> Stage:
        kept: Any = {"events": "events", "vectors": "events", "predictions": "predictions"}[self.kind]
        options = Settings(function="f", use_case="", reads="in", writes="out", shards=SHARDS, rows=kept)
        none: Any = None
        if self.kind == "events":
            return StreamToFeatures(None, options, none, HEATING, stores.features, None, epoch=2)
        if self.kind == "predictions":
            return EventHandler(None, options, none, HEATING, stores.inference_log, epoch=2)
        model: Any = _Model()
        scorer = Scorer(HEATING, model, clock=lambda: 7_000)

        def infer(rows: Decoded) -> Decoded:
            return Decoded("predictions", rows.origin, scorer.score(rows.batch), {})

        return ModelServerStage(None, options, none, epoch=2, infer=infer)

    def take(self, messages: list[tuple[int, bytes]]) -> None:
        """Let both take messages, and check that they count the same."""
        counts = []
        for take, shards in zip((self.stages[0].take_all, self._one_by_one), self.shards, strict=True):
            groups: dict[int, list[Incoming]] = {}
            for number, body in messages:
                many = groups.setdefault(number, [])
                many.append(Incoming(number, shards[number].next + len(many), body, 5))
            counts.append(take([(shards[number], many) for number, many in sorted(groups.items())]))
            for number, many in groups.items():
                shards[number].checkpoint.offset = many[-1].offset
        assert counts[0] == counts[1]
        assert self.effects(0) == self.effects(1)

    def _one_by_one(self, groups: Any) -> list[int]:
        return Stage.take_all(self.stages[1], groups)

    def effects(self, which: int) -> Any:
        """Return all that taking has changed."""
        stage, shards, effects = self.stages[which], self.shards[which], []
        for shard in shards:
            sent = [(to, kind, origin, row) for to, kind, origin, batch in shard.outbox for row in batch.to_pylist()]
            marks = sorted(shard.checkpoint.watermarks.items())
            letters = [(letter.position, letter.reason, letter.origin) for letter in shard.letters]
            counters = {name: count for name, count in shard.checkpoint.counters.items() if count}
            effects.append((sent, marks, letters, counters))
        kept: Any = None
        if isinstance(stage, StreamToFeatures):
            kept = [sorted(map(str, engine.changed().to_pylist())) for engine in stage._engines.values()]
        elif isinstance(stage, EventHandler):
            kept = [stage._table(number, rows).to_pylist() for number, rows in stage._kept.items()]
        return effects, kept, stage.counters.repeated, stage.counters.dead_letters

    def close(self) -> None:
        for stores in self.stores:
            stores.close()


@pytest.fixture(params=["events", "vectors", "predictions"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def body_of(kind: str, origin: str, batch: pa.RecordBatch | bytes) -> bytes:
    """Return the message with these rows in the form of a kind."""
    if isinstance(batch, bytes):
        return batch
    if kind != "events":
        wanted = HEATING.vector_schema if kind == "vectors" else HEATING.prediction_schema
        celsius = batch.column("celsius")
        columns = []
        for one in wanted:
            name = one.name if one.name in batch.schema.names else "celsius" if pa.types.is_float64(one.type) else ""
            given_up = not name or batch.schema.field(name).type not in (one.type, pa.string())
            columns.append(pa.nulls(len(celsius), one.type) if given_up else batch.column(name))
        batch = pa.record_batch(columns, [one.name for one in wanted])
    return encode(kind, origin, batch)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cycles=st.lists(deliveries(), min_size=1, max_size=3))
def test_together_is_as_one_by_one(
    kind: str, cycles: list[list[tuple[int, str, pa.RecordBatch | bytes]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    pair = Pair(kind, tmp_path_factory.mktemp("pair"))
    try:
        for cycle in cycles:
            pair.take([(shard, body_of(kind, origin, batch)) for shard, origin, batch in cycle])
    finally:
        pair.close()


def test_many_small_messages_call_the_model_once() -> None:
    calls = []

    def infer(rows: Decoded) -> Decoded:
        calls.append(rows.batch.num_rows)
        return Decoded("predictions", rows.origin, rows.batch, {})

    none: Any = None
    stage = ModelServerStage(none, Settings(function="f", use_case="", reads="in"), none, epoch=0, infer=infer)
    shards = [Shard(number, Checkpoint(), -1) for number in range(8)]
    body = encode("vectors", "a", pa.record_batch({"position": [7]}))
    assert stage.take_all([(shard, [Incoming(shard.number, 0, body, 0)]) for shard in shards]) == [1] * 8
    assert calls == [8]


def test_large_messages_are_not_copied() -> None:
    body = encode("vectors", "a", pa.record_batch({"position": np.arange(LARGE + 1)}))
    shard = Shard(0, Checkpoint(), -1)
    assert join([(shard, [Incoming(0, i, body, 0) for i in range(2)])], lambda message: decode(message.body)) is None


def test_only_unreadable_messages_are_nothing_to_join() -> None:
    def decoded(message: Incoming) -> Decoded:
        raise UnreadableError("no message")

    shard = Shard(0, Checkpoint(), -1)
    assert join([(shard, [Incoming(0, i, b"", 0) for i in range(2)])], decoded) is None
