"""The supervisor: starts a process for every worker, restarts those that die, and ends them all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from modelstream.base.durable import outages
from modelstream.base.process_environment import on_this_machine
from modelstream.errors import ModelstreamError
from modelstream.runner.line import DESCRIPTOR, OUTAGE, Command, Line, Report
from modelstream.runner.rpc import socket_folder
from modelstream.settings import without_settings
from modelstream.stages.counters import Counters

FIRST_BACKOFF, LAST_BACKOFF = 0.2, 5.0
GIVE_UP_AFTER = 5
"""A `run` gives up after this many deaths of a worker in a row, without a commit in between."""
STOP_GRACE = 4.0
"""Seconds in which all workers may flush and end. After that they are killed; nothing is lost."""


@dataclass
class Process:
    """A worker's process, as the supervisor sees it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    once: bool = False
    """Whether it is a job: exit status 0 then means that it is done, not that it died."""
    report: Report = field(default_factory=Report)
    before: Counters = field(default_factory=Counters)
    """The counters of its earlier processes."""
    restarts: int = 0
    deaths: int = 0
    """Deaths in a row without progress."""
    start_again_at: float = 0.0
    popen: subprocess.Popen[bytes] | None = None
    line: Line | None = None
    listener: threading.Thread | None = None
    gone: bool = False
    """It was told to go, so if it is restarted it starts work at once."""
    ended: bool = False

    def counters(self) -> Counters:
        """Return the counters of all of its processes, from the first start on."""
        return self.before + self.report.counters

    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self.popen is not None and self.popen.poll() is None

    def last_words(self, limit: int = 12) -> str:
        """Return the last lines of the log."""
        try:
            lines = self.log.read_text("utf-8", "replace").rstrip().splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-limit:])


class FunctionFailedError(ModelstreamError):
    """A function can't be kept running."""


class Supervisor:
    """Keeps processes running. Use it as a context: at its end no process is left."""

    def __init__(self, lock: int) -> None:
        self.processes: dict[str, Process] = {}
        self.gives_up = True
        """Whether to give up when a function can't be kept running; a service that has started never gives up."""
        self._lock = lock
        self._sockets: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for process in self.processes.values():
            if process.listener is not None:
                process.listener.join()  # it ends with the process, whose end of the line is closed
            if process.line is not None:
                process.line.close()
        if self._sockets is not None:
            self._sockets.cleanup()

    def socket(self, name: str) -> Path:
        """Return the path of a worker's socket. Raises ConfigurationError if no temporary folder has a short path."""
        if self._sockets is None:
            self._sockets = socket_folder(name)
        return Path(self._sockets.name) / name

    def add(self, process: Process) -> None:
        """Start a process and keep it running."""
        self.processes[process.name] = process
        self._start(process)

    def _start(self, process: Process) -> None:
        line, theirs = Line.pair()
        try:
            with outages(process.log):
                process.log.parent.mkdir(exist_ok=True)  # a data folder that was deleted must not come back
                log = process.log.open("ab")
            with log:
                process.popen = self._spawn(process, theirs.fileno(), log)
        except BaseException:
            line.close()
            raise
        finally:
            theirs.close()
        if process.line is not None:
            process.line.close()
        process.line = line
        process.report = Report(
            held=process.report.held, held_logged=process.report.held_logged
        )  # until it says otherwise
        process.listener = threading.Thread(target=self._listen, args=(process, line), name=process.name, daemon=True)
        process.listener.start()
        if process.gone:
            line.send(Command("go"))

    def _spawn(self, process: Process, control: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *process.command],
            env={**on_this_machine(without_settings(os.environ)), **process.environment, DESCRIPTOR: str(control)},
            pass_fds=(control, self._lock),
            stdin=None if process.once else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def _listen(self, process: Process, line: Line) -> None:
        for report in line.reports():
            before, now, old = process.report.counters, report.counters, process.report
            if now.commits > before.commits or (process.once and now.rows_out > before.rows_out):
                process.deaths = 0
            if old.held and not (report.ready or report.held or report.error):  # a new life, still starting
                report = msgspec.structs.replace(report, held=old.held, held_logged=old.held_logged)
            process.report = report

    def watch(self) -> None:
        """Start again what has died and has waited long enough. Raises FunctionFailedError."""
        self.check_saves()
        now = time.monotonic()
        for process in self.processes.values():
            if process.ended or process.popen is None or process.popen.poll() is None:
                continue
            status = process.popen.returncode
            if process.once and status == 0:
                process.ended = True
            elif process.report.error and self.gives_up:
                failed = FunctionFailedError(process.report.error, remedy=process.report.remedy)
                failed.exit_status = process.report.exit_status
                raise failed
            elif process.start_again_at == 0.0:
                process.deaths += status != OUTAGE  # how long a run waits for an outage to end is not decided here
                self._note_death(process, status)
                wait = min(FIRST_BACKOFF * 2 ** min(max(process.deaths - 1, 0), 10), LAST_BACKOFF)
                process.start_again_at = now + wait
            elif now >= process.start_again_at:
                process.start_again_at = 0.0
                process.restarts += 1
                self._start(process)

    def check_saves(self) -> None:
        """Raise FunctionFailedError if a process can't save any more what it has in hand."""
        for process in self.processes.values():
            if process.report.gone:
                raise FunctionFailedError(process.report.error, remedy=process.report.remedy)

    def _note_death(self, process: Process, status: int) -> None:
        ended = process.report
        process.before = process.counters()
        process.report = Report(held=ended.error or ended.held, held_logged="" if ended.error else ended.held_logged)
        if process.deaths > GIVE_UP_AFTER and self.gives_up:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise FunctionFailedError(
                f"{process.name} has died {process.deaths} times in a row ({how}); the end of its log "
                f"{process.log}:\n{process.last_words()}",
                remedy="fix the cause and run the same command again: it continues where it stopped",
            )

    def send(self, name: str, command: Command) -> None:
        """Send a command to a worker."""
        process = self.processes[name]
        process.gone |= command.do == "go"
        if process.line is not None:
            process.line.send(command)

    def stop(self) -> bool:
        """Ask all workers to flush and end. Returns whether all did in time; the others are killed."""
        for name, process in self.processes.items():
            if process.report.ready:
                self.send(name, Command("stop"))
            elif process.popen is not None:
                process.popen.kill()  # it is importing, for seconds, and has nothing in hand
        deadline = time.monotonic() + STOP_GRACE
        for process in self.processes.values():
            if process.popen is not None:
                try:
                    process.popen.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self.kill()
                    return False
            if process.listener is not None:
                process.listener.join(0.5)  # its last report
        return True

    def kill(self) -> None:
        """End all processes at once."""
        for process in self.processes.values():
            if process.is_alive() and process.popen is not None:
                process.popen.kill()
        for process in self.processes.values():
            if process.popen is not None:
                process.popen.wait()
