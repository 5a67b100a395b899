"""The real pipeline over V3IO's stand-in under kill -9, of functions, of all, and of the server: every row once.

Half of MODELSTREAM_KILLS kills in all. Only processes that this module has started are killed.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_kills import FUNCTIONS, KILLS, Run, compare
from tests.v3io_server.process import Server

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
    pytest.mark.skipif("MODELSTREAM_KILLS" not in os.environ, reason="takes many minutes: make faults"),
]

OURS = max(1, KILLS // 2)
KILLS_A_ROUND = 5


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(tmp_path / "journal")
    monkeypatch.setenv("V3IO_API", server.url)
    monkeypatch.setenv("V3IO_ACCESS_KEY", "any")
    yield server
    server.stop()


@pytest.mark.parametrize("number", range(-(-OURS // KILLS_A_ROUND)))
def test_every_row_comes_out_once_whatever_is_killed(number: int, tmp_path: Path, server: Server) -> None:
    rng = random.Random(number)
    kills = min(KILLS_A_ROUND, OURS - number * KILLS_A_ROUND)
    server.fail(refuse_records=0.02, drop_answers=0.001, seed=number)
    run = Run(tmp_path, rng, "v3io://bigdata/churn/streams", "v3io://bigdata/churn/tables")
    plan = ["server", "everything", *rng.sample(FUNCTIONS, 3)]
    rng.shuffle(plan)
    done = 0
    try:
        for what in itertools.cycle(plan):
            if rng.random() < 0.7:
                run.wait_for_lines()
            run.wait(rng.choice((0.1, 0.5, 1.0, 2.5)) * rng.random())
            if run.ended():
                run.grow()
                run.start_again()
                continue
            if what == "server":
                server.kill()
                run.wait(rng.random())
                server.start()
                run.killed.append("server")
                done += 1
            elif what == "everything":
                run.kill_all()
                run.start_again()
                done += 1
            else:
                done += run.kill_workers(1, what)
            run.look()
            if done >= kills:
                break
        summary = run.finish()
        run.look()
    finally:
        run.process.kill()
        run.process.wait()
    print(f"killed: {', '.join(run.killed)}; {len(run.lines)} lines")
    assert len(run.killed) == kills
    server.fail()
    compare(run, summary)
