"""Data folders for tests, as a pipeline that has come to its end leaves them, without running one (mlrun takes 6 s)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelstream.commands.view import View
from modelstream.events.parsing import Checker, LineParser
from modelstream.features.engine import FeatureEngine, no_rows
from modelstream.messages.codec import encode
from modelstream.messages.dead_letters import encode_letters, letter
from modelstream.messages.identity import Checkpoint, buckets_of, stream_position
from modelstream.project import load_project
from modelstream.runner.data_folder import open_folder
from modelstream.use_case.columns import EXTRA, OFFSET, ORIGIN, SHARD

ROOT = Path(__file__).parents[2]
PROJECT = load_project(ROOT / "project.yaml")
ORIGIN_NAME = "/somewhere/events.ndjson"
SHARDS = 4

Lookup = Callable[[str, Sequence[str]], Sequence[float | None]]


def make_folder(
    path: Path,
    lines: Iterable[bytes],
    enrichment: dict[str, float],
    shards: int = SHARDS,
    change: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda events: events,
) -> View:
    """Return a data folder in which `lines` have gone through all functions, in one message a shard and stream.

    The model says 1 where a user has bet more than 20 in all, with probability 0.75. `change` makes of the events what
    another version would have taken.
    """
    opened = open_folder(path, PROJECT, shards=shards)
    os.close(opened.lock)
    view = View(path, PROJECT)
    for name in PROJECT.params.streams:
        view.streams.create(name, shards)
    load_table(view, enrichment)
    take(view, list(lines), view.look_up, change=change)
    return view


def load_table(view: View, enrichment: dict[str, float]) -> None:
    """Load values by key into the lookup table."""
    keys, values = pa.array(enrichment, pa.string()), pa.array(enrichment.values(), pa.float64())
    view.tables.lookup("enrichment").load([pa.record_batch({"key": keys, "value": values})])


def take(
    view: View,
    lines: list[bytes],
    lookup: Lookup,
    first_line: int = 0,
    change: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda events: events,
) -> None:
    """Let lines go through all functions of a new folder."""
    use_case = view.use_case
    parsed = LineParser(use_case).parse(lines, np.arange(len(lines)) + first_line, ingested_at=1_800_000_000_000_000)
    rejects = [*parsed.rejects, *Checker(use_case).check(parsed.events)]
    assert all(reject in parsed.rejects for reject in rejects), "this helper takes only events that are complete"
    letters = [letter(one.reason, ORIGIN_NAME, one.index, ("generated", 0, 0), lines[one.index]) for one in rejects]
    for body in encode_letters(letters):
        view.streams.append("dead-letters", [(0, body)])
    shard_of = buckets_of(parsed.events.column(use_case.key)) % view.marker.shards
    changed = change(parsed.events)
    for shard in range(view.marker.shards):
        _take_shard(view, shard, changed.filter(pa.array(shard_of == shard)), lines, lookup)
    for log in view.parquet_logs.values():
        log.publish()


def _take_shard(view: View, shard: int, events: pa.RecordBatch, lines: list[bytes], lookup: Lookup) -> None:
    use_case = view.use_case
    text = b"\n".join(lines[i] for i in events.column("position").to_pylist())
    message = encode("events", ORIGIN_NAME, events.drop_columns([EXTRA]))
    for stream, body in (("generated", text or b"[]"), ("incoming-events", message)):
        view.streams.append(stream, [(shard, body)])
    count = events.num_rows
    added = {ORIGIN: [ORIGIN_NAME] * count, SHARD: [shard] * count, OFFSET: [0] * count}
    schema = use_case.events_log_schema
    columns = [
        pa.array(added[field.name], field.type) if field.name in added else events.column(field.name)
        for field in schema
    ]
    view.events_log.append(shard, pa.table(columns, schema=schema), Checkpoint(0))
    engine = FeatureEngine(use_case)
    engine.load(engine.missing(events.column(use_case.key).to_pylist()), no_rows(use_case))
    first = stream_position(0, 0)
    applied = engine.apply(events, np.arange(first, first + count), lookup)
    looked_up = {"lookups": applied.lookups, "lookup_misses": applied.lookup_misses}
    counters = {"vectors": len(applied.indices), **looked_up, **applied.not_counted}
    view.features.commit(shard, engine.changed(), Checkpoint(0, counters=counters))
    predictions = _predictions(view, events.take(pa.array(applied.indices)), applied.codes, applied.vectors)
    for stream in ("serving", "inference"):
        view.streams.append(stream, [(shard, encode("predictions", ORIGIN_NAME, predictions))])
    known = pa.Table.from_batches([predictions])
    known = known.append_column(ORIGIN, pa.array([ORIGIN_NAME] * known.num_rows, pa.string()))
    view.inference_log.append(shard, known.select(use_case.inference_log_schema.names), Checkpoint(0))
    for function in PROJECT.chain.consumers:
        view.streams.ack(function, PROJECT.reads(function), {shard: 0})


def _predictions(
    view: View, events: pa.RecordBatch, codes: npt.NDArray[np.int64], vectors: npt.NDArray[np.float64]
) -> pa.RecordBatch:
    use_case = view.use_case
    churns = vectors[:, use_case.features.index("bet_sum")] > 20
    columns = [events.column(name) for name in ("position", "ingested_at", use_case.key, use_case.time)]
    columns.append(pa.array(use_case.event_names).take(pa.array(codes)))
    columns += [pa.array(column) for column in vectors.T]
    columns += [pa.array(churns.astype(np.int8)), pa.array(np.where(churns, 0.75, 0.25))]
    columns += [pa.array([value] * len(churns), pa.string()) for value in ("churn", "1")]
    columns.append(events.column("ingested_at"))
    return pa.record_batch(columns, use_case.prediction_schema)
