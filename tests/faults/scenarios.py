"""One random scenario: a world with some faults, random input, and the comparison of what comes out of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

from modelstream.streams.letters import read_letters
from tests.faults import inputs
from tests.faults.expected import Truth
from tests.faults.process import CHURN, Faults, probability_of
from tests.faults.virtual_time import VirtualLoop
from tests.faults.world import World, patched


def random_faults(rng: random.Random) -> Faults:
    """Return faults: of one kind in some scenarios, of all kinds in most."""

    def chance(*values: float) -> float:
        return rng.choice((0.0, *values))

    return Faults(
        crash=chance(0.005, 0.02),
        outage=chance(0.02, 0.1),
        unknown=chance(0.02, 0.1),
        lost_ack=chance(0.1, 0.5),
        hook=chance(0.05),
        chaos=chance(0.1, 0.3, 0.3),
    )


def run(folder: Path, seed: int) -> tuple[Truth, World]:
    """Run the scenario of a seed in an empty folder. Raises AssertionError unless what comes out is exact."""
    rng = random.Random(seed)
    shards = rng.choice((1, 2, 3, 4))
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)  # tasks of processes that were killed
    world = World(folder, rng, random_faults(rng), shards=shards, workers=rng.choice((1, min(2, shards))))
    shards_of = {0: shards}
    try:
        with patched(world, loop):
            for origin in ("a.ndjson", "b.ndjson")[: rng.choice((1, 2))]:
                world.sources.add(origin, [inputs.line(rng) for _ in range(rng.randint(10, 70))])
            loop.run_until_complete(world.live(rng.randint(5, 70), rng.randint(0, 20)))
            if rng.random() < 0.25:
                world.begin_epoch(rng.choice((1, 2, 3, 5)))
                shards_of[1] = world.shards
            else:
                for file in world.sources.files:
                    file.sent = rng.choice(file.saved)
            loop.run_until_complete(world.live(100, rng.randint(0, 5)))
            truth = _truth(world, shards_of)
            _check(world, truth)
    finally:
        world.close()
        _end(loop)
    return truth, world


def _truth(world: World, shards_of: dict[int, int]) -> Truth:
    truth = Truth(CHURN)
    for (epoch, shard, offset), body in sorted(world.generated.items()):
        truth.append(epoch, shard, offset, shards_of[epoch], body)
    return truth


def _check(world: World, truth: Truth) -> None:
    assert not world.defects, f"a stage let an exception out: {world.defects[0]!r}"
    known = {identity for rows in truth.events.values() for identity, _ in rows}
    known |= {(origin, position) for origin, _, position in truth.letters}
    for file in world.sources.files:
        assert {(file.origin, position) for position in file.lines.positions.tolist()} <= known, "not all was sent"
    world.calm = True
    truth.check_letters([*world.letters, *read_letters(world.streams, "dead-letters")])
    truth.check_events(world.log("event-handler"), world.folder / "events")
    table = world.tables.features(CHURN.row_schema)
    truth.check_rows(table)
    truth.check_predictions(world.log("inference-logger"), world.folder / "inference", probability_of)
    counters: dict[str, int] = {}
    for epoch in range(world.epoch + 1):
        table.epoch = epoch  # type: ignore[attr-defined]
        for shard in range(8):
            checkpoint = table.checkpoint(shard)
            for name, number in checkpoint.counters.items():
                counters[name] = counters.get(name, 0) + number
    truth.check_counters(counters)


def _end(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(BaseException):
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
