"""`pipeline.py status`: what a data folder holds, how far its functions are, and whether a pipeline runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelstream.base.words import counted
from modelstream.commands.endings import looking
from modelstream.commands.options import DATA, AsJson, Data
from modelstream.errors import ModelstreamError

if TYPE_CHECKING:
    from modelstream.commands.view import View
    from modelstream.settings import StoreUrls
    from modelstream.stages.counters import ServedModel
    from modelstream.streams import Streams
    from modelstream.use_case.declared import UseCase


def status(as_json: AsJson = False, data: Data = DATA) -> None:
    """Show what the data folder holds, how far each function is, and which model serves.

    It also works while a pipeline runs, and says whether one does.

    Example: python pipeline.py status --data data-mine
    """
    from modelstream.commands.output import print_json

    with looking(data) as view:
        found = status_of(view)
        if as_json:
            print_json(found)
        else:
            print_status(found, view.use_case)


class StreamStatus(msgspec.Struct, frozen=True):
    """A stream: the number of messages ever appended, in total and by shard, and the number still kept."""

    messages: int
    by_shard: list[int]
    kept: int


class FunctionStatus(msgspec.Struct, frozen=True):
    """A function between streams, and the rows that it has not acknowledged."""

    reads: str
    lag: int
    about: bool = False
    """Whether the lag is an estimate."""


class LogStatus(msgspec.Struct, frozen=True):
    """A Parquet log."""

    rows: int
    files: int


class InputStatus(msgspec.Struct, frozen=True):
    """An input that was taken in, and how far."""

    origin: str
    kind: str
    lines: int
    bytes: int
    finished: bool


class ModelStatus(msgspec.Struct, frozen=True):
    """The model: the version that should serve, and the versions that do."""

    name: str
    promoted: str
    """The version that is promoted in the registry; "" for none."""
    shipped: str
    """The version that comes with the project, and serves while none is promoted; "" for none."""
    serving: dict[str, ServedModel]
    """What each worker of the model server serves; empty when none runs."""
    problem: str = ""
    """Why the registry can't be read, if so."""
    aside: str = ""
    """Why the model that `project.yaml` names is not used, if it is another use case's."""


class Status(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    data: str
    urls: StoreUrls = msgspec.field(name="places")
    """URLs of streams, tables and logs."""
    use_case: str
    shards: int
    running: bool
    process: int | None
    """The process of the supervisor that runs on the folder."""
    streams: dict[str, StreamStatus]
    functions: dict[str, FunctionStatus]
    tables: dict[str, int]
    """Rows of each table."""
    logs: dict[str, LogStatus]
    vectors: int
    lookups: int
    """Values looked up for users who registered and for events, and how often none was found."""
    lookup_misses: int
    not_counted: dict[str, int]
    dead_letters: int
    inputs: list[InputStatus]
    model: ModelStatus
    warnings: list[str] = []
    """What a person should look at, such as lookups that found nothing."""


def status_of(view: View) -> Status:
    """Return the state of a data folder, as far as it is durable."""
    from modelstream.replay.misses import lookup_warnings

    holder = view.holder()
    params = view.project.params
    made = set(view.streams.names())
    lag = view.lags(view.project)
    counters = view.counters(view.marker.shards)
    lookups, misses = counters.pop("lookups", 0), counters.pop("lookup_misses", 0)
    return Status(
        data=str(view.path),
        urls=view.urls,
        use_case=view.use_case.name,
        shards=view.marker.shards,
        running=holder is not None,
        process=holder,
        streams={name: _stream(view.streams, name) for name in params.streams if name in made},
        functions={name: _function(view, name, number) for name, number in lag.items()},
        tables={name: _rows(view, name) for name in view.table_names(view.project)},
        logs={name: LogStatus(log.count(), log.files()) for name, log in view.parquet_logs.items()},
        vectors=counters.pop("vectors", 0),
        lookups=lookups,
        lookup_misses=misses,
        not_counted=counters,
        dead_letters=view.dead_letter_count(),
        inputs=[
            InputStatus(one.origin, one.kind, one.lines, one.bytes, one.finished) for one in view.tables.inputs().all()
        ],
        model=_model(view, running=holder is not None),
        warnings=lookup_warnings(view, lookups, misses),
    )


def _model(view: View, *, running: bool) -> ModelStatus:
    from modelstream.registry.registry import Registry
    from modelstream.runner.served import read_served

    serving = read_served(view.path) if running else {}
    registry = Registry.of_project(view.project, view.use_case)
    try:
        promoted, shipped = registry.current() or "", registry.shipped_version() or ""
        return ModelStatus(registry.name, promoted, shipped, serving, aside=registry.aside)
    except ModelstreamError as error:
        return ModelStatus(registry.name, "", "", serving, str(error))


def _stream(streams: Streams, name: str) -> StreamStatus:
    ranges = list(streams.ranges(name).values())
    ends = [end for _, end in ranges]
    return StreamStatus(sum(ends), ends, sum(end - first for first, end in ranges))


def _function(view: View, name: str, lag: int) -> FunctionStatus:
    return FunctionStatus(view.project.reads(name), lag, bool(lag) and not view.streams.counts_rows)


def _rows(view: View, table: str) -> int:
    return view.features.count() if table == view.names.features else view.lookups[table].count()


def print_status(found: Status, use_case: UseCase) -> None:
    """Print a state for a person."""
    from rich.console import Group, RenderableType

    from modelstream.commands.output import console, plain_table, warned
    from modelstream.settings import KINDS_OF_STORES, StoreUrls
    from modelstream.use_case.reasons import explained

    running = f"running (process {found.process})" if found.running else "not running"
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in found.not_counted.items())
    own = StoreUrls().within(Path(found.data))
    urls = [(kind, getattr(found.urls, kind)) for kind in KINDS_OF_STORES]
    elsewhere = [f"{kind} at {url}" for kind, url in urls if url != getattr(own, kind)]
    shards = counted(found.shards, "shard")
    parts: list[RenderableType] = [
        "; ".join([f"{found.data}: use case {found.use_case}, {shards}, {running}", *elsewhere]),
        plain_table(
            ("stream", "messages", "kept", "messages by shard", "read by (rows that wait)"),
            [
                (name, one.messages, one.kept, " ".join(map(str, one.by_shard)), _readers(found, name))
                for name, one in found.streams.items()
            ],
        ),
        plain_table(("table", "rows"), list(found.tables.items())),
        plain_table(("log", "rows", "files"), [(name, log.rows, log.files) for name, log in found.logs.items()]),
        _model_line(found.model),
        f"{counted(found.vectors, 'feature vector')}, {counted(found.dead_letters, 'dead letter')}; "
        f"not counted: {reasons or 'none'}",
        *(f"  {line}" for line in explained(found.not_counted, use_case)),
    ]
    if found.lookups:
        parts.append(f"{counted(found.lookups, 'lookup')}, of which {found.lookup_misses:,} found nothing")
    if found.inputs:
        rows = [(one.origin, one.lines, "finished" if one.finished else "not finished") for one in found.inputs]
        parts.append(plain_table(("input", "lines", "state"), rows))
    parts += map(warned, found.warnings)
    console().print(Group(*parts))


def _model_line(model: ModelStatus) -> str:
    from rich.markup import escape

    from modelstream.commands.output import no_model_yet

    wanted = escape(no_model_yet())
    if model.promoted or model.shipped:
        version = model.promoted or model.shipped
        wanted = f"version {version} {'is promoted' if model.promoted else 'comes with the project'}"
    if model.problem:
        wanted = f"[red]{escape(model.problem)}[/]"
    served = ", ".join(f"{worker} serves {one.version}" for worker, one in sorted(model.serving.items()) if one.version)
    refused = {one.refused for one in model.serving.values() if one.refused}
    lines = [f"model {model.name}: {wanted}" + (f"; {served}" if served else "")]
    lines += [escape(model.aside)] if model.aside and not model.promoted else []
    return "\n".join([*lines, *(f"[red]{escape(why)}[/]" for why in sorted(refused))])


def _readers(found: Status, stream: str) -> str:
    readers = [(name, one) for name, one in found.functions.items() if one.reads == stream]
    return ", ".join(f"{name} ({'about ' if one.about else ''}{one.lag:,})" for name, one in readers)
