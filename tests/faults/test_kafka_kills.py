"""The real pipeline over Kafka and Redis under kill -9, of its functions and of the broker: every row comes out once.

Half of MODELSTREAM_KILLS kills in all, five in a round, of which one or two are the broker's. Only processes that
this module has started are killed.
"""

from __future__ import annotations

import os
import random
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kafka_server, redis_server
from tests.faults.test_kills import FUNCTIONS, PATIENCE, Run, compare
from tests.kafka_server import Broker
from tests.redis_server import RedisServer

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
    pytest.mark.skipif("MODELSTREAM_KILLS" not in os.environ, reason="takes many minutes: make faults"),
]

KILLS = max(1, int(os.environ.get("MODELSTREAM_KILLS", "20")) // 2)
KILLS_A_ROUND = 5


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, RedisServer]]:
    kafka_server.require()
    redis_server.require()
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        broker.start()
        redis.start()
        yield broker, redis
    finally:
        broker.kill()
        redis.kill()


class PatientRun(Run):
    """A run that is started again when it has given up: where everything is slow, a broker is away for over 30 s."""

    gave_up = 0

    def ended(self) -> bool:
        return not self._gave_up() and super().ended()

    def finish(self) -> dict[str, object]:
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None or self._gave_up():
            assert time.monotonic() < deadline, self._words()
            time.sleep(0.05)
        return super().finish()

    def _gave_up(self) -> bool:
        if self.process.poll() != 1:
            return False
        _, told = self.process.communicate()
        assert "nothing is lost" in told, told
        assert self.gave_up < 3, told
        self.gave_up += 1
        self.start_again()
        return True


def plan_of(rng: random.Random, kills: int, number: int) -> list[str]:
    """Return what to kill: the broker, a function, any two workers, or the whole run."""
    plan = ["broker"] * (1 + number % 2) + [FUNCTIONS[(number + one) % len(FUNCTIONS)] for one in range(2)]
    plan += rng.choices(("run", "any", "broker and any"), k=kills)
    plan = plan[:kills]
    rng.shuffle(plan)
    return plan


def restart(broker: Broker, run: Run, rng: random.Random, *, also: bool) -> None:
    """Kill the broker, perhaps a worker while it is away, and start it again."""
    broker.kill()
    run.killed.append("broker")
    run.wait(rng.choice((0.0, 1.0, 4.0)) * rng.random())
    if also:
        run.kill_workers(1)
    broker.start()


@pytest.mark.parametrize("number", range(-(-KILLS // KILLS_A_ROUND)))
def test_every_row_comes_out_once_whatever_is_killed(
    servers: tuple[Broker, RedisServer], number: int, tmp_path: Path
) -> None:
    broker, redis = servers
    rng = random.Random(1000 + number)
    kills = min(KILLS_A_ROUND, KILLS - number * KILLS_A_ROUND)
    prefix = f"kills-{uuid.uuid4().hex}"
    run = PatientRun(tmp_path, rng, streams=f"kafka://{broker.address}/{prefix}", tables=redis.url(prefix))
    plan = plan_of(rng, kills, number)
    try:
        while plan:
            if rng.random() < 0.7 or plan[-1].startswith("broker"):  # a run that finds no broker at its start ends
                run.wait_for_lines()
            run.wait(rng.choice((0.1, 0.5, 1.0, 2.5)) * rng.random())
            if run.ended():
                run.grow()
                run.start_again()
                continue
            what = plan.pop()
            if what == "run":
                run.kill_all()
                run.start_again()
            elif what.startswith("broker"):
                restart(broker, run, rng, also=what != "broker")
            elif run.kill_workers(2 if what == "any" else 1, "" if what == "any" else what) == 0:
                plan.insert(0, what)  # it was being started
            run.look()
        summary = run.finish()
        run.look()
    finally:
        run.process.kill()
        run.process.wait()
    print(f"killed: {', '.join(run.killed)}; gave up {run.gave_up} times; {len(run.lines)} lines")
    assert len(run.killed) >= kills
    compare(run, summary)
