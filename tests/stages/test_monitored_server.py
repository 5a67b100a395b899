"""The model server in MLRun's graph server, with an MLRun API at hand and without."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelstream.messages import codec
from modelstream.stages import endpoint, monitoring
from modelstream.streams import open_streams
from modelstream.streams.foreign import open_foreign
from tests.cluster.mlrun_models import ModelsStandIn
from tests.stages.test_endpoint import server
from tests.test_project import CHURN, Worker, folder, in_worker, loaded, request, specs, stream_event, vectors

__all__ = ["folder", "in_worker", "loaded", "server"]


@pytest.mark.parametrize("monitored", [False, True])
def test_nothing_is_logged_as_an_error(
    loaded: Any, in_worker: Callable[..., None], monkeypatch: pytest.MonkeyPatch, monitored: bool
) -> None:
    """MLRun's own V2ModelServer logs "This function is not being monitored" as one."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    ear = Ear(logging.ERROR)
    monkeypatch.setattr(logging.getLogger("mlrun"), "handlers", [*logging.getLogger("mlrun").handlers, ear])
    monkeypatch.setenv("MODELSTREAM_MONITORING", str(monitored))

    async def use(worker: Worker) -> None:
        response = await worker.handler(worker.context, request({"inputs": [[0.0] * len(CHURN.features)]}))
        assert response.status_code == 200

    for spec in specs(loaded).values():
        in_worker(use, spec)
    assert not heard


@pytest.mark.usefixtures("server")
def test_messages_and_requests_become_records_of_the_versions_endpoint(
    loaded: Any,
    in_worker: Callable[..., None],
    server: ModelsStandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = f"sqlite://{tmp_path}/mlrun"
    with open_streams(place) as made:
        made.create("monitoring", shards=1)
    asked: list[str] = []

    def monitoring_stream(project: str) -> Any:
        asked.append(project)
        return open_foreign(f"{place}/monitoring")

    monkeypatch.setattr(endpoint, "monitoring_stream", monitoring_stream)
    monkeypatch.setattr(monitoring, "EVERY", 0.01)
    monkeypatch.setenv("MODELSTREAM_MONITORING", "true")
    batch = vectors()
    found: list[dict[str, Any]] = []

    def rows() -> list[list[float]]:
        with open_streams(place) as streams:
            bodies = [message.body for message in streams.read("monitoring", 0, 0, 1000, 10**9)]
        found[:] = [msgspec.json.decode(body) for body in bodies]
        return [row for record in found for row in record["request"]["inputs"]]

    async def use(worker: Worker) -> None:
        await worker.handler(worker.context, stream_event(5, 0, codec.encode("vectors", "file", batch.slice(0, 100))))
        while len(rows()) < 100:
            await asyncio.sleep(0.01)
        await worker.handler(worker.context, request({"inputs": [[2.0] * len(CHURN.features)]}))
        while len(rows()) < 101:
            await asyncio.sleep(0.01)

    in_worker(use, specs(loaded)["ours"])
    expected = [[batch.column(name)[place].as_py() for name in CHURN.features] for place in range(100)]
    assert rows() == [[pytest.approx(value, rel=1e-6) for value in row] for row in expected] + [[2.0] * 13]
    (uid,) = server.endpoints
    made_of = server.endpoints[uid]
    assert (made_of.metadata.name, made_of.metadata.labels) == ("churn", {"version": "1"})
    assert made_of.spec.feature_names == list(CHURN.features)
    assert {record["endpoint_id"] for record in found} == {uid}
    assert {(record["model"], record["class"], record["function_uri"]) for record in found} == {
        ("churn", "Model", "modelstream/model-server")
    }
    assert set(asked) == {"modelstream"}
