"""Small jobs of the workflow. MLRun runs them in the project's image, because only pods can reach the stores.

Each takes MLRun's context, like every job. A failure ends the run with a message that says what to do. Annotations are
evaluated here: MLRun refuses a handler that has them as text.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.project import Project, load_project
from modelstream.settings import PREFIX, from_environment
from modelstream.stores import Stores
from modelstream.tables import Tables

POLL_SECONDS = 1.0
LONGEST_WAIT = 3600.0
"""Seconds that a pipeline may take to drain."""


def prepare(context: Any) -> None:
    """Make the streams, tables and columns that are missing; change nothing that exists."""
    with _opened() as (project, stores):
        _put_in_epoch(stores.tables, int(os.environ.get(PREFIX + "EPOCH", "0")))
        for info in stores.make(project, from_environment().shards):
            context.logger.info(f"stream {info.name}: {info.shards} shards, epoch {info.epoch}")


def drained(context: Any, timeout: float = LONGEST_WAIT) -> None:
    """Return when every function has acknowledged all that was sent. Raises RuntimeError after `timeout` seconds.

    During an outage of a store it waits, as the functions do.
    """
    with _opened() as (project, stores):
        deadline = time.monotonic() + timeout
        for name in project.chain.consumers:
            stream = project.reads(name)
            while waiting := _waiting(stores, name, stream):
                context.logger.info(f"{name} has {waiting} to process")
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"{name} has not processed all of {stream} within {timeout:g} s: {waiting} are waiting",
                        remedy="its log says what holds it; fix that and run the workflow again. Nothing is lost",
                    )
                time.sleep(POLL_SECONDS)


def _waiting(stores: Stores, name: str, stream: str) -> str:
    """Return in words how much a function has to process; "" for nothing."""
    try:
        rows = stores.lag(name, stream)
    except UnavailableError as error:
        return f"an unknown number of rows ({error})"
    return f"about {rows:,} rows" if rows else ""


def promote(context: Any, version: str, chosen: bool = False) -> None:
    """Let a registered version of the model serve; if nobody has `chosen` it, only if it is not worse than the one that
    serves now."""
    from modelstream.registry.registry import Registry  # onnxruntime, which the other jobs need not load
    from modelstream.training.promotion import decide, in_doubt

    with _opened() as (project, stores):
        registry = Registry.of_project(project, stores.use_case)
        found = decide(registry, str(version), stores.use_case.threshold)
        if found.doubt and not chosen:
            raise in_doubt(str(version), found)
        for told in (found.comparison.told() if found.comparison else "", found.unknown):
            if told:
                context.logger.info(told)
        registry.promote(str(version))
        context.logger.info(f"version {version} serves")


def trim(context: Any, hours: float = 168.0) -> None:
    """Delete messages that every function reading their stream has acknowledged, and that are older than `hours`.

    The rule is the same as in `serve` (`runner.retention`). Here a stream that can't be used ends the run, so that
    MLRun shows it. A stream that no function reads, such as that of dead letters, is left alone.
    """
    before = int((time.time() - hours * 3600) * 1e6)
    with _opened() as (project, stores):
        for stream, readers in project.readers().items():
            trimmed = stores.streams.trim(stream, readers, before)
            context.logger.info(f"stream {stream}: {trimmed} messages are deleted")


def drift(context: Any, since: str = "24h") -> None:
    """Compare what was served since then (a time, or how long ago) with what the model was made of, and tell MLRun."""
    from modelstream.cluster.drift_job import report  # plots, which the other jobs need not load

    with _opened() as (project, stores):
        report(context, project, stores, since)


def remove(context: Any) -> None:
    """Delete the streams, then tables, then logs. Registered models stay. All functions must be gone before."""
    with _opened() as (project, stores):
        for what in stores.remove(project):
            context.logger.info(f"{what} is deleted")


@contextmanager
def _opened() -> Iterator[tuple[Project, Stores]]:
    """Give the project, and the stores that this job's settings name.

    A run ends with message and remedy in one line: MLRun shows only an exception's text.
    """
    try:
        project = load_project(os.environ.get(PREFIX + "PROJECT", "project.yaml"))
        with Stores.of(from_environment()) as stores:
            yield project, stores
    except ModelstreamError as error:
        raise RuntimeError(f"{error}; {error.remedy}" if error.remedy else str(error)) from error


def _put_in_epoch(tables: Tables, wanted: int) -> None:
    """Raise the tables' epoch if the cluster's file asks for the next one. Raises ConfigurationError for any other."""
    epoch = tables.epoch()
    if epoch + 1 == wanted:
        epoch = tables.raise_epoch()
    if epoch != wanted:
        raise ConfigurationError(
            f"the tables are in epoch {epoch}, but the cluster's file says {wanted}",
            remedy=f"write `epoch: {epoch}`, or {epoch + 1} to make the streams anew",
        )
