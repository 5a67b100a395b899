"""The pipeline on one machine: the functions of project.yaml as processes over a data folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.process_environment import ONE_THREAD, QUIET_MLRUN
from modelstream.errors import ModelstreamError, UnavailableError
from modelstream.project import Project
from modelstream.registry.registry import Registry
from modelstream.runner.arrivals import Arrivals
from modelstream.runner.data_folder import DataFolder, settings_in
from modelstream.runner.line import Command, Report
from modelstream.runner.served import ServedModels
from modelstream.runner.state import FunctionState
from modelstream.runner.supervisor import FunctionFailedError, Process, Supervisor
from modelstream.runner.worker import Assignment
from modelstream.stages.counters import Counters
from modelstream.stores import Stores

HELD_LIMIT = 30.0
"""Seconds that a `run` waits while a function is held (a full disk, a service that a hook asks) before it ends with an
error. What waiting can't mend, such as a mistake in a hook, ends it at once."""
DRAIN_EVERY = 0.1
PROCESS = {**ONE_THREAD, **QUIET_MLRUN, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
"""Variables of every function's process, besides its settings."""


@dataclass(frozen=True)
class Consumer:
    """A function between streams, and its workers."""

    name: str
    reads: str
    workers: tuple[str, ...]


class Pipeline:
    """The running functions. Call `watch` repeatedly; `finish` says when everything is processed."""

    def __init__(self, project: Project, folder: DataFolder, supervisor: Supervisor, workers: int = 1) -> None:
        self.project = project
        self.folder = folder
        self.supervisor = supervisor
        self.stores = Stores.of_project(project, folder.urls)
        self.shards = folder.marker.shards
        self.workers = min(workers, self.shards)
        self.source: str = ""
        self._lag_since: dict[str, float] = {}
        self._arrivals: dict[str, Arrivals] = {}
        self._drained_at: dict[str, float] = {}
        self._held_since: dict[str, float] = {}
        self._served = ServedModels(folder.path)

    @cached_property
    def consumers(self) -> tuple[Consumer, ...]:
        """The functions between streams, from the first to the last."""
        return tuple(
            Consumer(name, self.project.reads(name), self._workers_of(name)) for name in self.project.chain.consumers
        )

    def _workers_of(self, function: str) -> tuple[str, ...]:
        return (function,) if self.workers == 1 else tuple(f"{function}/{number}" for number in range(self.workers))

    def prepare(self) -> None:
        """Make the streams and tables that are not there yet."""
        for _ in self.stores.make(self.project, self.shards):
            pass

    @property
    def aside(self) -> str:
        """Why the model that `project.yaml` names is not used, if it is another use case's and none is promoted."""
        registry = Registry.of_project(self.project, self.stores.use_case)
        try:
            return registry.aside if registry.aside and registry.current() is None else ""
        except ModelstreamError:  # the model server tells it, and waits for an outage to end
            return ""

    def start(self, *, commit_ms: float) -> None:
        """Start the workers of every function."""
        server = self.project.server  # the first to start: importing MLRun takes it the longest
        for consumer in sorted(self.consumers, key=lambda one: one.name != server):
            for number, name in enumerate(consumer.workers):
                self.supervisor.add(self._process(consumer, number, name, commit_ms))

    def _process(self, consumer: Consumer, number: int, name: str, commit_ms: float) -> Process:
        function = self.project.functions[consumer.name]
        serving = function.kind == "serving"
        assignment = Assignment(
            notebook=str(self.project.notebook(consumer.name)),
            serving=serving,
            shards=tuple(range(number, self.shards, self.workers)),
            worker=number,
            socket=str(self.supervisor.socket(consumer.name)) if serving and number == 0 else "",
        )
        environment = self.environment(consumer.name, commit_ms=commit_ms)
        if serving:
            environment["SERVING_SPEC_ENV"] = self.project.serving_spec(consumer.name)
        command = ("-m", "modelstream.runner.worker", msgspec.json.encode(assignment).decode())
        log = self.folder.path / "logs" / f"{name.replace('/', '-')}.log"
        return Process(name, command, environment, log)

    def environment(self, function: str, **changed: float) -> dict[str, str]:
        """Return the environment of a function's process, with some settings changed."""
        settings = settings_in(self.folder.path, self.folder.marker, self.project, function)
        return {**msgspec.structs.replace(settings, **changed).environment(), **PROCESS}

    def start_source(self, parameters: dict[str, Any]) -> None:
        """Start the job that sends events: the data generator, or a reader. It waits for `go`."""
        name = self.source = self.project.chain.source
        job = msgspec.json.encode(
            {
                "notebook": str(self.project.notebook(name)),
                "handler": self.project.functions[name].handler,
                "parameters": parameters,
            }
        )
        command = ("-m", "modelstream.runner.job", job.decode())
        log = self.folder.path / "logs" / f"{name}.log"
        self.supervisor.add(Process(name, command, self.environment(name), log, once=True))

    def is_ready(self) -> bool:
        """Tell whether every function has been set up and takes messages."""
        return all(process.report.ready or process.ended for process in self.supervisor.processes.values())

    def watch(self) -> None:
        """Restart processes that died. Raises FunctionFailedError if a function can't continue, and GoneError."""
        self.folder.check_there()
        self.supervisor.watch()
        self.note_models()
        now = time.monotonic()
        for name, process in self.supervisor.processes.items():
            if not process.report.held:
                self._held_since.pop(name, None)
            elif process.report.hopeless or now - self._held_since.setdefault(name, now) > HELD_LIMIT:
                raise FunctionFailedError(
                    f"{name} can't continue: {process.report.held}",
                    remedy="nothing is lost: fix the cause and run the same command again",
                )

    def stop(self) -> bool:
        """Let all functions save what they have in hand, and end; return whether all did.

        Raises GoneError or FunctionFailedError if what they saved was deleted.
        """
        held = any(process.report.held for process in self.supervisor.processes.values())
        stopped = self.supervisor.stop()
        self.folder.check_there()
        self.supervisor.check_saves()
        return stopped and not held

    def note_models(self) -> None:
        """Write down, for `status`, which version of the model each worker serves."""
        self._served.note(self.supervisor.processes.values())

    def lag(self, consumer: Consumer) -> int:
        """Return how many rows of its stream a function has not acknowledged; at least 1 while that is not known."""
        try:
            return self.stores.lag(consumer.name, consumer.reads)
        except UnavailableError:
            return 1

    def finish(self) -> bool:
        """Once the source has sent everything, drain the functions one after the other; return whether all is
        processed.

        The first function with unacknowledged rows is asked to flush at once, rather than at its next commit.
        """
        if self.source and not self.supervisor.processes[self.source].ended:
            return False
        for consumer in self.consumers:
            if self.lag(consumer):
                now = time.monotonic()
                if now - self._drained_at.get(consumer.name, 0.0) >= DRAIN_EVERY:
                    self._drained_at[consumer.name] = now
                    for name in consumer.workers:
                        self.supervisor.send(name, Command("drain"))
                return False
        return True

    def states(self) -> list[FunctionState]:
        """Return the state of every function, as of now."""
        shown = []
        if self.source:
            shown.append(self._state(self.source, (self.source,), 0, 0.0))
        shown += [
            self._state(consumer.name, consumer.workers, *self._lag_and_delay(consumer)) for consumer in self.consumers
        ]
        return shown

    def _lag_and_delay(self, consumer: Consumer) -> tuple[int, float]:
        """Return a consumer's lag, as `lag` does, and how many seconds the oldest of it has been waiting."""
        arrivals = self._arrivals.setdefault(consumer.name, Arrivals())
        try:
            waiting = self.stores.waiting(consumer.name, consumer.reads)
            return self.stores.rows(consumer.reads, waiting), arrivals.look(time.monotonic(), waiting)
        except UnavailableError:
            return 1, 0.0

    def _state(self, name: str, workers: Sequence[str], lag: int, delay: float) -> FunctionState:
        processes = [self.supervisor.processes[worker] for worker in workers]
        models = [process.report.model for process in processes if process.report.model]
        if not lag:
            self._lag_since.pop(name, None)
        return FunctionState(
            name=name,
            state=self._word(name, processes, lag),
            counters=sum((process.counters() for process in processes), Counters()),
            restarts=sum(process.restarts for process in processes),
            lag=lag,
            about=bool(lag) and not self.stores.streams.counts_rows,
            lag_since=self._lag_since.setdefault(name, time.time()) if lag else 0.0,
            delay=delay,
            held=_held(processes).held,
            held_logged=_held(processes).held_logged,
            models=tuple(sorted({model.version for model in models if model.version})),
            refused=next((model.refused for model in models if model.refused), ""),
        )

    def _word(self, name: str, processes: Sequence[Process], lag: int) -> str:
        """Return what a function is doing, in one word."""
        if all(process.ended for process in processes):
            return "done"
        if _held(processes).held:
            return "waiting"
        if any(process.popen is not None and process.popen.poll() is not None for process in processes):
            return "restarting"
        if not all(process.report.ready for process in processes):
            return "starting"
        return "working" if lag or (name == self.source and not processes[0].ended) else "idle"

    def resident(self) -> dict[str, int]:
        """Return the memory of each process, this one included, in bytes (resident sets; shared pages count twice)."""
        pids = {
            process.name: process.popen.pid
            for process in self.supervisor.processes.values()
            if process.popen is not None
        }
        return {"supervisor": _resident("self")} | {name: _resident(pid) for name, pid in pids.items()}

    def resident_bytes(self) -> int:
        """Return the memory of all processes together."""
        return sum(self.resident().values())


def _held(processes: Sequence[Process]) -> Report:
    """Return the report of a function's worker that is held, an empty one if none is."""
    return next((process.report for process in processes if process.report.held), Report())


def _resident(pid: int | str) -> int:
    if sys.platform != "linux":
        return 0
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0
