"""What `serve` does besides HTTP: it keeps messages for a day, and ends when it is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from modelstream.http import service as module
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
