"""The real pipeline under kill -9: of each function, of several at once, of the whole run, and of the servers.

Over SQLite, over Kafka and Redis, and over V3IO's stand-in: every row comes out once. MODELSTREAM_KILLS kills over
SQLite and half as many over each of the others, five in a round.
"""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from servers.base import Server
from servers.kafka import KafkaServer
from servers.redis import RedisServer
from servers.v3io.process import V3ioServer
from tests.faults.kills import FUNCTIONS, KILLS, Run, compare
from tests.required import require

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")]

KILLS_A_ROUND = 5
"""Below the number of deaths in a row after which a run gives up."""

TRIES = 20
"""How often a kill may find its victim being started, or the run at its end, before the round fails."""


@dataclass
class World:
    """Where a run keeps its streams and tables, and the servers that may be killed: each restarts itself."""

    streams: str = ""
    tables: str = ""
    servers: dict[str, Callable[[Callable[[], None]], None]] = field(default_factory=dict)
    """By name, what kills a server, calls what it is given, and starts it again."""
    calm: Callable[[], None] = lambda: None
    """Ends what goes wrong there without being killed."""


@contextmanager
def on_sqlite(folder: Path, number: int, patch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World()


@contextmanager
def on_kafka(folder: Path, number: int, patch: pytest.MonkeyPatch) -> Iterator[World]:
    require(KafkaServer, RedisServer)

    def restarted(server: Server) -> Callable[[Callable[[], None]], None]:
        def restart(meanwhile: Callable[[], None]) -> None:
            server.kill()
            meanwhile()
            server.start()

        return restart

    with KafkaServer(folder / "kafka") as broker, RedisServer(folder / "redis") as redis:
        prefix = f"kills-{uuid.uuid4().hex}"
        servers = {"broker": restarted(broker), "redis": restarted(redis)}
        yield World(broker.url(prefix), redis.url(prefix), servers)


@contextmanager
def on_v3io(folder: Path, number: int, patch: pytest.MonkeyPatch) -> Iterator[World]:
    server = V3ioServer(folder / "v3io")
    for name, value in server.environment.items():
        patch.setenv(name, value)

    def fail() -> None:
        server.fail(refuse_records=0.02, drop_answers=0.001, seed=number)

    def restart(meanwhile: Callable[[], None]) -> None:
        server.kill()
        meanwhile()
        server.start()
        fail()

    with server:
        fail()
        yield World("v3io://bigdata/churn/streams", "v3io://bigdata/churn/tables", {"web API": restart}, server.fail)


HALF = max(1, KILLS // 2)
BACKENDS = {"sqlite": (on_sqlite, KILLS), "kafka": (on_kafka, HALF), "v3io": (on_v3io, HALF)}
"""Where to run, and how many kills."""


def plan_of(rng: random.Random, kills: int, number: int, servers: list[str]) -> list[str]:
    """Return what to kill: functions in turn, a server (perhaps with a worker while it is away), the run, or any."""
    plan = [FUNCTIONS[(2 * number + one) % len(FUNCTIONS)] for one in range(2)]
    plan += [f"{servers[number % len(servers)]}{' and any' * (number % 2)}"] if servers else []
    plan += rng.choices(["run", "any", *servers], k=kills)
    plan = plan[:kills]
    rng.shuffle(plan)
    return plan


@pytest.mark.parametrize(
    ("backend", "number"),
    [(name, number) for name, (_, kills) in BACKENDS.items() for number in range(-(-kills // KILLS_A_ROUND))],
)
def test_every_row_comes_out_once_whatever_is_killed(
    backend: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, kills = BACKENDS[backend]
    kills = min(KILLS_A_ROUND, kills - number * KILLS_A_ROUND)
    rng = random.Random(f"{backend} {number}")
    with make(tmp_path, number, monkeypatch) as world:
        plan = plan_of(rng, kills, number, list(world.servers))
        with Run(tmp_path, rng, world.streams, world.tables, gives_up=3 if world.servers else 0) as run:
            for _ in range(TRIES * kills):
                if plan:
                    kill(plan, run, world)
            assert not plan, f"none of these was found to be killed: {plan}"
            summary = run.finish()
            run.look()
        print(f"killed: {', '.join(run.killed)}; gave up {run.gave_up} times; {len(run.lines)} lines")
        assert len(run.killed) >= kills
        world.calm()
        compare(run, summary)


def kill(plan: list[str], run: Run, world: World) -> None:
    """Kill, at a random moment, what the plan says next."""
    rng = run.rng
    if rng.random() < 0.7:
        run.wait_for_lines()
    run.wait(rng.choice((0.1, 0.5, 1.0, 2.5)) * rng.random())
    if run.ended():
        run.grow()
        run.start_again()
        return
    what = plan.pop()
    name, _, also = what.partition(" and ")
    if name in world.servers:

        def meanwhile() -> None:
            run.killed.append(name)
            run.wait(rng.choice((0.0, 1.0, 4.0)) * rng.random())
            run.kill_workers(len(also) // 3)

        world.servers[name](meanwhile)
    elif what == "run":
        run.kill_all()
        run.look()
        run.start_again()
    elif run.kill_workers(rng.choice((1, 1, 2, 3)) if what == "any" else 1, "" if what == "any" else what) == 0:
        plan.insert(0, what)  # it was being started
    run.look()
