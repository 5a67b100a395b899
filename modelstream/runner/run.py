"""What `pipeline.py run` runs: processes an input to its end with the whole pipeline, and sums up the results."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from modelstream.errors import ModelstreamError, UnavailableError
from modelstream.messages.codec import decode
from modelstream.project import Project
from modelstream.replay.misses import lookup_warnings
from modelstream.runner.data_folder import DataFolder
from modelstream.runner.display import Display
from modelstream.runner.line import Command
from modelstream.runner.pipeline import HELD_LIMIT, Pipeline
from modelstream.runner.progress import Progress
from modelstream.runner.signals import on_ending
from modelstream.runner.summary import Before, Summary, Totals, reasons_since, totals_of, versions_since
from modelstream.runner.supervisor import Supervisor
from modelstream.stores import Stores
from modelstream.streams import Streams
from modelstream.use_case.columns import INGESTED_AT

T = TypeVar("T")

POLL = 0.02
SHOW_EVERY = 0.12
COMMIT_MS = 2000.0
"""A run commits every two seconds, so a crash makes it repeat at most that much."""


def _warnings(stores: Stores, did: Totals) -> list[str]:
    """Return what a person should look at: lookups that found nothing, foreign files in the logs."""
    foreign = [
        f"{path} is not the pipeline's, and is read with the log's files by pandas and others"
        for path in stores.log_strangers()
    ]
    return [*lookup_warnings(stores, did.lookups, did.lookup_misses), *foreign]


@dataclass(frozen=True)
class RunOptions:
    """What to run; see `pipeline.py run --help`."""

    source: dict[str, Any]
    """Parameters of the data generator's `main`."""
    workers: int
    rate: float | None


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C: the work in progress was saved (or not, if `saved` is false)."""

    def __init__(self, saved: bool) -> None:
        super().__init__()
        self.saved = saved


def run(project: Project, folder: DataFolder, options: RunOptions, display: Display) -> Summary:
    """Run the pipeline until every event has reached the end.

    Raises ModelstreamError if it can't continue, and Interrupted on Ctrl-C, SIGTERM and SIGHUP.
    """
    begun = time.monotonic()
    with Supervisor(folder.lock) as supervisor, on_ending(signal.default_int_handler):
        pipeline = Pipeline(project, folder, supervisor, options.workers)
        try:
            pipeline.prepare()
            display.say(pipeline.aside)
            before = Before.of(pipeline.stores, project, pipeline.shards)
            pipeline.start(commit_ms=COMMIT_MS)
            pipeline.start_source(options.source)
            watcher = _Watcher(pipeline, display)
            while not pipeline.is_ready():
                watcher.tick("starting")
            ready = time.monotonic()
            supervisor.send(pipeline.source, Command("go"))
            opened = time.time()
            while not pipeline.finish():
                watcher.tick("")
            seconds = time.monotonic() - ready
            watcher.tick("done", force=True)
            source = supervisor.processes[pipeline.source]
            handled = source.counters().rows_out
            models = [process.report.model for process in supervisor.processes.values() if process.report.model]
            pipeline.stop()
        except KeyboardInterrupt:
            raise Interrupted(_save(pipeline)) from None
        except ModelstreamError:
            folder.check_there()  # if it was deleted, that is why
            raise
        stores, predictions = pipeline.stores, project.predictions
        told = source.report.result
        held = patiently(lambda: totals_of(stores, pipeline.shards))
        did = held - before.totals
        delay = patiently(lambda: delays(stores.streams, predictions, opened)) if options.rate else None
        return Summary(
            **msgspec.structs.asdict(did),
            dead_letter_reasons=patiently(lambda: reasons_since(stores, before)) if did.dead_letters else {},
            predictions_by_version=patiently(lambda: versions_since(stores, before)) if did.predictions else {},
            unfinished_line=int(told.get("unfinished", 0)),
            input_is_empty=not told.get("read", 0) or not (held.events or held.dead_letters),
            folder=held,
            startup_seconds=round(ready - begun, 3),
            seconds=round(seconds, 3),
            events_per_second=round(handled / seconds, 1),
            delay_ms=delay if delay is not None else msgspec.UNSET,
            peak_rss_mb=round(watcher.peak / 1e6, 1),
            model_version=", ".join(sorted({model.version for model in models if model.version})),
            data=str(folder.path),
            logs=folder.urls.logs,
            warnings=patiently(lambda: _warnings(stores, did)),
        )


def delays(streams: Streams, name: str, since: float) -> dict[str, float]:
    """Return the median and the 99th percentile of the time from an event's append to its stored prediction, in ms.

    Counts events that were appended after `since` (seconds). A prediction is stored when its message is durable in the
    stream, because from then on it can be acted on.
    """
    found: list[npt.NDArray[np.int64]] = []
    for shard in range(streams.describe(name).shards):
        offset, end = streams.range(name, shard)
        while offset < end:
            for message in streams.read(name, shard, offset, 256, 8_000_000):
                offset = message.offset + 1
                if message.appended_at >= since * 1e6:
                    ingested = decode(message.body).batch.column(INGESTED_AT).cast("int64").to_numpy()
                    found.append(message.appended_at - ingested[ingested >= since * 1e6])
    late = np.concatenate([np.empty(0, np.int64), *found])
    if not len(late):  # all that was predicted had been appended before
        return {}
    p50, p99 = np.percentile(late / 1000, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}


def patiently(look: Callable[[], T]) -> T:
    """Read the results, and try again if a store is unavailable: all the work is done by now."""
    deadline = time.monotonic() + HELD_LIMIT
    while True:
        try:
            return look()
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _save(pipeline: Pipeline) -> bool:
    """Let the source finish its work in progress, then flush everything; return whether that succeeded."""
    try:
        return pipeline.stop()
    except KeyboardInterrupt:
        return False


class _Watcher:
    """Keeps an eye on the pipeline while waiting."""

    def __init__(self, pipeline: Pipeline, display: Display) -> None:
        self._pipeline = pipeline
        self._display = display
        self._show_at = 0.0
        self._progress = Progress()
        self.peak = 0

    def tick(self, what: str, *, force: bool = False) -> None:
        self._pipeline.watch()
        now = time.monotonic()
        if force or now >= self._show_at:
            self._show_at = now + SHOW_EVERY
            self.peak = max(self.peak, self._pipeline.resident_bytes())
            states = self._pipeline.states()
            self._display.show(states, what or self._progress.text(states, self._expected(), now))
        time.sleep(POLL)

    def _expected(self) -> int:
        return self._pipeline.supervisor.processes[self._pipeline.source].report.total
