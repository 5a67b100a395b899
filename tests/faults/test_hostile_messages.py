"""Messages that are well-formed for their hash but not for Arrow, or not of this use case: no crash, no row lost.

`make faults` gives each stage 200,000 of them (MODELSTREAM_MUTATIONS), `make test` some thousand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from modelstream.messages.codec import Kind

ROOT = Path(__file__).parents[2]
MUTATIONS = int(os.environ.get("MODELSTREAM_MUTATIONS", "3000"))
AT_ONCE = 20_000
"""Mutations that one test gives, a minute's work: 200,000 would outlast a test's time limit on a busy machine."""


@pytest.mark.faults
@pytest.mark.parametrize("first", range(0, MUTATIONS, AT_ONCE))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_no_forged_message_ends_a_function_or_costs_a_neighbour(kind: str, first: int, tmp_path: Path) -> None:
    count = min(AT_ONCE, MUTATIONS - first)
    noted = tmp_path / "number"
    noted.touch()
    command = [sys.executable, "-m", "tests.faults.hostile", kind, str(first), str(count), str(noted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"mutation {noted.read_text()}: exit status {done.returncode}\n{done.stderr[-3000:]}"
    assert int(done.stdout) > count // 3, "of raw lines, most changes only make another line"
