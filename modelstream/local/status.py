"""`pipeline.py status`: what a data folder holds, how far its functions are, and whether a pipeline runs on it."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from modelstream import dead_letters
from modelstream.local.show import console
from modelstream.local.view import View
from modelstream.log_files import Place


class StreamStatus(msgspec.Struct, frozen=True):
    """A stream: messages ever appended, by shard and in all, and those that are still kept."""

    appended: list[int]
    messages: int
    kept: int


class LogStatus(msgspec.Struct, frozen=True):
    """A Parquet log."""

    rows: int
    files: int


class Status(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    data: str
    use_case: str
    shards: int
    running: bool
    process: int | None
    """The supervisor's process id, where one runs."""
    streams: dict[str, StreamStatus]
    lag: dict[str, int]
    """Messages that each function has not acknowledged."""
    tables: dict[str, int]
    """Rows of each table."""
    logs: dict[str, LogStatus]
    dead_letters: int
    vectors: int
    not_counted: dict[str, int]
    inputs: list[dict[str, Any]]


def status(view: View) -> Status:
    """Return the state of a data folder, as far as it is durable."""
    holder = view.holder()
    params = view.project.params
    counters = _counters(view)
    logs = {name: LogStatus(view.log(name).count(), _files(view, name)) for name in params.logs}
    return Status(
        data=str(view.path),
        use_case=view.use_case.name,
        shards=view.marker.shards,
        running=holder is not None,
        process=holder,
        streams={name: _stream(view, name) for name in params.streams},
        lag=view.measure_lag(),
        tables={
            name: (view.features if name == "features" else view.tables.lookup(name)).count() for name in params.tables
        },
        logs=logs,
        dead_letters=sum(1 for _ in dead_letters.read_letters(view.streams)),
        vectors=counters.pop("vectors", 0),
        not_counted=counters,
        inputs=[
            {"origin": one.origin, "kind": one.kind, "lines": one.lines, "bytes": one.bytes, "finished": one.finished}
            for one in view.tables.inputs().all()
        ],
    )


def show(found: Status) -> None:
    """Print a state for a person."""
    running = f"running (process {found.process})" if found.running else "not running"
    head = Text(f"{found.data}: use case {found.use_case}, {found.shards} shards, {running}")
    streams = _table("stream", "messages", "kept", "by shard", "read by (waiting)")
    for name, one in found.streams.items():
        readers = ", ".join(f"{function} ({lag:,})" for function, lag in found.lag.items() if _reads(name, function))
        streams.add_row(name, f"{one.messages:,}", f"{one.kept:,}", " ".join(map(str, one.appended)), readers)
    tables = _table("table", "rows")
    for name, rows in found.tables.items():
        tables.add_row(name, f"{rows:,}")
    logs = _table("log", "rows", "files")
    for name, log in found.logs.items():
        logs.add_row(name, f"{log.rows:,}", f"{log.files:,}")
    inputs = _table("input", "lines", "state")
    for one in found.inputs:
        inputs.add_row(one["origin"], f"{one['lines']:,}", "finished" if one["finished"] else "not finished")
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in found.not_counted.items())
    tail = f"{found.vectors:,} feature vectors, {found.dead_letters:,} dead letters; not counted: {reasons or 'none'}"
    console().print(Group(head, "", streams, "", tables, "", logs, *(["", inputs] if found.inputs else []), "", tail))
