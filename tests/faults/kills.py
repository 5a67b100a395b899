"""`pipeline.py run` under kill -9, for the tests that kill: its processes, and what must have come out at the end.

Only processes that this module has started are killed: children of its own child, told by a handle that can't come to
mean another process.
"""

from __future__ import annotations

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

from modelstream.errors import ModelstreamError
from modelstream.logs.parquet import ParquetLog
from modelstream.source.lines import LineSplitter
from modelstream.source.sender import messages
from modelstream.streams import open_streams
from modelstream.streams.letters import read_letters
from modelstream.tables import open_tables
from modelstream.use_case.file import load_use_case
from tests.faults import inputs
from tests.faults.expected import Truth
from tests.oracle import read_values

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
KILLS = int(os.environ.get("MODELSTREAM_KILLS", "20"))
"""Of the functions over SQLite; the other tests that kill do as many, half of it, or a part that they name."""
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
    """`pipeline.py run` on a file, which may grow, into a folder: started, killed, and started again.

    It may end `gives_up` times because a server is away: at its start, or for over 30 s where everything is slow.
    """

    def __init__(
        self, folder: Path, rng: random.Random, streams: str = "", tables: str = "", *, gives_up: int = 0
    ) -> None:
        self.rng = rng
        self._gives_up = gives_up
        self.source, self.data = folder / "events.ndjson", folder / "data"
        self.streams, self.tables = streams or f"sqlite://{self.data}/streams", tables or f"sqlite://{self.data}/tables"
        self._places = [*(("--streams", streams) if streams else ()), *(("--tables", tables) if tables else ())]
        self.rate = rng.choice((2500, 6000))
        self.workers = rng.choice((1, 1, 2))
        self.lines: list[bytes] = []
        self.killed: list[str] = []
        self.gave_up = 0
        self._rows = {"events": 0, "inference": 0}
        self.grow()
        self.process = self._start()

    def grow(self) -> None:
        """Add lines to the file."""
        self.lines += part(self.rng)
        self.source.write_bytes(b"\n".join(self.lines) + b"\n")

    def start_again(self) -> None:
        """Start on the same folder, whether or not workers of the last run are about to end."""
        self._close()
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
        """Tell whether the run has ended, which must be a good end; it is started again if it gave up a server."""
        if self.process.poll() is None or self._gave_up():
            return False
        assert self.process.returncode == 0, self._words()
        return True

    def _gave_up(self) -> bool:
        if self.process.returncode != 1 or self.gave_up == self._gives_up:
            return False
        told = self.process.communicate()[1]
        assert "nothing is lost" in told or "127.0.0.1" in told, told
        self.gave_up += 1
        self.start_again()
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
        killed = [name for name, handle in self.rng.sample(chosen, min(count, len(chosen))) if kill_process(handle)]
        for _, handle in workers:
            os.close(handle)
        self.killed += killed
        return len(killed)

    def _workers(self) -> Iterator[tuple[str, int]]:
        return workers_of(self.process.pid)

    def kill_all(self) -> None:
        """Kill the run's own process: its workers end by themselves, unless they are killed with it."""
        workers = list(self._workers())
        self.process.kill()
        for _, handle in workers:
            if self.rng.random() < 0.5:
                kill_process(handle)
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
        deadline = time.monotonic() + PATIENCE
        while not self.ended():
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(self._words())
            time.sleep(0.02)
        summary: dict[str, object] = json.loads(self.process.communicate()[0])
        return summary

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def workers_of(supervisor: int) -> Iterator[tuple[str, int]]:
    """Yield the function and a handle of every process that a pipeline's own process has started."""
    for path in Path("/proc").glob("[0-9]*"):
        handle = -1
        try:
            handle = os.pidfd_open(int(path.name))
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes().split(b"\0")
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            parent, command, environment = -1, [], []
        if parent == supervisor and b"-m" in command:
            values = dict(line.decode().partition("=")[::2] for line in environment)
            yield values.get("MODELSTREAM_FUNCTION", "being started"), handle
        elif handle >= 0:
            os.close(handle)


def kill_process(handle: int) -> bool:
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
    assert summary["folder"] == {
        "events": events,
        "vectors": vectors,
        "predictions": vectors,
        "unanswered": 0,
        "dead_letters": len(truth.letters),
        "lookups": truth.oracle.lookups,
        "lookup_misses": truth.oracle.lookup_misses,
        "not_counted": dict(sorted(truth.oracle.not_counted.items())),
    }
    data = run.data
    truth.check_events(ParquetLog(data / "events", CHURN.events_log_schema, 0), data / "events")
    truth.check_predictions(ParquetLog(data / "inference", CHURN.inference_log_schema, 0), data / "inference")
    with open_streams(run.streams) as streams, open_tables(run.tables) as tables:
        truth.check_rows(tables.features(CHURN.row_schema))
        truth.check_letters(list(read_letters(streams, "dead-letters")))
    assert len(pd.read_parquet(data / "events")) == events
    assert len(pd.read_parquet(data / "inference")) == vectors
