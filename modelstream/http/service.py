"""What `pipeline.py serve` runs: the functions stay up and accept events over HTTP, until Ctrl-C."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from modelstream.base.command_line import pipeline
from modelstream.errors import ModelstreamError, UnavailableError
from modelstream.http.about import about
from modelstream.http.app import MAX_DELAY, Edge, create_app
from modelstream.http.intake import Intake
from modelstream.http.overload import disk_low, overload
from modelstream.http.server import HttpServer, bind
from modelstream.messages.identity import LOOKUP_MISSES, LOOKUPS
from modelstream.project import Project
from modelstream.replay.misses import lookup_warnings, when_empty
from modelstream.runner import rpc
from modelstream.runner.data_folder import DataFolder
from modelstream.runner.display import Display
from modelstream.runner.line import Command
from modelstream.runner.metrics import Exporter
from modelstream.runner.pipeline import Pipeline
from modelstream.runner.retention import Trimmer
from modelstream.runner.signals import on_ending
from modelstream.runner.state import FunctionState, PipelineState
from modelstream.runner.supervisor import Supervisor
from modelstream.source.enrichment import load_enrichment_files
from modelstream.use_case.declared import UseCase

COMMIT_MS = 5000.0
"""Each commit of a shard writes and syncs a part of its log: 1.6 of each log per second with 8 busy shards. An event is
in the log within 5 s, and in a Parquet file that other programs read within 90 s."""
POLL = 0.05
LOOK_EVERY = 0.25
FLUSH_EVERY = 1.0


@dataclass(frozen=True)
class ServeOptions:
    """How to serve; see `pipeline.py serve --help`."""

    port: int
    workers: int
    enrichment: Sequence[Path] = ()
    max_delay: float = MAX_DELAY


class SavedFunction(msgspec.Struct, frozen=True):
    """What a function has done since the start, and where it goes on."""

    name: str
    reads: str
    rows_in: int
    rows_out: int
    offsets: dict[int, int]
    """By shard, the offset of the last acknowledged message; -1 for none."""
    waiting: int
    """Rows left for the next start…"""
    about: bool = False
    """…which is an estimate on Kafka and V3IO."""


@dataclass(frozen=True)
class Saved:
    """What was done and saved when serving has ended."""

    accepted: int
    """Events taken by HTTP since the start."""
    complete: bool
    """Whether all work in progress was flushed; otherwise it is repeated at the next start."""
    functions: tuple[SavedFunction, ...]
    warnings: tuple[str, ...] = ()
    """What a person should look at, such as lookups that found nothing."""


def serve(project: Project, folder: DataFolder, options: ServeOptions, display: Display) -> Saved:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Raises ModelstreamError if it can't start, KeyboardInterrupt on a second signal.
    """
    with bind(options.port) as listener, Supervisor(folder.lock) as supervisor, _stopping() as stopping:
        pipeline = Pipeline(project, folder, supervisor, options.workers)
        use_case = pipeline.stores.use_case
        pipeline.prepare()
        display.say(pipeline.aside)
        load_enrichment_files(options.enrichment, use_case, pipeline.stores.tables)
        for name, table in pipeline.stores.lookups.items():
            if empty := when_empty(name, table):
                display.say(f"warning: {empty}")
        service = Service(pipeline, use_case, listener, display, options.max_delay)
        service.run(stopping)
        return service.stop()


class Service:
    """A pipeline with an HTTP server in front of it."""

    def __init__(
        self, pipeline: Pipeline, use_case: UseCase, listener: socket.socket, display: Display, max_delay: float
    ) -> None:
        folder, consumers = pipeline.folder, pipeline.consumers
        self._pipeline = pipeline
        self._display = display
        self._max_delay = max_delay
        self._flushed_at = 0.0
        self._told_misses = False
        self._exporter = Exporter()
        self._intake = Intake(lambda: pipeline.stores.again().streams, consumers[0].reads, use_case.key_path)
        edge = Edge(
            intake=self._intake,
            ask=partial(rpc.ask, pipeline.supervisor.socket(pipeline.project.server)),
            exporter=self._exporter,
            about=partial(about, use_case, folder.path),
            max_delay=max_delay,
        )
        self._server = HttpServer(create_app(edge), listener, folder.path / "logs" / "http.log")

    def run(self, stopping: threading.Event) -> None:
        """Keep everything running until it is time to stop."""
        pipeline, server = self._pipeline, self._server
        server.start()
        try:
            pipeline.start(commit_ms=COMMIT_MS)
            Trimmer(pipeline.stores.again(), pipeline.project.readers()).start()
            self._display.console.print(
                f"Listening on {server.url} (GET / lists the paths; Ctrl-C stops it)", soft_wrap=True
            )
            look_at = 0.0
            while not stopping.wait(POLL):
                self._watch()
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + LOOK_EVERY
                    self._look()
        except BaseException as error:
            self._exporter.failure = str(error)
            server.stop()
            pipeline.folder.check_there()  # if it was deleted, that is why
            raise

    def stop(self) -> Saved:
        """Answer the requests in hand, let the functions flush, and tell what is saved.

        Raises ModelstreamError if it was deleted meanwhile.
        """
        answered = self._server.stop()
        flushed = self._pipeline.stop()
        warnings: list[str] = []
        with suppress(UnavailableError):  # it ends all the same
            counters = self._pipeline.stores.counters(self._pipeline.shards)
            lookups, misses = counters.get(LOOKUPS, 0), counters.get(LOOKUP_MISSES, 0)
            warnings = lookup_warnings(self._pipeline.stores, lookups, misses)
        return Saved(self._intake.events, answered and flushed, _saved(self._pipeline), tuple(warnings))

    def _watch(self) -> None:
        supervisor = self._pipeline.supervisor
        self._pipeline.folder.check_there()
        supervisor.watch()
        self._pipeline.note_models()
        if supervisor.gives_up and self._pipeline.is_ready():
            supervisor.gives_up = False  # it has worked: what fails from now on may be mended while we wait
        if not self._server.is_alive():
            raise ModelstreamError(
                "the HTTP server has stopped unexpectedly", remedy="see logs/http.log in the data folder"
            )

    def _look(self) -> None:
        states = self._pipeline.states()
        state = PipelineState(
            time.time(), tuple(states), self._pipeline.resident(), disk_low(self._pipeline.folder.path)
        )
        self._exporter.state = state
        self._flush_if_late(state)
        refused = "; no more events are taken: " + why if (why := overload(state, self._max_delay)) else ""
        text = f"{self._server.url}   {self._intake.events:,} events taken, {_summary(states)}{refused}"
        self._display.show(states, text)
        missing = next((state.counters for state in states if state.counters.mostly_missed), None)
        if missing and not self._told_misses:
            self._told_misses = True
            self._display.say(
                f"warning: {missing.lookup_misses:,} of {missing.lookups:,} lookups found nothing → "
                f"`{pipeline('status')}` says why"
            )

    def _flush_if_late(self, state: PipelineState) -> None:
        """When it gets late, let each function commit as soon as it has nothing left to take.

        What is processed and not committed counts as waiting: without this, no events would be taken for up to 5 s
        with nothing left to process.
        """
        now = time.monotonic()
        late = any(function.delay > self._max_delay - COMMIT_MS / 1000 for function in state.functions)
        if not late or now < self._flushed_at + FLUSH_EVERY:
            return
        self._flushed_at = now
        for consumer in self._pipeline.consumers:
            for worker in consumer.workers:
                self._pipeline.supervisor.send(worker, Command("drain"))


def _summary(states: Sequence[FunctionState]) -> str:
    lag = sum(state.lag for state in states)
    problems = [f"{state.name}: {why}" for state in states for why in (state.held, state.refused) if why]
    busy = sorted({state.state for state in states} - {"idle", "working"})
    about = "about " if any(state.about for state in states) else ""
    parts = [f"{about}{lag:,} rows under way"] if lag else ["nothing under way"]
    return "; ".join(parts + busy + problems)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Give an event that a signal to end sets; the second signal raises KeyboardInterrupt."""
    stopping = threading.Event()

    def on_signal(*_: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    with on_ending(on_signal):
        yield stopping


def _saved(pipeline: Pipeline) -> tuple[SavedFunction, ...]:
    found = []
    for consumer, state in zip(pipeline.consumers, pipeline.states(), strict=True):
        offsets = pipeline.stores.streams.acked(consumer.name, consumer.reads)
        done = state.counters
        moved = (done.rows_in, done.rows_out)
        found.append(SavedFunction(consumer.name, consumer.reads, *moved, offsets, state.lag, state.about))
    return tuple(found)
