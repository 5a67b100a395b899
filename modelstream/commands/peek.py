"""`pipeline.py peek` and `table`: what stands in a stream and in a table."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from modelstream.base.yamlfile import suggestion
from modelstream.commands.output import Row, console, format_of, is_terminal, json_line, table, write
from modelstream.commands.view import View
from modelstream.errors import ConfigurationError
from modelstream.features.engine import features_of
from modelstream.messages import dead_letters
from modelstream.messages.codec import LINE, UnreadableError, decode, is_arrow, split_body
from modelstream.messages.identity import stream_origin, stream_position
from modelstream.streams import Message, Streams
from modelstream.use_case.columns import INGESTED_AT, POSITION
from modelstream.use_case.declared import UseCase

MOST_ROWS = 20
"""Rows of a message or a table that a terminal shows; `--json` and `--format` give all."""
MAX_BYTES = 1 << 30

_LOOKUP_SCHEMA = pa.schema([("key", pa.string()), ("value", pa.float64())])


@dataclass(frozen=True)
class Content:
    """A message, decoded."""

    what: str
    """What its rows are, and where they came from."""
    rows: list[Row]


def peek(view: View, stream: str, last: int, *, as_json: bool) -> None:
    """Print the rows of the last messages of a stream, oldest first: tables, or a JSON object a line."""
    check_name("stream", stream, view.project.params.streams)
    epoch = view.epoch
    for message in last_messages(view.streams, stream, last):
        content = decoded(message, stream, epoch, view.names.dead_letters)
        at = datetime.fromtimestamp(message.appended_at / 1e6, UTC)
        if as_json or not is_terminal():
            place = {"stream": stream, "shard": message.shard, "offset": message.offset, "appended_at": at}
            for row in content.rows:
                sys.stdout.buffer.write(json_line(place | dict(row)) + b"\n")
            sys.stdout.buffer.flush()
            continue
        title = f"{stream}  shard {message.shard}  offset {message.offset}  {at:%Y-%m-%d %H:%M:%S}  {content.what}"
        rows = content.rows[-MOST_ROWS:]
        if len(rows) < len(content.rows):
            title += f"; the last {len(rows)}:"
        out = console()
        out.print(table([_telling_first(row, view.use_case) for row in rows], out.width, title))


def _telling_first(row: Row, use_case: UseCase) -> Row:
    """Return a row with what tells most at its left: columns that don't fit a terminal are left out."""
    first = (LINE, "reason", "text", use_case.key, use_case.time, use_case.type)
    names = [*first, use_case.prediction, use_case.probability]
    last = ("origin", POSITION, INGESTED_AT)
    names += [name for name in row if name not in names and name not in last]
    return {name: row[name] for name in [*names, *last] if name in row}


def last_messages(streams: Streams, stream: str, count: int) -> Iterator[Message]:
    """Yield the messages that were appended last, oldest first, over all shards. One body at a time is in memory."""
    newest: list[tuple[int, int, int, int]] = []

    def push(shard: int, offset: int, first: int) -> None:
        if offset >= first:
            for message in streams.read(stream, shard, offset, 1, MAX_BYTES):
                heapq.heappush(newest, (-message.appended_at, -shard, offset, first))

    for shard in range(streams.describe(stream).shards):
        first, end = streams.range(stream, shard)
        push(shard, end - 1, first)
    chosen: list[tuple[int, int]] = []
    while newest and len(chosen) < count:
        _, minus_shard, offset, first = heapq.heappop(newest)
        chosen.append((-minus_shard, offset))
        push(-minus_shard, offset - 1, first)
    for shard, offset in reversed(chosen):
        for message in streams.read(stream, shard, offset, 1, MAX_BYTES):
            if message.offset == offset:  # else it was trimmed meanwhile
                yield message


def decoded(message: Message, stream: str, epoch: int, dead_letters_stream: str) -> Content:
    """Return what a message holds, whatever it is."""
    body = message.body
    if stream == dead_letters_stream:
        letters = [msgspec.to_builtins(letter) for letter in dead_letters.decode_letters(body)]
        return Content(f"{len(letters)} dead letters", letters)
    try:
        if is_arrow(body):
            found = decode(body)
            rows: list[Row] = found.batch.to_pylist()
            if found.kind == "lines":
                rows = [dict(row) | {LINE: row[LINE].decode("utf-8", "replace")} for row in rows]
            rows = [{"origin": found.origin, **row} for row in rows]
            return Content(f"{len(rows):,} {found.kind} from {found.origin}", rows)
        lines = split_body(body)
        origin, first = stream_origin(stream, message.shard), stream_position(epoch, message.offset)
        rows = [
            {"origin": origin, "position": first + index, LINE: line.decode("utf-8", "replace")}
            for index, line in enumerate(lines)
        ]
        return Content(f"{len(rows):,} lines from a client", rows)
    except UnreadableError as error:
        return Content("unreadable", [{"unreadable": str(error), "begins": body[:200].decode("utf-8", "replace")}])


def table_(view: View, name: str, key: str | None, form: str | None, output: Path | None) -> None:
    """Print or write a table, or one row of it. Raises ConfigurationError for an unknown table or key."""
    check_name("table", name, view.project.params.tables)
    schema, batches = _features(view, key) if name == view.names.features else _lookup(view, name, key)
    if form is None and output is None and is_terminal():
        first = [view.use_case.key, *view.use_case.computed]  # what tells most; the profile where there is room
        _print(
            (batch.select([n for n in first if n in schema.names] + _others(batch, first)) for batch in batches), name
        )
        return
    rows = write(batches, schema, format_of(output, form), output)
    if output is not None:
        print(f"{rows:,} rows in {output}", file=sys.stderr)


def _others(batch: pa.RecordBatch, names: list[str]) -> list[str]:
    return [name for name in batch.schema.names if name not in names]


def _features(view: View, key: str | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    use_case, rows = view.use_case, view.features
    if key is None:
        return use_case.features_schema, (features_of(batch, use_case) for batch in rows.scan())
    found = rows.get(key)
    if not found.num_rows:
        raise ConfigurationError(
            f"the table features has no row for {use_case.key} {key!r}",
            remedy=f"`python pipeline.py explain {key}` tells what is known of it",
        )
    return use_case.features_schema, iter([features_of(found, use_case)])


def _lookup(view: View, name: str, key: str | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    rows = view.tables.lookup(name)
    if key is None:
        return _LOOKUP_SCHEMA, rows.scan()
    found = [batch.filter(pa.compute.equal(batch.column("key"), key)) for batch in rows.scan()]
    if not any(batch.num_rows for batch in found):
        raise ConfigurationError(
            f"the table {name} has no row for {key!r}", remedy=f"`python pipeline.py table {name}` lists all"
        )
    return _LOOKUP_SCHEMA, iter(found)


def _print(batches: Iterator[pa.RecordBatch], name: str) -> None:
    rows: list[dict[str, Any]] = []
    total = 0
    for batch in batches:
        total += batch.num_rows
        rows += batch.slice(0, max(0, MOST_ROWS - len(rows))).to_pylist()
    out = console()
    title = f"{name}: {total:,} rows"
    if total > len(rows):
        title += f", the first {len(rows)} (--format csv gives all)"
    out.print(table(rows, out.width, title))


def check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    """Raise ConfigurationError, with what was probably meant, for a name that isn't known."""
    if name not in known:
        raise ConfigurationError(f"there is no {what} {name!r}", remedy=suggestion(name, known))
