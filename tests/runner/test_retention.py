"""Messages go when every reader of their stream is done with them and they are a day old; an outage waits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelstream.errors import UnavailableError
from modelstream.project import load_project
from modelstream.runner.retention import RETENTION_SECONDS, TRIM_EVERY, TRIM_FIRST, Trimmer, trim
from modelstream.settings import StoreUrls
from modelstream.stores import Stores
from modelstream.streams import open_streams
from tests.streams.wrapped import WrappedStreams

PROJECT = load_project(Path(__file__).parents[2] / "project.yaml")
GROUPS = {"generated": ["event-handler", "auditor"], "serving": ["model-server"]}


class Away(WrappedStreams):
    """Streams of which one can't be used just now."""

    def trim(self, name: str, groups: Sequence[str], older_than_us: int) -> int:
        if name == "generated":
            raise UnavailableError("locked")
        return super().trim(name, groups, older_than_us)


def test_messages_go_when_all_readers_are_done_and_they_are_old(tmp_path: Path) -> None:
    with open_streams(f"sqlite://{tmp_path}") as streams:
        for name in ("generated", "serving", "dead-letters"):
            streams.create(name, 2)
            streams.append(name, [(0, b"first"), (0, b"second"), (1, b"third")])
        streams.ack("event-handler", "generated", {0: 1})
        streams.ack("event-handler", "generated", {1: 0})
        streams.ack("auditor", "generated", {0: 0})
        streams.ack("model-server", "serving", {0: 1})
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


def test_a_stream_that_is_away_is_left_for_the_next_time(tmp_path: Path) -> None:
    with open_streams(f"sqlite://{tmp_path}") as streams:
        for name, groups in GROUPS.items():
            streams.create(name, 1)
            streams.append(name, [(0, b"x")])
            for group in groups:
                streams.ack(group, name, {0: 0})
        later = time.time() + 60
        assert trim(Away(streams), GROUPS, later) == 1
        assert [streams.range(name, 0) for name in GROUPS] == [(0, 1), (1, 1)]
        assert trim(streams, GROUPS, later) == 1
        assert [streams.range(name, 0) for name in GROUPS] == [(1, 1), (1, 1)]


def test_a_defect_is_no_outage(tmp_path: Path) -> None:
    class Broken(WrappedStreams):
        def trim(self, name: str, groups: Sequence[str], older_than_us: int) -> int:
            raise TypeError("a defect")

    with open_streams(f"sqlite://{tmp_path}") as streams, pytest.raises(TypeError):
        trim(Broken(streams), GROUPS, 0)


def test_the_trimmer_looks_soon_and_then_now_and_then_for_what_is_a_day_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores.of_project(PROJECT, StoreUrls().within(tmp_path))
    begun = time.time()
    clock, waits, left = [begun], [], []
    with open_streams(stores.urls.streams) as streams:
        streams.create("serving", 1)
        streams.append("serving", [(0, b"x")])
        streams.ack("model-server", "serving", {0: 0})

        def sleep(seconds: float) -> None:
            assert "streams" not in vars(stores), "what isn't used is closed"
            waits.append(seconds)
            left.append(streams.range("serving", 0))
            clock[0] = begun + (0, RETENTION_SECONDS - 60, RETENTION_SECONDS + 60, 0)[len(waits)]
            if len(waits) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(time, "sleep", sleep)
        monkeypatch.setattr(time, "time", lambda: clock[0])
        trimmer = Trimmer(stores, {"serving": ["model-server"]})
        assert trimmer.daemon, "it ends with the process"
        with pytest.raises(KeyboardInterrupt):
            trimmer.run()
    assert waits == [TRIM_FIRST, TRIM_EVERY, TRIM_EVERY]
    assert left == [(0, 1), (0, 1), (1, 1)]
