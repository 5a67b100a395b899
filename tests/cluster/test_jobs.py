"""The workflow's own jobs, on SQLite; removing also on servers."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from modelstream.cluster import jobs
from modelstream.errors import UnavailableError
from modelstream.logs import open_log
from modelstream.messages.identity import Checkpoint
from modelstream.project import load_project
from modelstream.registry.registry import Registry
from modelstream.settings import from_environment
from modelstream.stores import Stores
from modelstream.streams import open_streams
from modelstream.tables import Input, open_tables
from modelstream.use_case.file import load_use_case
from servers.kafka import KafkaServer
from servers.redis import RedisServer
from servers.s3 import BUCKET, S3Server
from tests.required import require
from tests.training.versions import registered

ROOT = Path(__file__).parents[2]
PROJECT = load_project(ROOT / "project.yaml")
USE_CASE = load_use_case(ROOT / "use_cases" / "churn.yaml")
LOG = pa.schema([("user", pa.string())])
CONTEXT: Any = SimpleNamespace(logger=logging.getLogger("job"))


@pytest.fixture
def urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = {name: f"sqlite://{tmp_path}/{name}" for name in ("streams", "tables")}
    values = found | {
        "function": "prepare",
        "use_case": str(ROOT / "use_cases" / "churn.yaml"),
        "project": str(ROOT / "project.yaml"),
        "logs": str(tmp_path / "logs"),
        "shards": "4",
        "epoch": "0",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"MODELSTREAM_{name.upper()}", value)
    return found


def test_prepare_makes_what_is_not_there_and_changes_nothing_that_is(urls: dict[str, str]) -> None:
    jobs.prepare(CONTEXT)
    with open_streams(urls["streams"]) as streams:
        assert len(streams.names()) == 5
        streams.append("serving", [(2, b"kept")])
    jobs.prepare(CONTEXT)
    with open_streams(urls["streams"]) as streams:
        assert streams.describe("serving").shards == 4
        assert [message.body for message in streams.read("serving", 2, 0, 10, 100)] == [b"kept"]


def test_other_number_of_shards_is_refused_with_what_to_do(
    urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.prepare(CONTEXT)
    monkeypatch.setenv("MODELSTREAM_SHARDS", "8")
    with pytest.raises(RuntimeError, match=r"4 shards.*; .+"):
        jobs.prepare(CONTEXT)


def test_next_epoch_is_begun_when_the_file_asks_for_it(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open_tables(urls["tables"]) as tables:
        assert tables.epoch() == 0
    monkeypatch.setenv("MODELSTREAM_EPOCH", "1")
    jobs.prepare(CONTEXT)
    with open_tables(urls["tables"]) as tables:
        assert tables.epoch() == 1
    monkeypatch.setenv("MODELSTREAM_EPOCH", "3")
    with pytest.raises(RuntimeError, match="the tables are in epoch 1, but the cluster's file says 3; write"):
        jobs.prepare(CONTEXT)


def test_drained_waits_for_every_function(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.prepare(CONTEXT)
    jobs.drained(CONTEXT, timeout=0)
    with Stores.of(from_environment()) as stores:
        streams = stores.streams
        for _ in range(2):
            streams.append("inference", [(1, b"a")])
        assert stores.lag("inference-logger", "inference") == 2

        def acknowledge(_: float) -> None:
            streams.ack("inference-logger", "inference", {1: 1})

        with pytest.raises(
            RuntimeError,
            match="has not processed all of inference within 0 s: about 2 rows are waiting",
        ):
            jobs.drained(CONTEXT, timeout=0)
        monkeypatch.setattr(time, "sleep", acknowledge)
        jobs.drained(CONTEXT, timeout=60)
        assert stores.lag("inference-logger", "inference") == 0


def test_drained_waits_out_an_outage(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.prepare(CONTEXT)
    lag = Stores.lag
    slept: list[float] = []

    def away_for_a_while(stores: Stores, function: str, stream: str) -> int:
        if len(slept) < 3:
            raise UnavailableError("no broker")
        return lag(stores, function, stream)

    monkeypatch.setattr(Stores, "lag", away_for_a_while)
    monkeypatch.setattr(time, "sleep", slept.append)
    jobs.drained(CONTEXT)
    assert len(slept) == 3
    slept.clear()
    with pytest.raises(RuntimeError, match=r"within 0 s: an unknown number of rows \(no broker\) are waiting"):
        jobs.drained(CONTEXT, timeout=0)


def test_trim_deletes_what_is_old_and_every_reader_has_acknowledged(urls: dict[str, str]) -> None:
    jobs.prepare(CONTEXT)
    with open_streams(urls["streams"]) as streams:
        for name in ("inference", "dead-letters"):
            for _ in range(3):
                streams.append(name, [(1, b"a")])
        first = streams.range("inference", 1)[0]
        jobs.trim(CONTEXT, hours=0)
        assert streams.range("inference", 1)[0] == first, "nothing is acknowledged"
        streams.ack("inference-logger", "inference", {1: first + 1})
        jobs.trim(CONTEXT, hours=1)
        assert streams.range("inference", 1)[0] == first, "nothing is old"
        jobs.trim(CONTEXT, hours=0)
        assert streams.range("inference", 1)[0] == first + 2
        assert streams.range("dead-letters", 1) == (first, first + 3), "nobody reads them"


def fill(urls: dict[str, str], logs: str) -> None:
    """Put something into every stream, table and log."""
    with open_streams(urls["streams"]) as streams, open_tables(urls["tables"]) as tables:
        for name in PROJECT.params.streams:
            streams.append(name, [(0, b"a"), (1, b"b")])
            streams.ack("anyone", name, {0: streams.first_offset})
        features = tables.features(USE_CASE.row_schema)
        features.commit(0, features.get_many([]), Checkpoint(3))
        tables.lookup("enrichment").load([pa.record_batch({"key": ["a"], "value": [1.0]})])
        tables.inputs().register("a", Input(origin="a", kind="file"))
    for name in PROJECT.params.logs:
        open_log(logs, name, LOG, 0).append(0, pa.table({"user": ["a"]}, LOG), Checkpoint(0))


def is_as_new(urls: dict[str, str], logs: str) -> bool:
    with open_streams(urls["streams"]) as streams, open_tables(urls["tables"]) as tables:
        features = tables.features(USE_CASE.row_schema)
        return (
            streams.names() == []
            and (tables.epoch(), features.checkpoint(0).offset, tables.inputs().all()) == (0, -1, [])
            and tables.lookup("enrichment").count() == 0
            and not any(open_log(logs, name, LOG, 0).files() for name in PROJECT.params.logs)
        )


def test_remove_deletes_streams_tables_and_logs_and_nothing_else(urls: dict[str, str], tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "events").mkdir(parents=True)
    kept = [logs / "events" / "notes.txt", logs / "models" / "churn" / "2" / "model.onnx", logs / "other.parquet"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    for _ in range(2):
        jobs.prepare(CONTEXT)
        fill(urls, str(logs))
        assert not is_as_new(urls, str(logs))
        for _ in range(2):
            jobs.remove(CONTEXT)
        assert is_as_new(urls, str(logs))
    assert sorted(path for path in logs.rglob("*") if path.is_file()) == sorted(kept)
    assert not (logs / "inference").exists()


def test_remove_on_servers(broker: KafkaServer, monkeypatch: pytest.MonkeyPatch, urls: dict[str, str]) -> None:
    """Kafka, Redis and S3, as a cluster has them; what others have there stays."""
    require(RedisServer, S3Server)
    with RedisServer() as redis, S3Server() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        mine, theirs = ({"streams": broker.url(name), "tables": redis.url(name)} for name in ("mine", "mine-too"))
        for found, logs in ((theirs, f"s3://{BUCKET}/mine-too"), (mine, f"s3://{BUCKET}/mine")):
            for name, value in (found | {"logs": logs}).items():
                monkeypatch.setenv(f"MODELSTREAM_{name.upper()}", value)
            jobs.prepare(CONTEXT)
            fill(found, logs)
        for _ in range(2):
            jobs.remove(CONTEXT)
        assert is_as_new(mine, f"s3://{BUCKET}/mine")
        assert set(redis.client().keys("mine:*")) == {"mine:about"}, "what asking for the epoch makes"
        with open_streams(theirs["streams"]) as streams, open_tables(theirs["tables"]) as tables:
            assert set(streams.names()) == set(PROJECT.params.streams)
            assert tables.features(USE_CASE.row_schema).checkpoint(0).offset == 3
        for name in PROJECT.params.logs:
            assert open_log(f"s3://{BUCKET}/mine-too", name, LOG, 0).count() == 1
        jobs.prepare(CONTEXT)
        jobs.drained(CONTEXT, timeout=0)


def test_outage_of_a_store_ends_the_job_with_what_to_do(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTREAM_TABLES", "redis://127.0.0.1:1/0?timeout=1")
    with pytest.raises(RuntimeError, match=r"127\.0\.0\.1:1.*; .+"):
        jobs.remove(CONTEXT)


def test_wrong_address_of_kafka_is_told_with_what_to_do(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTREAM_STREAMS", "kafka://127.0.0.1:1/none?timeout=1")
    with pytest.raises(RuntimeError, match=r"127\.0\.0\.1:1.*; .+"):
        jobs.prepare(CONTEXT)


def test_worse_version_is_promoted_only_if_someone_chose_it(
    urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    registry = Registry(tmp_path / "models", USE_CASE.model_name, USE_CASE.features)
    for skill in (0.4, 0.0):
        registered(registry, skill)
    jobs.promote(CONTEXT, "1")
    with pytest.raises(RuntimeError, match="version 2 is not promoted: version 2 is worse than version 1"):
        jobs.promote(CONTEXT, "2")
    assert registry.current() == "1"
    jobs.promote(CONTEXT, "2", chosen=True)
    assert registry.current() == "2"
