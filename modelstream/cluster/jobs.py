"""Small jobs of the workflow, run by MLRun in the project's image: they reach what only pods reach.

Each takes MLRun's context, like every job. What goes wrong ends the run with a message that says what to do.
Annotations are evaluated here: MLRun refuses a handler that has them as text.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelstream import project as projects
from modelstream.cluster.functions import consumers
from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.logs.parquet import open_log
from modelstream.settings import PREFIX, Settings, from_environment
from modelstream.streams import Streams, open_streams
from modelstream.tables import Tables, open_tables
from modelstream.use_case.declared import load as load_use_case

POLL_SECONDS = 1.0
LONGEST_WAIT = 3600.0
"""Seconds that a pipeline may take to drain."""


def prepare(context: Any) -> None:
    """Make the streams, tables and their columns that are not there yet; nothing that is there is changed."""
    settings, project = _settings(), _project()
    with _told(), open_streams(settings.streams) as streams, open_tables(settings.tables) as tables:
        epoch = _in_epoch(tables, int(os.environ.get(PREFIX + "EPOCH", "0")))
        for name in project.params.streams:
            info = streams.create(name, settings.shards, epoch)
            context.logger.info(f"stream {info.name}: {info.shards} shards, epoch {info.epoch}")
        use_case = load_use_case(settings.use_case)
        tables.features(use_case.row_schema)
        if use_case.lookup is not None:
            tables.lookup(use_case.lookup.table)
        tables.inputs()


def drained(context: Any, timeout: float = LONGEST_WAIT) -> None:
    """Return when every function has acknowledged all that was sent. Raises RuntimeError after `timeout` seconds."""
    settings, project = _settings(), _project()
    with _told(), open_streams(settings.streams) as streams:
        deadline = time.monotonic() + timeout
        for name in consumers(project):
            stream = project.params.wiring[name].reads
            while waiting := lag(streams, name, stream):
                context.logger.info(f"{name} has {waiting} messages before it")
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"{name} has not drained in {timeout:g} s: {waiting} messages wait in {stream}",
                        remedy="look at its log for what holds it; then run the workflow again, nothing is lost",
                    )
                time.sleep(POLL_SECONDS)


def lag(streams: Streams, function: str, stream: str) -> int:
    """Return how many messages of a stream a function has not acknowledged."""
    acked = streams.acked(function, stream)
    ends = {shard: streams.range(stream, shard)[1] for shard in acked}
    return sum(max(0, ends[shard] - max(offset, streams.first_offset - 1) - 1) for shard, offset in acked.items())


def promote(context: Any, version: str) -> None:
    """Let a registered version of the model serve."""
    from modelstream.registry.registry import of_project  # onnxruntime, which the other jobs need not load

    with _told():
        of_project(_project(), load_use_case(_settings().use_case)).promote(str(version))
        context.logger.info(f"version {version} serves")


def trim(context: Any, hours: float = 168.0) -> None:
    """Delete messages that every function reading their stream has acknowledged, and that are older than `hours`.

    The rule is that of `serve` (`local.retention`); here a stream that can't be used ends the run, and MLRun shows it.
    A stream that no function reads, such as that of dead letters, is left alone.
    """
    settings, project = _settings(), _project()
    before = int((time.time() - hours * 3600) * 1e6)
    with _told(), open_streams(settings.streams) as streams:
        for name in consumers(project):
            stream = project.params.wiring[name].reads
            readers = [each for each, wire in project.params.wiring.items() if wire.reads == stream]
            trimmed = streams.trim(stream, readers, before)
            context.logger.info(f"stream {stream}: {trimmed} messages are deleted")


def remove(context: Any) -> None:
    """Delete the streams, then tables, then logs. Registered models stay. All functions must be gone before."""
    settings, project = _settings(), _project()
    with _told():
        with open_streams(settings.streams) as streams:
            for name in project.params.streams:
                streams.remove(name)
                context.logger.info(f"stream {name} is deleted")
        with open_tables(settings.tables) as tables:
            tables.remove()
            context.logger.info(f"tables at {settings.tables} are deleted")
        for name in project.params.logs:
            log = open_log(settings.logs, name, pa.schema([]), 0)
            log.remove()
            context.logger.info(f"log {log.place()} is deleted")


def _settings() -> Settings:
    return from_environment({PREFIX + "READS": "", **os.environ})


def _project() -> projects.Project:
    return projects.load(Path(os.environ.get(PREFIX + "PROJECT", "project.yaml")))


def _in_epoch(tables: Tables, wanted: int) -> int:
    """Return the tables' epoch, raised if the cluster's file asks for the next one."""
    epoch = tables.epoch()
    if epoch + 1 == wanted:
        epoch = tables.raise_epoch()
    if epoch != wanted:
        raise ConfigurationError(
            f"the tables are in epoch {epoch}, and the cluster's file asks for {wanted}",
            remedy=f"write `epoch: {epoch}`, or {epoch + 1} to make the streams anew",
        )
    return epoch


@contextmanager
def _told() -> Iterator[None]:
    """Let a run end with the message and the remedy in one line: MLRun shows only an exception's text."""
    try:
        yield
    except ModelstreamError as error:
        raise RuntimeError(f"{error}; {error.remedy}" if error.remedy else str(error)) from error
