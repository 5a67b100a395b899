"""Promotions and rollbacks during a run whose functions, and whose promoter, are killed: each row comes out once.

And each by the model that it says made it, all rows of a message by the same one. MODELSTREAM_KILLS says how long.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modelstream.messages.codec import decode
from modelstream.registry.registry import Registry
from modelstream.streams import Message, open_streams
from tests.faults.kills import CHURN, KILLS, ROOT, SHARDS, Run, compare
from tests.model_files import SHIPPED, directory, folder_of, probability_of

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")]

KILLS_A_ROUND = 4
ROUNDS = max(1, KILLS // 40)
LAST = "7"

PROMOTER = """
import random, sys, time
from pathlib import Path
from modelstream.errors import ModelstreamError
from modelstream.registry.registry import Registry
from tests.model_files import CHURN, SHIPPED
registry = Registry(Path(sys.argv[1]), CHURN.model_name, CHURN.features, shipped=SHIPPED)
draw = random.Random(int(sys.argv[2]))
while True:
    try:
        registry.rollback() if draw.random() < 0.3 else registry.promote(draw.choice("123456"))
    except ModelstreamError as error:
        assert "no version served before" in str(error), error
    print(registry.current(), flush=True)
    time.sleep(0.3 * draw.random())
"""


class Promoter:
    """A process that promotes and rolls back, until it is killed; then the next one does."""

    def __init__(self, registry: Registry, seed: int) -> None:
        self._registry = registry
        self._seed = seed
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._seed += 1
        return subprocess.Popen(
            [sys.executable, "-c", PROMOTER, str(folder_of(self._registry).parent), str(self._seed)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def kill(self, *, again: bool) -> None:
        """Kill it at whatever it does; what it leaves must be usable."""
        assert self.process.poll() is None, self.process.communicate()[1].decode()
        self.process.kill()
        self.process.communicate()
        alias = self._registry.alias()
        assert alias is not None
        if alias.current.version:
            self._registry.open(alias.current)
        if again:
            self.process = self._start()


@contextmanager
def running(folder: Path, rng: random.Random, registry: Registry) -> Iterator[tuple[Run, Promoter]]:
    promoter = Promoter(registry, rng.randrange(1 << 20))
    try:
        with Run(folder, rng) as run:
            yield run, promoter
    finally:
        promoter.process.kill()
        promoter.process.wait()


def identities(message: Message) -> list[tuple[str, int]]:
    """Return the origin and position of every row of a message."""
    rows = decode(message.body)
    return [(rows.origin, position) for position in rows.batch.column("position").to_pylist()]


def check_versions(run: Run) -> set[str]:
    """Each prediction is by the model that it says, and each message by one; return the versions."""
    rows = pd.read_parquet(run.data / "inference")
    made_by_shipped = rows["model_version"] == "1"
    expected = rows["model_version"].map(probability_of).astype(np.float64)
    np.testing.assert_allclose(rows[CHURN.probability][~made_by_shipped], expected[~made_by_shipped], rtol=1e-5)
    with open_streams(f"sqlite://{run.data}/streams") as streams:
        for shard in range(SHARDS):
            asked = [identities(message) for message in streams.read("serving", shard, 0, 1 << 30, 1 << 40)]
            first, last = {one[0] for one in asked}, {one[-1] for one in asked}
            scored: list[tuple[tuple[str, int], str]] = []
            for message in streams.read("inference", shard, 0, 1 << 30, 1 << 40):
                versions = decode(message.body).batch.column("model_version").to_pylist()
                scored += zip(identities(message), versions, strict=True)
            for (before, old), (after, new) in itertools.pairwise(scored):
                assert old == new or (before in last and after in first), "a message was scored by two versions"
    return set(rows["model_version"])


@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_row_comes_out_once_while_versions_change(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    registry = Registry(tmp_path / "models", CHURN.model_name, CHURN.features, shipped=SHIPPED)
    for _ in range(6):
        registry.register(directory)
    registry.promote("2")
    rng = random.Random(1000 + number)
    with running(tmp_path, rng, registry) as (run, promoter):
        for kind in rng.sample(["model-server", "promoter", "all", "promoter"], KILLS_A_ROUND):
            if run.ended():
                run.grow()
                run.start_again()
            run.wait_for_lines()
            run.wait(2.0 * rng.random())
            promoter.kill(again=True)
            if kind == "all" and not run.ended():
                run.kill_all()
                run.start_again()
            elif kind == "model-server":
                run.kill_workers(1, kind)
            run.look()
        run.finish()
        promoter.kill(again=False)
        registry.promote(LAST)
        run.grow()
        run.start_again()
        summary = run.finish()
    assert summary["model_version"] == LAST
    compare(run, summary)
    versions = check_versions(run)
    assert LAST in versions
    assert len(versions) > 1
    print(f"killed: {', '.join(run.killed)}; versions {sorted(versions)}")
