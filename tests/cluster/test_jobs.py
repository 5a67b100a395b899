"""The workflow's own jobs, on SQLite."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from modelstream.cluster import jobs
from modelstream.streams import open_streams
from modelstream.tables import open_tables

ROOT = Path(__file__).parent.parent.parent
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
    with pytest.raises(RuntimeError, match="the tables are in epoch 1, and the cluster's file asks for 3; write"):
        jobs.prepare(CONTEXT)


def test_drained_waits_for_every_function(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.prepare(CONTEXT)
    jobs.drained(CONTEXT, timeout=0)
    with open_streams(urls["streams"]) as streams:
        for _ in range(2):
            streams.append("inference", [(1, b"a")])
        assert jobs.lag(streams, "inference-logger", "inference") == 2

        def acknowledge(_: float) -> None:
            streams.ack("inference-logger", "inference", 1, 1)

        with pytest.raises(RuntimeError, match="inference-logger has not drained in 0 s: 2 messages wait in inference"):
            jobs.drained(CONTEXT, timeout=0)
        monkeypatch.setattr(jobs.time, "sleep", acknowledge)
        jobs.drained(CONTEXT, timeout=60)
        assert jobs.lag(streams, "inference-logger", "inference") == 0


def test_wrong_address_of_kafka_is_told_with_what_to_do(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTREAM_STREAMS", "kafka://127.0.0.1:1/none?timeout=1")
    with pytest.raises(RuntimeError, match=r"127\.0\.0\.1:1.*; .+"):
        jobs.prepare(CONTEXT)


def test_promote_asks_the_registry(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    promoted: list[str] = []
    registry: Any = ModuleType("modelstream.registry")
    registry.of_project = lambda project, use_case: SimpleNamespace(promote=promoted.append)
    monkeypatch.setitem(sys.modules, "modelstream.registry", registry)
    jobs.promote(CONTEXT, version="3")
    assert promoted == ["3"]
