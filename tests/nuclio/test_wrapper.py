"""The functions in Nuclio's own Python wrapper, on SQLite: what comes out is exact, whatever happens to workers.

`MODELSTREAM_NUCLIO` names a folder with Nuclio's source (docs/cluster.md). The local runner meets the same expectations
in `test_local_runner.py`, always.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstream.messages.codec import decode, encode
from modelstream.messages.identity import bucket_of
from modelstream.streams import Streams
from tests.faults import inputs
from tests.nuclio import parts
from tests.nuclio.consumer_group import ConsumerGroup
from tests.nuclio.parts import INTERRUPTIONS
from tests.nuclio.processor import Function, Worker, Zygote, until
from tests.nuclio.scene import CHAIN, CHURN, KEYS, SHARDS, Scene
from tests.nuclio.spy import CODE, EMPTY, SEEN

WAITING = 10_000

pytestmark = parts.needs_nuclio


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    folder = tmp_path_factory.mktemp("zygote")
    with Zygote(parts.wrapper(), folder, serving=True) as process:
        yield process


def test_the_wrapper_is_as_the_local_runner_imitates_it(zygote: Zygote, tmp_path: Path) -> None:
    scene = Scene(tmp_path, random.Random(1), messages=60)
    (tmp_path / "spy.py").write_text(CODE)
    acks: list[tuple[int, int]] = []
    function = Function("spy", "spy:handler", tmp_path, {"SPY": str(tmp_path / "spied")})
    worker = Worker(0, function, lambda _, shard, offset: acks.append((shard, offset))).start(zygote, tmp_path)
    messages = scene.streams.read("generated", 0, 0, 100, 1 << 30)
    assert len(messages) >= 10
    for message in messages:
        worker.send(message, "generated")
        assert worker.answer()["status_code"] == 200
    spied = tmp_path / "spied"
    worker.signal(signal.SIGUSR2)
    until(lambda: "drain" in spied.read_text(), "no drain callback")
    worker.go_on()
    worker.signal(signal.SIGUSR1)
    until(lambda: "termination" in spied.read_text(), "no termination callback")
    worker.kill()
    seen = [json.loads(line) for line in spied.read_text().splitlines()]
    assert seen[0] == {"began": [], "worker": "str"}
    assert seen[-2:] == [{"called": "drain"}, {"called": "termination"}]
    assert [one for one in seen if "types" in one] == [{"types": SEEN, "empty": EMPTY}] * len(messages)
    real = {"path_is_topic": True, "kinds": ["nuclio_sdk.event", "nuclio_sdk.platform"]}
    assert [one for one in seen if "kinds" in one] == [real] * len(messages)
    assert [one["taken"] for one in seen if "taken" in one] == [[0, message.offset] for message in messages]
    assert acks == [(0, offset) for offset in range(9, len(messages), 10)]


def test_a_drain_with_10_000_messages_to_save_takes_less_than_two_seconds(zygote: Zygote, tmp_path: Path) -> None:
    """Of every function: nothing is saved before, and each message is of a single event."""
    rng = random.Random(3)
    scene = Scene(tmp_path, rng, messages=0)
    keys = [[key for key in KEYS if bucket_of(key) % SHARDS == shard] for shard in range(SHARDS)]
    bodies = [
        inputs.body(rng, keys[i % SHARDS], CHURN) for i in range(12_000)
    ]  # of these, each function gets more than it must
    waiting = [(i % SHARDS, body) for i, body in enumerate(bodies)]
    never = {"MODELSTREAM_COMMIT_MS": "600000", "MODELSTREAM_COMMIT_ROWS": "1000000"}
    for name in CHAIN:
        wiring = scene.project.params.wiring[name]
        code, module = scene.module(name)
        stream = f"{wiring.reads}-one-by-one"
        scene.streams.create(stream, SHARDS)
        scene.streams.append(stream, waiting)
        environment = scene.environment(name) | never | {"MODELSTREAM_READS": stream}
        acked: dict[int, int] = {}
        function = Function(name, f"{module}:handler", code, environment)
        worker = Worker(0, function, lambda _, shard, offset: acked.update({shard: offset})).start(zygote, tmp_path)  # noqa: B023
        for shard in range(SHARDS):
            for message in scene.streams.read(stream, shard, 0, 1 << 20, 1 << 40):
                worker.send(message, stream)
                worker.answer()
        assert not acked
        cpu, clock = worker.cpu_seconds(), time.monotonic()
        worker.signal(signal.SIGUSR2)
        worker.called_back()
        cpu, clock = worker.cpu_seconds() - cpu, time.monotonic() - clock
        worker.settled()
        worker.kill()
        # The clock's seconds say little on a busy machine.
        print(f"{name}: {len(waiting):,} messages drained with {cpu:.2f} s of CPU, in {clock:.2f} s")
        ends = {shard: scene.streams.range(stream, shard)[1] for shard in range(SHARDS)}
        assert sum(ends.values()) == len(waiting) >= WAITING
        assert acked == {shard: end - 1 for shard, end in ends.items()}
        assert cpu < 2
        if wiring.writes:
            waiting = one_by_one(scene.streams, wiring.writes)


def one_by_one(streams: Streams, stream: str) -> list[tuple[int, bytes]]:
    """Return all rows of a stream, each in a message of its own, those of the shards in turn."""
    found: list[tuple[int, int, bytes]] = []
    for shard in range(SHARDS):
        decoded = (decode(message.body) for message in streams.read(stream, shard, 0, 1 << 20, 1 << 40))
        rows = ((one.kind, one.origin, one.batch.slice(i, 1)) for one in decoded for i in range(one.batch.num_rows))
        found += [(number, shard, encode(*row)) for number, row in enumerate(rows)]
    return [(shard, body) for _, shard, body in sorted(found)]


@pytest.mark.parametrize("seed", [1])
def test_every_event_counts_once_whatever_happens_to_the_workers(zygote: Zygote, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    scene = Scene(tmp_path, rng, messages=max(800, 12 * INTERRUPTIONS))
    for name in CHAIN:
        code, module = scene.module(name)
        function = Function(name, f"{module}:handler", code, scene.environment(name))
        stream = scene.project.params.wiring[name].reads
        group = ConsumerGroup(zygote, tmp_path, function, scene.streams, stream, rng)
        try:
            group.live(INTERRUPTIONS)
        finally:
            group.close()
        print(name, dict(group.happened), f"{len(group.answers)} answers", dict(group.committed))
        assert group.violations == []
        assert scene.wrong() == []
        assert group.happened["shards that go on behind what nobody finished"] or INTERRUPTIONS < 100
        assert group.happened["drain"] and group.happened["messages delivered again"]
    scene.check()
