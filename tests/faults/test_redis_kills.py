"""Redis tables under kill -9 of those who write and of the server: commits are whole, and what was confirmed stays.

Half of MODELSTREAM_KILLS kills in all. Only processes that this module has started are killed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelstream.errors import UnavailableError
from modelstream.messages.identity import Checkpoint, Watermarks
from modelstream.tables import FeatureTable, open_tables
from servers.redis import RedisServer
from tests.required import require

pytestmark = pytest.mark.faults

KILLS = max(1, int(os.environ.get("MODELSTREAM_KILLS", "20")) // 2)
SHARDS = 2
USERS = 50
ENRICHMENT = 20_000
PATIENCE = 60.0
ROWS = pa.schema([("user", pa.string()), ("applied", pa.int64()), ("total", pa.float64())])


def rows(shard: int, number: int) -> pa.RecordBatch:
    """Return the rows of a shard's users after the commit `number`: a third of them changes with each commit."""
    users = [user for user in range(USERS) if user % 3 == number % 3]
    return pa.record_batch(
        {
            "user": [f"{shard}-{u:02d}" for u in users],
            "applied": [number] * len(users),
            "total": [number / 3] * len(users),
        },
        schema=ROWS,
    )


def checkpoint(shard: int, number: int) -> Checkpoint:
    marks = Watermarks()
    marks.set("f", shard, number)
    marks.set("f", 2 + number % 60, number)
    return Checkpoint(number, marks, {"vectors": number})


def all_marks(shard: int, last: int) -> dict[str, dict[str, int]]:
    marks = Watermarks()
    for number in range(last + 1):
        for origin, bucket, position in checkpoint(shard, number).watermarks.items():
            marks.set(origin, bucket, position)
    return marks.to_json()


def commit_until_killed(url: str, shard: int, confirmed: Any) -> None:
    """Commit the numbers from the last stored on; an outage is waited out, a refusal makes it read what is stored."""
    number = -1
    with open_tables(url) as tables:
        features: FeatureTable | None = None
        while True:
            try:
                if features is None:
                    features = tables.features(ROWS)
                    number = features.checkpoint(shard).offset + 1
                if features.commit(shard, rows(shard, number), checkpoint(shard, number)):
                    confirmed.send(number)
                    number += 1
                else:  # ours, whose answer was lost, or that of the one before us
                    number = features.checkpoint(shard).offset + 1
            except UnavailableError:
                time.sleep(0.01)


def load_until_killed(url: str, value: float) -> None:
    """Load a table whose values are all the same, again and again, each time with another."""
    keys = [f"{number:05d}" for number in range(ENRICHMENT)]
    while True:
        try:
            with open_tables(url) as tables:
                table = tables.lookup("enrichment")
                while True:
                    value += 1
                    halves = [
                        pa.record_batch({"key": part, "value": [value] * len(part)})
                        for part in (keys[:7000], keys[7000:])
                    ]
                    table.load(halves)
        except UnavailableError:
            time.sleep(0.01)


class Committers:
    """A process for each shard, and what each has got confirmed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.last = [-1] * SHARDS
        self._running: list[tuple[Any, Any]] = [self._start(shard) for shard in range(SHARDS)]

    def _start(self, shard: int) -> tuple[Any, Any]:
        parent, child = get_context("fork").Pipe(duplex=False)
        process = get_context("fork").Process(target=commit_until_killed, args=(self.url, shard, child), daemon=True)
        process.start()
        child.close()
        return process, parent

    def wait_for_more(self) -> None:
        """Wait until each shard has got a commit confirmed from now on."""
        self.drain()
        before, deadline = list(self.last), time.monotonic() + PATIENCE
        while any(last <= old for last, old in zip(self.last, before, strict=True)):
            assert time.monotonic() < deadline, (self.last, before)
            time.sleep(0.005)
            self.drain()

    def drain(self) -> None:
        """Take in what was confirmed."""
        for shard, (_, pipe) in enumerate(self._running):
            try:
                while pipe.poll():
                    number = pipe.recv()
                    assert number > self.last[shard], "confirmed twice"
                    self.last[shard] = number
            except EOFError:
                pass

    def kill(self, shard: int) -> None:
        """Kill the owner of a shard."""
        process, _ = self._running[shard]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE)
        self.drain()

    def restart(self, shard: int) -> None:
        """Let another process own a shard, whether or not its owner has ended."""
        self._running[shard] = self._start(shard)


def check(features: FeatureTable, shard: int, confirmed: int) -> None:
    """Compare all that is stored of a shard with what its commits, one after the other, would have made."""
    stored = features.checkpoint(shard)
    assert stored.offset in (confirmed, confirmed + 1)
    assert stored.counters == {"vectors": stored.offset}
    assert stored.watermarks.to_json() == all_marks(shard, stored.offset)
    users = [f"{shard}-{user:02d}" for user in range(USERS)]
    expected: dict[str, dict[str, Any]] = {}
    for number in range(max(0, stored.offset - 2), stored.offset + 1):
        expected |= {row["user"]: row for row in rows(shard, number).to_pylist()}
    assert {row["user"]: row for row in features.get_many(users).to_pylist()} == expected


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    require(RedisServer)
    with RedisServer(tmp_path) as server:
        yield server


def test_commits_are_whole_and_confirmed_ones_stay_whoever_is_killed(server: RedisServer) -> None:
    rng = random.Random(KILLS)
    url = server.url("kills")
    committers = Committers(url)
    kinds = {"server": 0, "owner": 0}
    for number in range(KILLS):
        committers.wait_for_more()
        time.sleep(rng.random() * 0.05)
        what = ("server", "owner")[number % 2]
        kinds[what] += 1
        if what == "server":
            server.kill()
            server.start()
            continue
        shard = rng.randrange(SHARDS)
        committers.kill(shard)
        with open_tables(url) as tables:
            check(tables.features(ROWS), shard, committers.last[shard])
        committers.restart(shard)
    committers.wait_for_more()
    for shard in range(SHARDS):
        committers.kill(shard)
    with open_tables(url) as tables:
        features = tables.features(ROWS)
        for shard in range(SHARDS):
            check(features, shard, committers.last[shard])
        assert features.count() == sum(batch.num_rows for batch in features.scan(7)) == SHARDS * USERS
    print(f"killed {kinds}, commits confirmed: {committers.last}")
    assert min(committers.last) > KILLS


def test_table_to_look_up_is_loaded_as_a_whole_whoever_is_killed(server: RedisServer) -> None:
    rng = random.Random(KILLS)
    url = server.url("kills")
    seen = []
    for number in range(KILLS):
        loader = get_context("fork").Process(target=load_until_killed, args=(url, 1000.0 * number), daemon=True)
        loader.start()
        with open_tables(url) as tables:
            table = tables.lookup("enrichment")
            deadline = time.monotonic() + PATIENCE
            while table.count() == 0:
                assert time.monotonic() < deadline
        time.sleep(rng.random() * 0.4)
        assert loader.pid is not None
        if number % 2:
            server.kill()
            os.kill(loader.pid, signal.SIGKILL)
            server.start()
        else:
            os.kill(loader.pid, signal.SIGKILL)
        loader.join(PATIENCE)
        with open_tables(url) as tables:
            found = pa.Table.from_batches(tables.lookup("enrichment").scan())
        assert found.num_rows == ENRICHMENT
        values = set(found.column("value").to_pylist())
        assert len(values) == 1
        seen.append(values.pop())
    print(f"loads seen: {seen}")
    assert len(set(seen)) > 1
