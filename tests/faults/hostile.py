"""A stage is given messages that were changed at random and have a right hash, between good ones, by a child process.

`python -m tests.faults.hostile KIND FIRST COUNT FILE` gives the stage that reads messages of KIND the mutations FIRST,
FIRST + 1, … and prints how many were unreadable. It ends with an error if a good row is lost, or an exception gets out;
the number of a mutation that ends the process then stands in FILE.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import xxhash

from modelstream.events.checking import EventChecker, MessageLines
from modelstream.messages.codec import Decoded, Kind, encode
from modelstream.messages.identity import Checkpoint, positions_of
from modelstream.model.scoring import Scorer
from modelstream.settings import Settings, StoreNames, StoreUrls
from modelstream.stages.base import Stage
from modelstream.stages.event_handler import EventHandler
from modelstream.stages.model_server import ModelServerStage
from modelstream.stages.shard import Incoming, Shard
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.stores import Stores
from modelstream.use_case.file import load_use_case
from tests.raw_lines import lines_batch

CHURN = load_use_case(Path(__file__).parents[2] / "use_cases" / "churn.yaml")
ODD = (0, 1, 2, 3, 7, 8, 64, 127, 128, 255, 256, 1000, 10**6, 2**31 - 1, 2**31, 2**53, 2**62, 2**63 - 1, -1, -2, -8)
"""Values that lengths, offsets and positions are changed to."""
AT_ONCE = 16
LINES = [
    b'{"user_id": "u1", "event_type": "registration", "event_time": "2026-03-01 08:00:00", "postcode": 10000}',
    b'{"user_id": "u1", "event_type": "purchase", "event_time": "2026-03-01 08:02:00", "amount": 68.56}',
    b'{"user_id": "u1", "event_type": "bet", "event_time": "2026-03-01 08:03:00", "bet_amount": 1.5, "m": "\xc3\xbc"}',
    b"{",
    b"",
]


def mutate(rng: random.Random, body: bytes) -> bytes:
    """Return a message with some changes (bits, bytes, numbers, moved pieces, a missing end) and a right hash."""
    content = bytearray(body[:-8])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at, what = rng.randrange(len(content)), rng.randrange(16)
        if what < 2:
            content[at] ^= 1 << rng.randrange(8)
        elif what < 4:
            content[at] = rng.choice((0, 1, 2, 127, 128, 255, rng.randrange(256)))
        elif what < 13:
            size = rng.choice((2, 4, 8))
            at -= at % size
            old = int.from_bytes(content[at : at + size], "little")
            new = rng.choice(ODD) if what < 10 else old + rng.choice((-64, -8, -4, -1, 1, 4, 8, 64))
            content[at : at + size] = (new % 2 ** (8 * size)).to_bytes(size, "little")
        elif what < 15:
            piece = content[rng.randrange(len(content)) :][: rng.choice((1, 4, 8, 16, 64))]
            content[at : at + len(piece)] = piece
        elif len(content) - at < 200:
            del content[max(at, 16) :]
    return bytes(content) + xxhash.xxh3_64_digest(bytes(content))


def good_batches() -> dict[Kind, pa.RecordBatch]:
    """Return a good batch of each kind."""
    lines = MessageLines("", pa.array(LINES, pa.binary()), np.arange(len(LINES)), 5)
    vectors, predictions = (
        pa.RecordBatch.from_arrays([pa.array([0, 1, 2]), *others], schema=schema)
        for schema in (CHURN.vector_schema, CHURN.prediction_schema)
        for others in [[pa.array([0, 1, 1]).cast(field.type) for field in list(schema)[1:]]]
    )
    events = EventChecker(CHURN).check([lines]).events
    return {
        "lines": lines_batch(LINES, range(len(LINES))),
        "events": events,
        "vectors": vectors,
        "predictions": predictions,
    }


class _Model:
    """In place of an ONNX file's model."""

    features = len(CHURN.features)

    class spec:  # noqa: N801
        version = "1"

    def predict(self, vectors: Any) -> Any:
        return np.full(len(vectors), 0.5)


def stage_for(kind: Kind, stores: Stores) -> Stage:
    """Return the stage that reads messages of this kind."""

    context = SimpleNamespace(logger=SimpleNamespace(warn_with=lambda *_, **__: None))

    def settings(rows: Literal["events", "predictions"] = "events") -> Settings:
        return Settings(function="f", use_case="", reads="in", writes="out", shards=1, rows=rows)

    if kind == "lines":
        return EventHandler(context, settings(), None, CHURN, stores.events_log, epoch=0)  # type: ignore[arg-type]
    if kind == "predictions":
        return EventHandler(context, settings("predictions"), None, CHURN, stores.inference_log, epoch=0)  # type: ignore[arg-type]
    if kind == "events":
        return StreamToFeatures(context, settings(), None, CHURN, stores.features, stores.look_up, epoch=0)  # type: ignore[arg-type]
    scorer = Scorer(CHURN, _Model())  # type: ignore[arg-type]

    def infer(rows: Decoded) -> Decoded:
        return Decoded("predictions", rows.origin, scorer.score(rows.batch), {})

    return ModelServerStage(context, settings(), None, epoch=0, infer=infer)  # type: ignore[arg-type]


def give(kind: Kind, first: int, count: int, note: Callable[[int], object]) -> int:
    """Give mutations to a stage, each between good messages; return how many were unreadable.

    Raises AssertionError if a row of a good message is lost.
    """
    good, unreadable, sent, logged = good_batches()[kind], 0, 0, 0
    hostile = encode(kind, "hostile", good, ingested_at="5")
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(StoreUrls().within(Path(folder)), StoreNames(), CHURN)
        stage = stage_for(kind, stores)
        kept = stage.open(0)
        shard = Shard(0, kept or Checkpoint(), saved=-1, keeps=kept is not None)
        for start in range(first, first + count, AT_ONCE):
            for number in range(start, min(start + AT_ONCE, first + count)):
                note(number)
                bodies = (encode(kind, f"good-{start}", good), mutate(random.Random(number), hostile))
                messages = [Incoming(0, 2 * number + i, body, 5) for i, body in enumerate(bodies)]
                good = good.set_column(0, good.schema.field(0), pa.array([p + 5 for p in positions_of(good).tolist()]))
                stage.take_all([(shard, messages)])
                shard.checkpoint.offset = messages[-1].offset
            unreadable += sum(one.origin == "in/0" for one in shard.letters)
            sent += sum(batch.num_rows for _, _, origin, batch in shard.outbox if origin.startswith("good"))
            shard.encoded()
            shard.outbox.clear()
            shard.letters.clear()
            shard.checkpoint.watermarks.put_back(f"good-{start}", None)  # or there would be a thousand
            stage.save(shard)
        if kind == "predictions":
            stores.inference_log.publish()
            origins = pd.read_parquet(Path(folder) / "inference", columns=["origin"])["origin"]
            logged = int(origins.str.startswith("good").sum())
        stores.close()
    expected = {"lines": (3, 0), "events": (1, 0), "vectors": (3, 0), "predictions": (0, 3)}[kind]
    assert (sent, logged) == (expected[0] * count, expected[1] * count), f"rows of good messages: {sent} and {logged}"
    return unreadable


if __name__ == "__main__":
    with Path(sys.argv[4]).open("r+b", buffering=0) as file:
        print(give(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), lambda n: os.pwrite(file.fileno(), b"%12d" % n, 0)))  # type: ignore[arg-type]
