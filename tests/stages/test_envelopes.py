"""Events in Debezium's envelope, with the use case that the docs show: from a file as by HTTP, by its key."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelstream.http.bodies import messages, read_events
from modelstream.logs.parquet import ParquetLog
from modelstream.messages.codec import decode, encode
from modelstream.messages.identity import bucket_of
from modelstream.source.lines import LineSplitter
from modelstream.stages.event_handler import EventHandler
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import parse_use_case
from tests.raw_lines import lines_batch
from tests.stages.harness import Harness, event, settings

ROOT = Path(__file__).parents[2]
SHARDS = 4
CAPTURED = (ROOT / "tests" / "cases" / "debezium.ndjson").read_bytes()
"""Rows that were made and deleted, and the `null` after a deletion."""
MADE = [row["after"] for line in CAPTURED.splitlines() if (row := json.loads(line)) and row["after"]]


def documented() -> UseCase:
    """Return the use case of docs/use-case.md, with what it leaves out."""
    text = (ROOT / "docs" / "use-case.md").read_text("utf-8")
    (shown,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "path: after." in block)
    rest = "events: {bet: {value: amount}}\npredict_on: [bet]\nmodel: {name: dbz, prediction: p}\n"
    return parse_use_case(f"version: 1\nname: dbz\n{shown}{rest}")


def decimals(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Fill in amounts, which come as bytes in Base64, with two places."""
    found = [json.loads(extra)["after"]["amount"] if extra else None for extra in batch.column("extra").to_pylist()]
    values = [
        None if text is None else int.from_bytes(base64.b64decode(text), "big", signed=True) / 100 for text in found
    ]
    place = batch.schema.get_field_index("amount")
    return batch.set_column(place, batch.schema.field(place), pa.array(values, pa.float64()))


def made_only(batch: pa.RecordBatch) -> pa.RecordBatch:
    return decimals(batch.filter(batch.column("user_id").is_valid()))


@pytest.mark.parametrize("way", ["a file", "HTTP"])
def test_events_in_an_envelope_are_taken_in_the_shard_of_their_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    use_case = documented()
    if way == "HTTP":
        events = read_events(CAPTURED.replace(b"\nnull", b""), use_case.key_path)
        bodies = dict(messages(events, SHARDS))
    else:
        found = LineSplitter(use_case.key_path).feed(CAPTURED, last=True).lines
        texts, shards = np.array(found.texts(), object), found.buckets % SHARDS
        bodies = {
            int(shard): encode(
                "lines", "a", lines_batch(texts[shards == shard].tolist(), found.positions[shards == shard])
            )
            for shard in np.unique(shards)
        }
    harness = Harness(monkeypatch, reads="generated")
    log = ParquetLog(tmp_path / "events", use_case.events_log_schema, 0)
    options = settings(reads="generated", writes="incoming-events", shards=SHARDS)
    stage = EventHandler(harness.context, options, harness.streams, use_case, log, 0, made_only)
    harness.handle(stage, *(event(0, body, shard, "generated") for shard, body in bodies.items()))
    harness.run(stage.drain())
    assert not stage.held

    log.publish()
    kept = pq.read_table(tmp_path / "events").sort_by("at")
    amounts = [int.from_bytes(base64.b64decode(row["amount"]), "big", signed=True) / 100 for row in MADE]
    assert kept.column("user_id").to_pylist() == [str(row["user_id"]) for row in MADE]
    assert kept.column("at").cast(pa.int64()).to_pylist() == [row["created_at"] for row in MADE]
    assert kept.column("amount").to_pylist() == amounts
    for shard, body in harness.streams.records["incoming-events"]:
        assert {bucket_of(key) % SHARDS for key in decode(body).batch.column("user_id").to_pylist()} == {shard}
    nothing = {"not a JSON object"} if way == "a file" else set()
    assert {letter.reason for letter in harness.letters()} == nothing
    harness.close()
