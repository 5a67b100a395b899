"""Run a command and measure all of its processes: wall time, CPU and memory."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

INTERVAL = 0.1
"""Seconds between looks at memory: 20 looks in a run of 2 s, at 1 ms each."""

FUNCTION = "MODELSTREAM_FUNCTION"
"""The variable that names a worker's function (see `modelstream.settings`)."""
TERMINAL = {"COLUMNS": "120", "LINES": "40", "TERM": "xterm-256color"}


@dataclass(frozen=True)
class Measured:
    """What a command took, and the JSON object that it printed."""

    result: dict[str, Any]
    wall: float
    """Seconds, from start to exit."""
    cpu: float
    """CPU seconds of the process and all that it started and waited for."""
    peak_mb: float
    """Highest sum of the resident memory of all processes; shared memory counts more than once."""
    first_file: float
    """Seconds until the first Parquet file stood in the folder watched; infinite if none did."""
    cpu_by_function: list[tuple[float, dict[str, float]]]
    """Looks at the CPU seconds that each function had used: (seconds since the start, {function: CPU seconds})."""

    def function_cpu(self, until: float = float("inf")) -> dict[str, float]:
        """Return the CPU seconds that each function had used at the last look before a time."""
        looks = [cpu for at, cpu in self.cpu_by_function if at <= until]
        return looks[-1] if looks else {}


class CommandError(Exception):
    """A command failed; the text has its output."""


PATIENCE = 30.0
"""Seconds that a command has to end when the benchmark is interrupted: the pipeline saves its work, in 1 to 2."""


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command as Ctrl-C does, then by force, if it still runs."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()


def measure(command: Sequence[str], *, watch: Path | None = None, limit: float = float("inf")) -> Measured:
    """Run a command to its end. Raises CommandError if it fails, or isn't done after `limit` seconds."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
        peak, first = 0.0, float("inf")
        family = Family(process.pid)
        looks = []
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                wall = time.perf_counter() - begun
                if watch is not None and first == float("inf") and any(watch.glob("[!.]*.parquet")):
                    first = wall
                if pid:
                    break
                if wall > limit:
                    raise CommandError(f"{' '.join(command)}: not done after {limit:.0f} s")
                peak = max(peak, family.look())
                looks.append((wall, family.cpu()))
                time.sleep(INTERVAL)
        except BaseException:
            end(process)
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode("utf-8", "replace").strip()
        if process.returncode:
            errors.seek(0)
            said = f"{text}\n{errors.read().decode(errors='replace')}"
            raise CommandError(f"{' '.join(command)}: exit {process.returncode}\n{said}")
    result = json.loads(text.splitlines()[-1])
    return Measured(result, wall, usage.ru_utime + usage.ru_stime, peak, first, looks)


class Family:
    """A process and all that it starts, under the names of the pipeline's functions."""

    def __init__(self, pid: int) -> None:
        self._root = pid
        self._names: dict[int, str] = {}
        self._cpu: dict[int, float] = {}

    def look(self) -> float:
        """Take the CPU seconds of every process, and return their resident memory in MB."""
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._root)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess), process.oneshot():
                    if process.pid not in self._names:
                        self._names[process.pid] = self._name(process)
                    times = process.cpu_times()
                    self._cpu[process.pid] = times.user + times.system
                    total += process.memory_info().rss
        return total / 1e6

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each function, processes that have ended included."""
        result: dict[str, float] = {}
        for pid, seconds in self._cpu.items():
            result[self._names[pid]] = result.get(self._names[pid], 0.0) + seconds
        return result

    def _name(self, process: psutil.Process) -> str:
        if "modelstream.runner.job" in process.cmdline():
            return "source"
        name: str = process.environ().get(FUNCTION, "pipeline.py")
        return name


def seconds_to_table(python: str, data: Path) -> float:
    """Return the seconds until a small run has drawn the live table on a terminal: until it names a function."""
    command = [python, "pipeline.py", "run", "--users", "20", "--events-per-user", "50", "--data", str(data)]
    ours, theirs = pty.openpty()
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | TERMINAL)
    os.close(theirs)
    shown, after = b"", float("inf")
    with contextlib.suppress(OSError):  # Linux says so when the other end of the terminal is closed; macOS gives b""
        while text := os.read(ours, 1 << 16):
            shown += text
            if after == float("inf") and b"event-handler" in shown:
                after = time.perf_counter() - begun
    process.wait()
    os.close(ours)
    return after
