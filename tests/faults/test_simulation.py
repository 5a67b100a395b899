"""Whatever fails, in whatever order, every event counts once: some hundred random scenarios, each compared exactly.

`tests/faults/world.py` says what a scenario is made of. A scenario depends on its number alone, so a failing one can
be run again: `python -m tests.faults.test_simulation NUMBER`. More of them: MODELSTREAM_SCENARIOS=5000.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import scenarios

SCENARIOS = int(os.environ.get("MODELSTREAM_SCENARIOS", "160"))
AT_ONCE = 20


@pytest.mark.parametrize("first", range(0, SCENARIOS, AT_ONCE))
def test_whatever_fails_every_event_counts_once(first: int, tmp_path: Path) -> None:
    for seed in range(first, min(first + AT_ONCE, SCENARIOS)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            scenarios.run(folder, seed)
        except AssertionError as error:
            raise AssertionError(f"scenario {seed}: {error}") from error
        shutil.rmtree(folder)


def test_scenarios_have_what_they_are_for(tmp_path: Path) -> None:
    happened: Counter[str] = Counter()
    rows = 0
    for seed in range(1000, 1024):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth, world = scenarios.run(folder, seed)
        happened += world.happened
        rows += sum(map(len, truth.vectors.values())) + len(truth.letters)
    kinds = [*("crash", "outage", "unknown outcome", "lost ack", "hook", "zombie", "rebalance", "terminate", "epoch")]
    kinds += ["handed the next message", "read by itself", "publish", "commit of several shards"]
    assert not {kind for kind in kinds if not happened[kind]}
    assert rows > 200


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as found:
        scenarios.run(Path(found), int(sys.argv[1]))
