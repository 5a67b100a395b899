"""The real pipeline under kill -9: of each function, of several at once, and of the whole; every row comes out once.

MODELSTREAM_KILLS kills in all, five in a round. Only processes that this module has started are killed: children of
its own child, told by a handle that can't come to mean another process.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from modelstream import dead_letters, use_case
from modelstream.errors import ModelstreamError
from modelstream.lines import LineSplitter
from modelstream.log import ParquetLog
from modelstream.sender import messages
from modelstream.streams import open_streams
from modelstream.tables import open_tables
from tests.faults import inputs
from tests.faults.expected import Truth
from tests.oracle import read_values

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")]

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
CHURN = use_case.load(ROOT / "use_cases" / "churn.yaml")
KILLS = int(os.environ.get("MODELSTREAM_KILLS", "20"))
KILLS_A_ROUND = 5
"""Below the number of deaths in a row after which a run gives up."""
FUNCTIONS = ("event-handler", "stream-to-features", "model-server", "inference-logger", "data-generator")
SHARDS = 8
PATIENCE = 300.0
"""Seconds in which a run must have come to its end, on a busy machine."""


def part(rng: random.Random) -> list[bytes]:
    """Return some thousand lines: golden events, odd ones, bad ones."""
    found = [(GOLDEN / name).read_bytes().split(b"\n") for name in ("edge_events.ndjson", "reference_events.ndjson")]
    start = rng.randrange(4000)
    lines = [*found[0][:-1], *found[1][start : start + 6000]]
    for _ in range(60):
        lines.insert(rng.randrange(len(lines)), inputs.bad_line(rng, ("u1", "u2", "x")))
    return lines


class Run:
    """`pipeline.py run` on a file, which may grow, into a folder: started, killed, and started again."""

    def __init__(self, folder: Path, rng: random.Random, streams: str = "", tables: str = "") -> None:
        self.rng = rng
        self.source, self.data = folder / "events.ndjson", folder / "data"
        self.streams, self.tables = streams or f"sqlite://{self.data}/streams", tables or f"sqlite://{self.data}/tables"
        self._places = [*(("--streams", streams) if streams else ()), *(("--tables", tables) if tables else ())]
        self.rate = rng.choice((2500, 6000))
        self.workers = rng.choice((1, 1, 2))
        self.lines: list[bytes] = []
        self.killed: list[str] = []
        self._rows = {"events": 0, "inference": 0}
        self.grow()
        self.process = self._start()

    def grow(self) -> None:
        """Add lines to the file."""
        self.lines += part(self.rng)
        self.source.write_bytes(b"\n".join(self.lines) + b"\n")

    def start_again(self) -> None:
        """Start on the same folder, whether or not workers of the last run are about to end."""
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = ["run", "--input", self.source, "--enrichment", GOLDEN / "enrichment.csv", "--data", self.data]
        options = ["--rate", str(self.rate), "--workers", str(self.workers), "--json", "--quiet"]
        return subprocess.Popen(
            [sys.executable, str(ROOT / "pipeline.py"), *map(str, command), *options, *self._places],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self) -> bool:
        """Tell whether the run has ended, which must be a good end."""
        if self.process.poll() is None:
            return False
        assert self.process.returncode == 0, self._words()
        return True

    def _words(self) -> str:
        logs = "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in self.data.glob("logs/*.log"))
        return f"after killing {self.killed}: {self.process.communicate()[1]}\n{logs}"

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the end of the run."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.01)

    def wait_for_lines(self) -> None:
        """Wait until the run sends lines."""
        before = self._sent()
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and self._sent() == before:
            assert time.monotonic() < deadline, self._words()
            time.sleep(0.05)

    def _sent(self) -> int:
        try:
            with open_streams(self.streams) as streams:
                return sum(streams.range("generated", shard)[1] for shard in range(SHARDS))
        except ModelstreamError:  # not made yet
            return 0

    def kill_workers(self, count: int, function: str = "") -> int:
        """Kill some workers at once, of one function or any; return how many it were."""
        workers = list(self._workers())
        chosen = [worker for worker in workers if function in ("", worker[0])]
        killed = [name for name, handle in self.rng.sample(chosen, min(count, len(chosen))) if _kill(handle)]
        for _, handle in workers:
            os.close(handle)
        self.killed += killed
        return len(killed)

    def _workers(self) -> Iterator[tuple[str, int]]:
        """Yield the function and a handle of every process that the run has started."""
        for path in Path("/proc").glob("[0-9]*"):
            handle = -1
            try:
                handle = os.pidfd_open(int(path.name))
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                command = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended
                parent, command = -1, []
            if parent == self.process.pid and b"-m" in command:
                described = json.loads(command[command.index(b"-m") + 2])
                yield described.get("function", "data-generator"), handle
            elif handle >= 0:
                os.close(handle)

    def kill_all(self) -> None:
        """Kill the run's own process: its workers end by themselves, unless they are killed with it."""
        workers = list(self._workers())
        self.process.kill()
        for _, handle in workers:
            if self.rng.random() < 0.5:
                _kill(handle)
            os.close(handle)
        self.process.wait()
        self.killed.append("pipeline.py")

    def look(self) -> None:
        """Read what is there as any reader would: each row once, and never fewer than before."""
        for name, before in self._rows.items():
            if (self.data / name / "schema.parquet").exists():
                frame = pd.read_parquet(self.data / name)
                assert not frame.duplicated(["origin", "position"]).any(), f"after killing {self.killed}"
                assert len(frame) >= before, f"after killing {self.killed}"
                self._rows[name] = len(frame)

    def finish(self) -> dict[str, object]:
        """Let the run come to its end; return what it says."""
        try:
            output, _ = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(self._words()) from None
        assert self.process.returncode == 0, self._words()
        summary: dict[str, object] = json.loads(output)
        return summary


def _kill(handle: int) -> bool:
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def truth_of(run: Run) -> Truth:
    """Return what must come out: every line of the file once."""
    truth = Truth(CHURN, read_values(GOLDEN / "enrichment.csv"))
    lines = LineSplitter(CHURN.key).feed(run.source.read_bytes(), last=True).lines
    for offset, (shard, body) in enumerate(messages(lines, SHARDS, str(run.source), 0)):
        truth.append(0, shard, offset, SHARDS, body)
    return truth


def compare(run: Run, summary: dict[str, object]) -> None:
    truth = truth_of(run)
    events, vectors = (sum(map(len, rows.values())) for rows in (truth.events, truth.vectors))
    said = {name: summary[name] for name in ("events", "vectors", "predictions", "dead_letters", "not_counted")}
    assert said == {
        "events": events,
        "vectors": vectors,
        "predictions": vectors,
        "dead_letters": len(truth.letters),
        "not_counted": dict(sorted(truth.oracle.not_counted.items())),
    }
    data = run.data
    truth.check_events(ParquetLog(data / "events", CHURN.events_log_schema, 0), data / "events")
    truth.check_predictions(ParquetLog(data / "inference", CHURN.inference_log_schema, 0), data / "inference")
    with open_streams(run.streams) as streams, open_tables(run.tables) as tables:
        truth.check_rows(tables.features(CHURN.row_schema))
        truth.check_letters(list(dead_letters.read_letters(streams)))
    assert len(pd.read_parquet(data / "events")) == events
    assert len(pd.read_parquet(data / "inference")) == vectors


def plan_of(rng: random.Random, kills: int, number: int) -> list[tuple[str, int]]:
    """Return what to kill: one of a function, so many of any, or (0) everything."""
    plan = [(FUNCTIONS[(number + one) % len(FUNCTIONS)], 1) for one in range(min(2, kills))]
    if kills >= KILLS_A_ROUND:
        plan.append(("", 3 * (number % 2)))
    while (left := kills - sum(max(1, count) for _, count in plan)) > 0:
        plan.append(("", rng.choice([count for count in (0, 1, 1, 2, 3) if count <= left])))
    rng.shuffle(plan)
    return plan


@pytest.mark.parametrize("number", range(-(-KILLS // KILLS_A_ROUND)))
def test_every_row_comes_out_once_whatever_is_killed(number: int, tmp_path: Path) -> None:
    rng = random.Random(number)
    kills = min(KILLS_A_ROUND, KILLS - number * KILLS_A_ROUND)
    run = Run(tmp_path, rng)
    done = 0
    try:
        for function, count in itertools.cycle(plan_of(rng, kills, number)):
            if rng.random() < 0.7:
                run.wait_for_lines()
            run.wait(rng.choice((0.1, 0.5, 1.0, 2.5)) * rng.random())
            if run.ended():
                run.grow()
                run.start_again()
                continue
            if count == 0:
                run.kill_all()
                done += 1
                run.look()
                run.start_again()
            else:
                done += run.kill_workers(min(count, kills - done), function)
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
    compare(run, summary)
