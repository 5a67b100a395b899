"""Run a command and measure all of its processes: wall time, CPU and memory."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

INTERVAL = 0.1
"""Seconds between looks at memory: 20 looks in a run of 2 s, at 1 ms each."""

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
    """Highest sum of the resident memory of all processes: what they share counts more than once."""
    first_file: float
    """Seconds until the first Parquet file stood in the folder watched; infinite if none did."""


def measure(command: Sequence[str], *, watch: Path | None = None) -> Measured:
    """Run a command to its end. Exits with what it said when it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
        peak, first = 0.0, float("inf")
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            wall = time.perf_counter() - begun
            if watch is not None and first == float("inf") and any(watch.glob("[!.]*.parquet")):
                first = wall
            if pid:
                break
            peak = max(peak, _resident_mb(process.pid))
            time.sleep(INTERVAL)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode("utf-8", "replace").strip()
        if process.returncode:
            errors.seek(0)
            sys.exit(
                f"{' '.join(command)}: exit {process.returncode}\n{text}\n{errors.read().decode(errors='replace')}"
            )
    result = json.loads(text.splitlines()[-1])
    return Measured(result, wall, usage.ru_utime + usage.ru_stime, peak, first)


def _resident_mb(pid: int) -> float:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                total += process.memory_info().rss
    return total / 1e6


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
