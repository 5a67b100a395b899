"""The model server without MLRun: scores, requests, and messages. `test_project.py` runs it inside MLRun."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError, HookError, UnavailableError
from modelstream.messages import codec
from modelstream.messages.codec import UnreadableError
from modelstream.model.onnx import Floats, Probabilities, load_model
from modelstream.model.scoring import AtThreshold, Decisions, Hooks, Scorer
from modelstream.settings import Settings
from modelstream.stages.model_server import ModelServerStage, ModelServing
from modelstream.streams import Streams, open_streams
from modelstream.streams.letters import read_letters
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).parents[2]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
MODEL = load_model(ROOT / "assets" / "models" / "churn" / "1", CHURN.features)


def golden() -> pa.RecordBatch:
    """Return 300 vectors of the golden data, as stream-to-features sends them."""
    table = pq.read_table(ROOT / "tests" / "golden" / "expected_vectors.parquet")
    table = table.take(np.arange(300) * 33)
    places = np.arange(len(table))
    columns = {name: table[name].combine_chunks() for name in (CHURN.key, CHURN.type, *CHURN.features)}
    columns |= {"position": pa.array(places), CHURN.time: pa.array(places), "ingested_at": pa.array(places)}
    return pa.RecordBatch.from_arrays(
        [columns[f.name].cast(f.type) for f in CHURN.vector_schema], schema=CHURN.vector_schema
    )


VECTORS = golden()


def scorer(hooks: Hooks | None = None) -> Scorer:
    return Scorer(CHURN, MODEL, hooks, clock=lambda: 5_000_000_000)


# Scores.


def test_predictions_follow_the_model_row_by_row() -> None:
    result = scorer().score(VECTORS)
    assert result.schema.equals(CHURN.prediction_schema)
    assert result.select(CHURN.vector_schema.names).equals(VECTORS)
    expected = []
    for i in range(VECTORS.num_rows):
        row = np.array([[VECTORS.column(name)[i].as_py() for name in CHURN.features]], np.float32)
        expected.append(MODEL.predict(row)[0])
    assert result.column(CHURN.probability).to_pylist() == expected
    decided = [int(p >= CHURN.threshold) for p in result.column(CHURN.probability).to_pylist()]
    assert result.column(CHURN.prediction).to_pylist() == decided
    assert 0 < sum(decided) < len(decided)
    assert set(result.column("model").to_pylist()) == {CHURN.model_name}
    assert set(result.column("model_version").to_pylist()) == {MODEL.spec.version}
    assert result.column("predicted_at").cast(pa.int64()).unique().to_pylist() == [5_000_000]


@given(st.lists(st.integers(0, VECTORS.num_rows), max_size=6))
def test_predictions_do_not_depend_on_how_rows_are_batched(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), VECTORS.num_rows]
    one = scorer()
    parts = [one.score(VECTORS.slice(a, b - a)) for a, b in itertools.pairwise(edges)]
    assert pa.Table.from_batches(parts).equals(pa.Table.from_batches([one.score(VECTORS)]))


def test_without_a_model_every_vector_passes_with_null_for_an_answer() -> None:
    result = Scorer(CHURN, None, clock=lambda: 5_000_000_000).score(VECTORS)
    assert result.schema.equals(CHURN.prediction_schema)
    assert result.select(CHURN.vector_schema.names).equals(VECTORS)
    for name in (CHURN.prediction, CHURN.probability, "model_version"):
        assert result.column(name).null_count == VECTORS.num_rows
    assert result.column("predicted_at").null_count == 0
    with pytest.raises(UnreadableError, match="'win_var'"):
        Scorer(CHURN, None).score(VECTORS.drop_columns(["win_var"]))


def test_threshold_itself_counts_as_positive() -> None:
    probability = np.array([0.49999, 0.5, 0.50001])
    assert AtThreshold(0.5).decide(probability, np.empty((3, 0), np.float32)).tolist() == [0, 1, 1]


def test_column_of_nulls_that_a_message_left_out_comes_back() -> None:
    message = codec.decode(codec.encode("vectors", "f", VECTORS.drop_columns(["ingested_at"])))
    result = scorer().score(message.batch)
    assert result.schema.equals(CHURN.prediction_schema)
    assert result.column("ingested_at").null_count == VECTORS.num_rows


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (VECTORS.drop_columns(["win_var"]), "'win_var'"),
        (VECTORS.drop_columns(["user_id"]), "'user_id'"),
        (VECTORS.set_column(5, "socioeconomic_idx", VECTORS.column("event_type")), "'socioeconomic_idx'"),
        (
            VECTORS.set_column(6, "purchase_sum", pa.array([None, *[1.0] * (VECTORS.num_rows - 1)])),
            "a null in 'purchase_sum'",
        ),
    ],
)
def test_batch_that_is_not_this_use_cases_is_unreadable(batch: pa.RecordBatch, expected: str) -> None:
    with pytest.raises(UnreadableError, match=expected):
        scorer().score(batch)


@dataclass
class Hooked:
    calibrated: Callable[[Probabilities], Any] = lambda probability: probability
    decided: Callable[[Probabilities], Any] = lambda probability: probability >= 0.5

    def calibrate(self, probability: Probabilities, vectors: Floats) -> Probabilities:
        assert vectors.shape == (len(probability), len(CHURN.features))
        result: Probabilities = self.calibrated(probability)
        return result

    def decide(self, probability: Probabilities, vectors: Floats) -> Decisions:
        assert vectors.dtype == np.float32
        result: Decisions = self.decided(probability)
        return result


def test_hooks_change_what_is_reported() -> None:
    hooks = Hooked(lambda probability: probability / 2, lambda probability: probability > 0.25)
    result, plain = scorer(hooks).score(VECTORS), scorer().score(VECTORS)
    halved = np.array(plain.column(CHURN.probability)) / 2
    assert result.column(CHURN.probability).to_pylist() == halved.tolist()
    assert result.column(CHURN.prediction).to_pylist() == (halved > 0.25).astype(int).tolist()


@pytest.mark.parametrize(
    "hooks",
    [
        Hooked(calibrated=lambda probability: probability[1:]),
        Hooked(calibrated=lambda probability: probability + 1),
        Hooked(calibrated=lambda probability: probability * math.nan),
        Hooked(decided=lambda probability: probability[:, None] >= 0.5),
        Hooked(decided=lambda probability: np.full(len(probability), 2)),
        Hooked(decided=lambda _: None),
    ],
)
def test_hook_that_returns_something_else_is_named(hooks: Hooked) -> None:
    with pytest.raises(ConfigurationError, match=r"(calibrate|decide)\(probability, vectors\)"):
        scorer(hooks).score(VECTORS)


def unlikely(_: Probabilities) -> Any:
    raise KeyError("unlikely")


@pytest.mark.parametrize(
    ("hooks", "name"), [(Hooked(calibrated=unlikely), "calibrate"), (Hooked(decided=unlikely), "decide")]
)
def test_the_vector_that_a_hook_fails_at_is_told(hooks: Hooked, name: str) -> None:
    key = VECTORS.column(CHURN.key)[0].as_py()
    with pytest.raises(
        HookError, match=r"KeyError: 'unlikely'; at the row \{\"probability\": .*\"position\": "
    ) as told:
        scorer(hooks).score(VECTORS)
    assert str(told.value).startswith(f"{__file__}, line ") and f"{name}(probability, vectors)" in str(told.value)
    assert key in str(told.value)
    with pytest.raises(HookError, match=rf"at the row .*\"{CHURN.features[0]}\": 0.0"):
        scorer(hooks).scores(np.zeros((3, len(CHURN.features)), np.float32))


# Messages.


@dataclass
class Platform:
    """Records what the stage tells the platform; `at_ack` looks at the world when it acknowledges."""

    acks: list[tuple[int, int]] = field(default_factory=list)
    at_ack: Callable[[int, int], None] = lambda *_: None

    async def explicit_ack(self, offset: Any) -> None:
        self.at_ack(offset.partition, offset.offset)
        self.acks.append((offset.partition, offset.offset))

    def set_drain_callback(self, callback: Callable[[], Awaitable[None]]) -> None:
        self.drain = callback

    def set_termination_callback(self, callback: Callable[[], Awaitable[None]]) -> None:
        self.terminate = callback


class Logger:
    def error_with(self, *args: Any, **kwargs: Any) -> None:
        pass

    info_with = warn_with = debug_with = error_with


def message(shard: int, offset: int, body: bytes) -> Any:
    return SimpleNamespace(body=body, shard_id=shard, offset=offset, topic="serving", path="serving", timestamp=0)


@pytest.fixture
def streams(tmp_path: Path) -> Streams:
    opened = open_streams(f"sqlite://{tmp_path}/streams")
    for name in ("serving", "inference", "dead-letters"):
        opened.create(name, 8)
    return opened


def settings(**changes: Any) -> Settings:
    values = {"function": "model-server", "use_case": "", "streams": "", "tables": ""}
    return Settings(**{**values, "reads": "serving", "writes": "inference", "commit_ms": 0.0, **changes})


def infer(rows: codec.Decoded) -> codec.Decoded:
    return codec.Decoded("predictions", rows.origin, scorer().score(rows.batch), {})


def sent(streams: Streams, shard: int) -> list[codec.Decoded]:
    return [codec.decode(m.body) for m in streams.read("inference", shard, 0, 1000, 10**9)]


def run_stage(
    streams: Streams,
    messages: list[Any],
    platform: Platform,
    infer: Callable[[codec.Decoded], codec.Decoded] = infer,
    until: Callable[[], object] = lambda: True,
    **changes: Any,
) -> None:
    async def run() -> None:
        context = SimpleNamespace(platform=platform, logger=Logger())
        stage = ModelServerStage(context, settings(**changes), streams, 1, infer)
        stage.start()
        for each in messages:
            await stage.handle(each)
        while not until():
            await asyncio.sleep(0.01)
        await platform.drain()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_predictions_go_to_the_same_shard_in_order(streams: Streams) -> None:
    messages = [
        message(shard, offset, codec.encode("vectors", f"file-{shard}", VECTORS.slice(offset * 20, 20)))
        for offset in range(5)
        for shard in (2, 5)
    ]
    run_stage(streams, messages, platform := Platform())
    for shard in (2, 5):
        found = sent(streams, shard)
        assert {(rows.kind, rows.origin) for rows in found} == {("predictions", f"file-{shard}")}
        table = pa.Table.from_batches([rows.batch.replace_schema_metadata() for rows in found])
        assert table["position"].to_pylist() == list(range(100))
    assert max(platform.acks) == (5, 4)
    assert streams.range("inference", 0) == (0, 0)


def test_predictions_carry_the_hash_of_the_definition(streams: Streams) -> None:
    body = codec.encode("vectors", "f", VECTORS.slice(0, 10), definition="abc")
    run_stage(streams, [message(2, 0, body)], Platform(), meaning="abc")
    run_stage(streams, [message(3, 0, codec.encode("vectors", "f", VECTORS.slice(0, 10)))], Platform())
    assert [rows.metadata for rows in (*sent(streams, 2), *sent(streams, 3))] == [{"definition": "abc"}, {}]


@pytest.mark.parametrize("together", [1, 3])
def test_vectors_of_another_definition_are_neither_answered_nor_lost(streams: Streams, together: int) -> None:
    async def run() -> str:
        context = SimpleNamespace(platform=(platform := Platform()), logger=Logger())
        stage = ModelServerStage(context, settings(meaning="abc"), streams, 1, infer)
        stage.start()
        for offset, body in enumerate(bodies):
            await stage.handle(message(4, offset, body))
        while not stage.held:
            await asyncio.sleep(0.01)
        held = stage.held
        await stage.terminate()
        assert platform.acks == []
        return held

    bodies = [codec.encode("vectors", "f", VECTORS.slice(i, 1), definition="other") for i in range(together)]
    streams.append("serving", [(4, body) for body in bodies])
    held = asyncio.run(asyncio.wait_for(run(), 30))
    assert "vectors in serving were made with another definition" in held and "offset 0 of shard 4" in held
    assert sent(streams, 4) == [] and list(read_letters(streams, "dead-letters")) == []


def test_message_is_acknowledged_after_its_predictions_are_durable(streams: Streams) -> None:
    def look(shard: int, offset: int) -> None:
        assert sum(rows.batch.num_rows for rows in sent(streams, shard)) >= 10 * (offset + 1)

    messages = [message(0, i, codec.encode("vectors", "f", VECTORS.slice(i * 10, 10))) for i in range(9)]
    run_stage(streams, messages, platform := Platform(at_ack=look))
    assert platform.acks[-1] == (0, 8)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff\xff\xff and then nothing",
        b'{"user_id": "u1"}',
        codec.encode("events", "f", VECTORS),
        codec.encode("vectors", "f", VECTORS.drop_columns(["bet_sum"])),
    ],
)
def test_unreadable_message_is_one_dead_letter_and_the_next_goes_on(streams: Streams, body: bytes) -> None:
    good = codec.encode("vectors", "f", VECTORS)
    run_stage(streams, [message(3, 0, body), message(3, 1, good)], platform := Platform())
    (letter,) = read_letters(streams, "dead-letters")
    assert (letter.stream, letter.shard, letter.offset, letter.content()) == ("serving", 3, 0, body)
    assert (letter.origin, letter.position) == ("serving/3", 1 << 48)
    assert [rows.batch.num_rows for rows in sent(streams, 3)] == [VECTORS.num_rows]
    assert platform.acks[-1] == (3, 1)


def test_failing_hook_holds_the_message_and_loses_nothing(streams: Streams) -> None:
    failures = [UnavailableError("the model's feature service is away"), TypeError("a mistake in a hook")]

    def infer_later(rows: codec.Decoded) -> codec.Decoded:
        if failures:
            raise failures.pop()
        return infer(rows)

    bodies = [codec.encode("vectors", "f", VECTORS.slice(i * 10, 10)) for i in range(2)]
    streams.append("serving", [(0, body) for body in bodies])  # from where they are read again
    messages = [message(0, i, body) for i, body in enumerate(bodies)]
    run_stage(streams, messages, platform := Platform(), infer_later, until=lambda: streams.range("inference", 0)[1])
    assert sum(rows.batch.num_rows for rows in sent(streams, 0)) == 20
    assert platform.acks[-1] == (0, 1)
    assert list(read_letters(streams, "dead-letters")) == []


def test_a_request_that_fails_is_logged_with_its_place_and_answered_with_its_message() -> None:
    logged: list[str] = []

    class Mlrun:
        def do_event(self, event: Any) -> None:
            raise ValueError(f"no number: {event.body.decode()}")

    class Server(ModelServing, Mlrun):
        def __init__(self) -> None:
            self.name, self.stage = "churn", None
            self.context = SimpleNamespace(logger=SimpleNamespace(error=logged.append), Response=SimpleNamespace)
            self._scorer: Any = SimpleNamespace(model="a model", version="1")

    request = {"trigger": SimpleNamespace(kind="http"), "method": "POST", "path": "/v2/models/churn/infer"}
    event = Server().do_event(SimpleNamespace(**request, headers={}, body=b"Bielefeld"))
    assert "ValueError: no number: Bielefeld" in str(event.body)
    assert "ValueError" in logged[0] and "in do_event" in logged[0] and "Bielefeld" not in logged[0]
