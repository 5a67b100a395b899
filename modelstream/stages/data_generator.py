"""The data generator: sends generated events, the lines of a file, or standard input to the first stream.

Here a line gets its identity (the input's name and the line's number) and its shard; only the event-handler makes an
event of it. What a source yields is in `modelstream.source.readers` and `modelstream.source.generator`, how it is sent
in `modelstream.source.sender`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelstream.base.times import INVALID, parse_times
from modelstream.base.timestamps import datetime_of
from modelstream.errors import ConfigurationError
from modelstream.settings import from_environment
from modelstream.source.distributions import Distributions
from modelstream.source.enrichment import Files, load_enrichment_files
from modelstream.source.generator import GeneratorOptions, GeneratorSource, enrichment_table
from modelstream.source.lines import Progress
from modelstream.source.mixing import check_file, check_generated, check_read
from modelstream.source.readers import START_ANEW, Source, chunk_bytes, open_file, open_stdin
from modelstream.source.sender import Clock, Sender, Sent, Watcher, surely
from modelstream.stores import Stores
from modelstream.tables import Input, Tables
from modelstream.use_case.declared import UseCase

STDIN = 0


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What to send.

    >>> SourceOptions(input="events.ndjson", rate=100).users  # of which the input makes no use
    2000
    """

    input: str | None = None
    """A file of JSON lines, `-` for standard input, or nothing for generated events."""
    enrichment: Files = None
    """A CSV file with a lookup table, or several. Generated events come with their own."""
    users: int = 2000
    events_per_user: int = 1000
    seed: int = 1
    end: str | None = None
    """The time at which generated events end (ISO 8601); by default now, or the end of an earlier run that continues.
    """
    rate: float | None = None
    """Lines a second; by default as fast as it goes."""


class _Teller(Watcher):
    """Reports what the sender does to a job's context: in its log, and in the live table if there is one."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._lines = self._expected = 0

    def sent(self, lines: int, expected: int) -> None:
        self._lines, self._expected = lines, expected
        self._tell("")

    def waits(self, why: str) -> None:
        self._context.logger.warn(why or "available again")
        self._tell(why)

    def _tell(self, held: str) -> None:
        # MLRun's context has no `progress`; the local runner's has.
        if hasattr(self._context, "progress"):
            self._context.progress(self._lines, self._expected, held)


def send(context: Any, distributions: Distributions, options: SourceOptions) -> Sent:
    """Send an input to its end, from where an earlier run stopped; return what was sent.

    `context` is a job's: MLRun's, or the local runner's, which can ask for an early stop. Streams, tables and the
    use case are those of the environment (see `modelstream.settings`). Raises ConfigurationError. It waits out the
    outage of a store; the local runner's job raises UnavailableError before anything was sent, and is started again.

    The example is `functions/data-generator.ipynb`, whose last cell sends to streams in a temporary folder.
    """
    settings = from_environment()
    stopped = context.stopped.is_set if hasattr(context, "stopped") else lambda: False
    clock, teller = Clock(stopped), _Teller(context)
    with getattr(context, "stores", None) or Stores.of(settings) as stores:

        def begin() -> tuple[Source, bool]:
            shards = stores.streams.describe(settings.writes).shards
            source = open_source(distributions, options, stores.use_case, stores.tables, shards)
            known = stores.tables.inputs().get(source.origin)
            return source, known is not None and known.lines > 0

        source, begun = begin() if hasattr(context, "progress") else surely("begin", begin, clock, teller)
        sender = Sender(
            stores.streams,
            settings.writes,
            saver(stores.tables, source.origin),
            rate=options.rate or 0.0,
            clock=clock,
            watcher=teller,
        )
        sent = sender.run(source)
    context.log_result("lines", sent.lines)
    context.log_result("messages", sent.messages)
    context.log_result("read", sent.read if begun or sent.lines else 0)  # of blank lines, nothing is read
    context.log_result("finished", int(sent.finished))
    if sent.unfinished:
        context.logger.warn(f"line {sent.unfinished} of {source.origin} is unfinished: run again when it is complete")
        context.log_result("unfinished", sent.unfinished)
    return sent


def saver(tables: Tables, origin: str) -> Callable[[Progress], None]:
    """Return a function that makes an input's progress durable.

    >>> import tempfile
    >>> from modelstream.tables import open_tables
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     registered = tables.inputs().register("a.ndjson", Input(origin="a.ndjson", kind="file"))
    ...     saver(tables, "a.ndjson")(Progress(lines=3, bytes=100))
    ...     tables.inputs().get("a.ndjson").lines
    3
    """
    inputs = tables.inputs()

    def save(progress: Progress) -> None:
        inputs.save_progress(origin, progress.lines, progress.bytes, progress.digest, progress.finished)

    return save


def open_source(
    distributions: Distributions, options: SourceOptions, use_case: UseCase, tables: Tables, shards: int
) -> Source:
    """Return the source that the options ask for.

    The table to look up is loaded and the input registered, so that lines may be sent. Raises ConfigurationError.

    >>> import tempfile
    >>> from modelstream.tables import open_tables
    >>> from modelstream.use_case.file import parse_use_case
    >>> use_case = parse_use_case('''
    ... {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean],
    ...  fields: {house: key, at: time, kind: text, celsius: number},
    ...  events: {reading: {value: celsius}}, predict_on: [reading],
    ...  model: {name: frost, prediction: will_freeze}}''')
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     with open(f"{folder}/readings.ndjson", "w") as file:
    ...         size = file.write('{"house": "h1"}')
    ...     source = open_source(None, SourceOptions(input=file.name), use_case, tables, shards=8)
    ...     source.origin == file.name, tables.inputs().get(source.origin).kind
    (True, 'file')
    """
    if options.input is None:
        return _open_generator(distributions, options, use_case, tables)
    known = tables.inputs().all()
    if options.input == "-":
        check_read(known)
    else:
        check_file(Path(options.input).expanduser().resolve(), known)
    load_enrichment_files(options.enrichment, use_case, tables)
    block = chunk_bytes(shards)
    if options.input == "-":
        return open_stdin(use_case.key_path, tables.inputs(), descriptor=STDIN, block=block)
    return open_file(options.input, use_case.key_path, tables.inputs(), block=block)


def _open_generator(distributions: Distributions, options: SourceOptions, use_case: UseCase, tables: Tables) -> Source:
    generated = GeneratorOptions(options.users, options.events_per_user, options.seed, end_time(options.end))
    check_generated(generated.origin, tables.inputs().all())
    known = tables.inputs().get(generated.origin)
    if known is not None:
        end = end_time(known.options["end"])
        if options.end is not None and generated.end != end:
            raise ConfigurationError(
                f"the generated events of this folder end at {_text(end)}, not at {_text(generated.end)}",
                remedy=f"leave out --end to continue with them; or {START_ANEW}",
            )
        generated = GeneratorOptions(generated.users, generated.events_per_user, generated.seed, end)
    start = known.lines if known else 0
    source = GeneratorSource(use_case, distributions, generated, start=start)
    described = {"end": _text(generated.end), "fingerprint": source.fingerprint}
    if known is None:
        _load_table(distributions, options, use_case, tables)
        tables.inputs().register(generated.origin, Input(origin=generated.origin, kind="generator", options=described))
    elif known.options != described:
        raise ConfigurationError(
            "the distributions have changed since this folder's events were begun: the remaining events would "
            "not match those that were sent",
            remedy=f"undo the change in functions/data-generator.ipynb; or {START_ANEW}",
        )
    return source


def _load_table(distributions: Distributions, options: SourceOptions, use_case: UseCase, tables: Tables) -> None:
    lookup = next(iter(use_case.profile_lookups.values()), None)
    given = load_enrichment_files(options.enrichment, use_case, tables)
    if lookup is not None and lookup.look_up not in given:
        tables.lookup(lookup.look_up).load([enrichment_table(distributions.enrichment, options.seed)])


def end_time(text: str | None) -> int:
    """Return a time as microseconds since 1970 UTC; now, at a whole second, if none is given.

    Raises ConfigurationError for what is no time.

    >>> end_time("1970-01-01 00:00:02")
    2000000
    """
    if text is None:
        return int(_now().timestamp()) * 1_000_000
    time = int(parse_times(pa.array([text.strip()], pa.string()))[0])
    if time == INVALID or time < 0:
        raise ConfigurationError(
            f"the end {text!r} is not a time",
            remedy="write it like '2026-11-20 12:00:00' (UTC) or '2026-11-20T12:00:00+01:00'",
        )
    return time


def _now() -> datetime:
    return datetime.now(UTC)


def _text(time: int) -> str:
    return datetime_of(time).replace(tzinfo=None).isoformat(" ")
