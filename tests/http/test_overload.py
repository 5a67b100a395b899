"""When the pipeline is behind, or the disk nearly full, no more events are taken, and clients are told to come back."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelstream.http.overload import RESERVE, disk_low
from modelstream.runner.state import FunctionState, PipelineState
from tests.http.serving import PRETTY, Client


def state(delay: float = 0.0, disk_low: bool = False) -> PipelineState:
    functions = (
        FunctionState(name="event-handler", state="working", lag=5, delay=1.0),
        FunctionState(name="model-server", state="working", lag=5, delay=delay),
    )
    return PipelineState(1000.0, functions, disk_low=disk_low)


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        (state(delay=30.5), "waiting for model-server for 30 s, longer than 30 s (--max-delay)"),
        (state(disk_low=True), "nearly full"),
    ],
)
def test_no_events_are_taken_until_the_pipeline_has_caught_up(
    client: Client, behind: PipelineState, reason: str
) -> None:
    client.exporter.state = behind
    status, answer, headers = client.ask_whole("POST", "/events", PRETTY)
    assert (status, reason in answer["error"], int(headers["retry-after"]) > 0) == (503, True, True)
    assert client.stored() == []
    assert client.ask("POST", "/v2/models/churn/infer", b"{}")[0] == 200, "requests for the model are still answered"
    client.exporter.state = state(delay=29.0)
    assert client.ask("POST", "/events", PRETTY) == (202, {"accepted": 1})
    assert len(client.stored()) == 1


def test_delay_and_disk_are_metrics(client: Client) -> None:
    client.exporter.state = state(delay=7.5, disk_low=True)
    text = client.ask("GET", "/metrics")[1].decode()
    assert 'modelstream_delay_seconds{function="model-server"} 7.5' in text
    assert "modelstream_disk_low 1.0" in text
    assert client.ask("GET", "/healthz")[1]["functions"][1]["delay"] == 7.5


@pytest.mark.parametrize(
    ("size", "free", "low"),
    [
        (100 << 30, RESERVE, False),
        (100 << 30, RESERVE - 4096, True),
        (1 << 30, 60 << 20, False),
        (1 << 30, 1 << 20, True),
    ],
)
def test_the_reserve_of_a_disk(monkeypatch: pytest.MonkeyPatch, size: int, free: int, low: bool) -> None:
    found = SimpleNamespace(f_frsize=4096, f_blocks=size // 4096, f_bavail=free // 4096)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert disk_low(Path("data")) == low
