"""`pipeline.py peek`: the last messages of a stream, decoded."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from modelstream.commands.endings import looking
from modelstream.commands.options import DATA, FLAG, Data, Last, check_name

if TYPE_CHECKING:
    from modelstream.commands.output import Row
    from modelstream.commands.view import View
    from modelstream.streams import Message, Streams
    from modelstream.use_case.declared import UseCase

MOST_ROWS = 20
"""Rows of a message that a terminal shows; `--json` gives all."""
MAX_BYTES = 1 << 30


def peek(
    stream: Annotated[
        str,
        typer.Argument(
            metavar="STREAM",
            help="A stream of project.yaml, such as dead-letters.",
            show_default=False,
        ),
    ],
    last: Last = 5,
    as_json: Annotated[
        bool, typer.Option("--json", metavar=FLAG, help="Print one JSON object per row, even on a terminal.")
    ] = False,
    data: Data = DATA,
) -> None:
    """Show the last messages of a stream, the oldest first.

    A terminal gets a table for each message; a pipe or a file gets a JSON object
    for each row.

    Example: python pipeline.py peek dead-letters --last 100
    """
    with looking(data) as view:
        print_messages(view, stream, last, as_json=as_json)


def print_messages(view: View, stream: str, last: int, *, as_json: bool) -> None:
    """Print the rows of the last messages of a stream, oldest first: tables, or a JSON object a line."""
    from modelstream.commands.output import console, fitting_table, is_terminal, json_line

    check_name("stream", stream, view.project.params.streams)
    epoch = view.epoch
    is_empty = True
    for message in last_messages(view.streams, stream, last):
        is_empty = False
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
        out.print(fitting_table([_telling_first(row, view.use_case) for row in rows], out.width, title))
    if is_empty:
        print(f"{stream} has no messages", file=sys.stderr)


def _telling_first(row: Row, use_case: UseCase) -> Row:
    """Return a row with its most telling columns first, since columns that don't fit the terminal are left out."""
    from modelstream.messages.codec import LINE
    from modelstream.use_case.columns import INGESTED_AT, POSITION

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


@dataclass(frozen=True)
class Content:
    """A message, decoded."""

    what: str
    """What its rows are, and where they came from."""
    rows: list[Row]


def decoded(message: Message, stream: str, epoch: int, dead_letters_stream: str) -> Content:
    """Return the content of a message of any kind."""
    import msgspec

    from modelstream.base.times import rows_of
    from modelstream.messages import dead_letters
    from modelstream.messages.codec import LINE, UnreadableError, decode, is_arrow, split_body
    from modelstream.messages.identity import stream_origin, stream_position

    body = message.body
    if stream == dead_letters_stream:
        letters = [msgspec.to_builtins(letter) for letter in dead_letters.decode_letters(body)]
        return Content(f"{len(letters)} dead letters", letters)
    try:
        if is_arrow(body):
            found = decode(body)
            rows: list[Row] = list(rows_of(found.batch))
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
