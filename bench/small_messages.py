"""What messages of one event cost each function, in us of CPU a message, by how many of them wait in eight shards.

    python -m bench.small_messages [--seconds 0.5] [--json]

This is taking them and encoding what follows; streams and commits are left out, a model answers at once, and users are
read from a table that has none of them. The last lines have what eight messages cost in one shard and in eight.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from modelstream.events.checking import EventChecker, MessageLines
from modelstream.messages.codec import Decoded, Kind, encode
from modelstream.messages.identity import Checkpoint, bucket_of
from modelstream.model.scoring import Scorer
from modelstream.settings import Settings, StoreNames, StoreUrls
from modelstream.source.lines import LineSplitter
from modelstream.source.sender import messages
from modelstream.stages.base import Stage
from modelstream.stages.event_handler import EventHandler
from modelstream.stages.model_server import ModelServerStage
from modelstream.stages.shard import Incoming, Shard
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.stores import Stores
from modelstream.use_case.file import load_use_case

CHURN = load_use_case(Path(__file__).resolve().parents[1] / "use_cases" / "churn.yaml")
SHARDS = 8
WAITING = (1, 16, 64, 256, 800)
COUNT = max(WAITING)


class _Model:
    """In place of an ONNX file's model."""

    features = len(CHURN.features)
    spec = SimpleNamespace(version="1")

    def predict(self, vectors: Any) -> Any:
        """Return an answer a vector."""
        return np.full(len(vectors), 0.5)


def events() -> list[bytes]:
    """Return the JSON texts of some events, each of another user."""
    return [
        json.dumps(
            {"user_id": f"u{i}", "event_type": "bet", "event_time": "2026-03-28 20:00:00", "bet_amount": i / 8}
        ).encode()
        for i in range(COUNT)
    ]


def sent() -> list[tuple[int, bytes]]:
    """Return events as a source with a rate sends them: a message each."""
    lines = LineSplitter(CHURN.key_path).feed(b"\n".join(events()) + b"\n", last=True).lines
    return messages(lines, SHARDS, "a.ndjson", 1_800_000_000_000_000, most=1)


def posted() -> list[tuple[int, bytes]]:
    """Return events as clients post them, one a body."""
    return [(bucket_of(f"u{i}") % SHARDS, text) for i, text in enumerate(events())]


def passed_on(kind: Kind) -> list[tuple[int, bytes]]:
    """Return messages of one row between functions."""
    lines = MessageLines("a.ndjson", pa.array(events(), pa.binary()), np.arange(COUNT), 1_800_000_000_000_000)
    batch = EventChecker(CHURN).check([lines]).events.drop_columns(["extra"])
    if kind != "events":
        schema = CHURN.vector_schema if kind == "vectors" else CHURN.prediction_schema
        columns = [
            batch.column(field.name) if field.name in batch.schema.names else pa.array([1] * COUNT).cast(field.type)
            for field in schema
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    return [(bucket_of(f"u{i}") % SHARDS, encode(kind, "a.ndjson", batch.slice(i, 1))) for i in range(COUNT)]


def stage_for(kind: str, stores: Stores) -> Stage:
    """Return the stage that reads messages of a kind."""

    def settings(rows: Any = "events") -> Settings:
        return Settings(function="f", use_case="", reads="in", writes="out", shards=SHARDS, rows=rows)

    context, streams = SimpleNamespace(logger=SimpleNamespace(warn_with=lambda *_, **__: None)), Any
    if kind == "events":
        return StreamToFeatures(context, settings(), streams, CHURN, stores.features, stores.look_up, epoch=0)  # type: ignore[arg-type]
    if kind == "vectors":
        scorer = Scorer(CHURN, _Model())  # type: ignore[arg-type]

        def infer(rows: Decoded) -> Decoded:
            return Decoded("predictions", rows.origin, scorer.score(rows.batch), {})

        return ModelServerStage(context, settings(), streams, epoch=0, infer=infer)  # type: ignore[arg-type]
    if kind == "predictions":
        return EventHandler(context, settings("predictions"), streams, CHURN, stores.inference_log, epoch=0)  # type: ignore[arg-type]
    return EventHandler(context, settings(), streams, CHURN, stores.events_log, epoch=0)  # type: ignore[arg-type]


def cpu() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def groups(stage: Stage, found: Sequence[tuple[int, bytes]]) -> list[tuple[Shard, list[Incoming]]]:
    """Return messages as a stage takes them, in shards that have seen none."""
    of_shard: dict[int, list[Incoming]] = {}
    for number, body in found:
        waiting = of_shard.setdefault(number, [])
        waiting.append(Incoming(number, len(waiting), body, 1_800_000_000_000_000))
    return [(Shard(number, stage.open(number) or Checkpoint(), saved=-1), many) for number, many in of_shard.items()]


def cost(stage: Stage, found: Sequence[tuple[int, bytes]], seconds: float) -> float:
    """Return the microseconds of CPU a message of taking messages, and of encoding what follows from them."""
    used, times, end = 0.0, 0, time.monotonic() + seconds
    while time.monotonic() < end or times < 3:
        made = groups(stage, found)
        begun = cpu()
        stage.take_all(made)
        for shard, _ in made:
            shard.encoded()
        used, times = used + cpu() - begun, times + 1
    return 1e6 * used / times / len(found)


def main() -> None:
    """Print a line for each kind of message."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long each is measured (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one more line: {kind: microseconds a message}")
    given = parser.parse_args()
    seconds = given.seconds
    measured: dict[str, list[float]] = {}
    kinds = {
        "posted": posted(),
        "lines": sent(),
        **{kind: passed_on(kind) for kind in ("events", "vectors", "predictions")},
    }
    print("us of CPU a message".ljust(20), *(f"{n:>8}" for n in WAITING), f"{'bytes':>8}")
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(StoreUrls().within(Path(folder)), StoreNames(), CHURN)
        stages = {kind: stage_for(kind, stores) for kind in kinds}
        for kind, found in kinds.items():
            cost(stages[kind], found, seconds / 5)  # kernels are loaded
            told = measured[kind] = [cost(stages[kind], found[:n], seconds) for n in WAITING]
            size = sum(len(body) for _, body in found) // len(found)
            print(f"{kind:20}", *(f"{one:8.1f}" for one in told), f"{size:8}")
            print(" " * 20, *(f"{one / told[-1]:7.1f}x" for one in told))
        print("\na cycle of 8 messages in 1 shard, and in 8")
        for kind, found in kinds.items():
            one = [message for message in found if message[0] == found[0][0]][:SHARDS]
            each = list({message[0]: message for message in found}.values())
            alone, spread = (SHARDS * cost(stages[kind], some, seconds) for some in (one, each))
            print(f"{kind:20} {alone:8.0f} {spread:8.0f} us {spread / alone:7.1f}x")
        stores.close()
    if given.json:
        print(json.dumps({"waiting": WAITING, "micros": measured}))


if __name__ == "__main__":
    main()
