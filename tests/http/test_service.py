"""What `serve` does besides HTTP: it looks at its functions, keeps messages for a day, and ends when it is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelstream.http import service as module
from modelstream.http.service import Monitor
from modelstream.runner.display import FunctionState
from modelstream.runner.line import Report
from modelstream.runner.retention import trim
from modelstream.streams import open_streams

GROUPS = {"generated": ["event-handler", "auditor"], "serving": ["model-server"]}


def test_messages_go_when_all_readers_are_done_and_they_are_old(tmp_path: Path) -> None:
    with open_streams(f"sqlite://{tmp_path}") as streams:
        for name in ("generated", "serving", "dead-letters"):
            streams.create(name, 2)
            streams.append(name, [(0, b"first"), (0, b"second"), (1, b"third")])
        streams.ack("event-handler", "generated", 0, 1)
        streams.ack("event-handler", "generated", 1, 0)
        streams.ack("auditor", "generated", 0, 0)
        streams.ack("model-server", "serving", 0, 1)
        assert trim(streams, GROUPS, time.time() - 3600) == 0, "too young"
        assert trim(streams, GROUPS, time.time() + 3600) == 3
        left = {(name, shard): streams.range(name, shard) for name in streams.names() for shard in (0, 1)}
    assert left == {
        ("generated", 0): (1, 2),
        ("generated", 1): (0, 1),
        ("serving", 0): (2, 2),
        ("serving", 1): (0, 1),
        ("dead-letters", 0): (0, 2),
        ("dead-letters", 1): (0, 1),
    }


class FakePipeline:
    """Two workers of one function, with what they report."""

    def __init__(self) -> None:
        self.lag = 0
        self.workers = [
            SimpleNamespace(before=Report(commits=1, repeated=5, committed_at=50.0), report=Report(commits=2)),
            SimpleNamespace(before=Report(), report=Report(commits=4, committed_at=70.0)),
        ]
        self.consumers = (SimpleNamespace(name="f", workers=("f/0", "f/1")),)
        self.supervisor = SimpleNamespace(processes=dict(zip(("f/0", "f/1"), self.workers, strict=True)))

    def states(self) -> list[FunctionState]:
        return [FunctionState("f", "working", rows_in=3, lag=self.lag, restarts=1)]

    def resident(self) -> dict[str, int]:
        return {"supervisor": 1}


def test_the_monitor_adds_up_workers_and_notes_since_when_messages_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "time", lambda: now)
    pipeline: Any = FakePipeline()
    monitor = Monitor(pipeline)

    def look() -> Any:
        monitor.look()
        return monitor.metrics.snapshot.functions[0]

    first = look()
    assert (first.commits, first.repeated, first.committed_at, first.lag_since) == (7, 5, 70.0, 0.0)
    pipeline.lag, now = 3, 110.0
    assert look().lag_since == 110.0
    now = 120.0
    assert look().lag_since == 110.0
    assert look().waits_for(125.0) == 15.0
    pipeline.lag = 0
    assert look().lag_since == 0.0
    pipeline.lag, now = 1, 130.0
    assert look().lag_since == 130.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_end_and_the_second_ends_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with module._stopping() as stopping:
        assert not stopping.is_set()
        os.kill(os.getpid(), number)
        assert stopping.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            stopping.wait(0)
    assert signal.getsignal(number) is before
