"""Each section of `make bench`, tiny; a failure is told; Ctrl-C leaves no process behind. In the peers' environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from servers.kafka import KafkaServer
from servers.redis import RedisServer
from tests.required import ROOT, require

TINY = ["--users", "20", "--events-per-user", "20", "--seconds", "1", "--rounds", "1", "--probes", "1", "--dry"]
MOST = 800
"""Seconds; on a quiet machine the longest takes 60."""


def command(*only: str, python: str = sys.executable) -> list[str]:
    peers = ROOT / ".venv-bench" / "bin" / "python"  # CI measures nothing, and doesn't build it
    if not peers.exists():
        pytest.skip("there is no .venv-bench; run `make bench`")
    found = subprocess.run([peers, "-c", "import quixstreams"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(".venv-bench is older than requirements-bench.txt; run `make bench`")
    return [str(peers), "-m", "bench.run", *TINY, "--python", python, "--only", *only]


def run(*only: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*only, python=python), cwd=ROOT, capture_output=True, text=True, check=False, timeout=MOST
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("live", "`run --rate`"),
        ("http", "bodies of 1,000, as fast as answers come"),
        ("overload", "share of the highest"),
        ("users", "| 20,000 | "),
        ("messages", "| a prediction |"),
    ],
)
def test_a_section_prints_its_table(name: str, said: str) -> None:
    page = (ROOT / "docs" / "performance.md").read_bytes()
    done = run(name)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert (ROOT / "docs" / "performance.md").read_bytes() == page


def test_a_section_with_servers_prints_its_table() -> None:
    require(KafkaServer, RedisServer)
    done = run("kafka", "backends")
    assert done.returncode == 0, done.stderr
    assert "Quix Streams gives the golden vectors" in done.stderr
    assert "Quix Streams, vectors only, all at once" in done.stdout
    assert "| Kafka, Redis |" in done.stdout


def test_a_section_that_fails_is_told_and_the_others_still_run() -> None:
    done = run("live", "users", python="/nonexistent/python")
    assert done.returncode == 1
    assert "[2/2] users" in done.stderr
    assert "live failed:" in done.stderr
    assert "users failed:" in done.stderr


def test_ctrl_c_ends_what_runs(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with told.open("w") as out:
        process = subprocess.Popen(command("users"), cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (running := children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running
    process.send_signal(signal.SIGINT)  # to the benchmark alone, as `kill` does
    assert process.wait(90) == 1
    assert "what was measured before is kept" in told.read_text()
    assert not [pid for pid in running if is_alive(pid)]


def children(parent: int) -> list[int]:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    if not path.exists():
        pytest.skip("needs Linux' /proc")
    return [int(pid) for pid in path.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
