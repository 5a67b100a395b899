"""`pipeline.py peek`: the last rows of a stream, decoded, and those that come."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from modelstream.base.words import counted
from modelstream.commands.endings import looking
from modelstream.commands.options import DATA, FLAG, Data, Last, check_name

if TYPE_CHECKING:
    from modelstream.commands.output import Row
    from modelstream.commands.view import View
    from modelstream.streams import Message, Streams
    from modelstream.use_case.declared import UseCase

MOST_ROWS = 20
"""Rows that a terminal shows at a time of those that come; `--json` gives all."""
MAX_BYTES = 1 << 30
FOLLOW_EVERY = 0.5
"""Seconds between two looks for new rows."""
FOLLOW_MESSAGES, FOLLOW_BYTES = 256, 8_000_000

Ends = dict[int, int]
"""By shard, the offset after the last message to look at."""


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
    follow: Annotated[
        bool, typer.Option("--follow", "-f", metavar=FLAG, help="Then show new rows as they come, until Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", metavar=FLAG, help="Print one JSON object per row, even on a terminal.")
    ] = False,
    data: Data = DATA,
) -> None:
    """Show the last rows of a stream, the oldest first.

    A terminal gets a table; a pipe or a file gets a JSON object for each row. A message
    may hold many rows: `shard` and `offset` say which one a row came in.

    Example: python pipeline.py peek dead-letters --last 100
    """
    with looking(data) as view:
        ends = print_last(view, stream, last, as_json=as_json)
        if follow:
            try:
                print_new(view, stream, ends, as_json=as_json)
            except KeyboardInterrupt:  # how following ends
                return


def print_last(view: View, stream: str, last: int, *, as_json: bool) -> Ends:
    """Print the last rows of a stream, oldest first: a table, or a JSON object a line; return where they end."""
    from modelstream.commands.output import is_terminal

    check_name("stream", stream, view.project.params.streams)
    ends = {shard: end for shard, (_, end) in view.streams.ranges(stream).items()}
    rows = last_rows(view, stream, last, ends)
    if as_json or not is_terminal():
        count = _print_json(rows)
    else:
        shown = list(rows)
        count = len(shown)
        if shown:
            _print_table(view, shown, f"{stream}: the last {counted(count, 'row')}")
    if not count:
        print(f"{stream} has no messages", file=sys.stderr)
    return ends


def print_new(
    view: View, stream: str, ends: Ends, *, as_json: bool, wait: Callable[[float], None] = time.sleep
) -> None:
    """Print the rows that come after `ends`, for ever."""
    from modelstream.commands.output import is_terminal

    for messages in new_messages(view.streams, stream, ends, wait):
        rows = [row for message in messages for row in decoded(view, message, stream)]
        if as_json or not is_terminal():
            _print_json(rows)
            continue
        title = f"{stream}: {len(rows):,} new" + (f", the last {MOST_ROWS}" if len(rows) > MOST_ROWS else "")
        _print_table(view, rows[-MOST_ROWS:], title)


def _print_json(rows: Iterable[Row]) -> int:
    from modelstream.commands.output import json_line

    count = 0
    for row in rows:
        sys.stdout.buffer.write(json_line(row) + b"\n")
        count += 1
    sys.stdout.buffer.flush()
    return count


def _print_table(view: View, rows: Sequence[Row], title: str) -> None:
    from modelstream.commands.output import console, fitting_table

    out = console()
    out.print(fitting_table([_telling_first(row, view.use_case) for row in rows], out.width, title))


def _telling_first(row: Row, use_case: UseCase) -> Row:
    """Return a row with its most telling columns first, since columns that don't fit the terminal are left out."""
    from modelstream.messages.codec import LINE
    from modelstream.use_case.columns import INGESTED_AT, POSITION

    first = (LINE, "reason", "text", use_case.key, use_case.time, use_case.type)
    names = [*first, use_case.prediction, use_case.probability]
    last = ("origin", POSITION, INGESTED_AT, *_PLACE)
    names += [name for name in row if name not in names and name not in last]
    return {name: row[name] for name in [*names, *last] if name in row and name != "stream"}


def last_rows(view: View, stream: str, count: int, ends: Ends) -> Iterator[Row]:
    """Yield the last rows before `ends`, over all shards, oldest first. One message at a time is in memory.

    Messages stand in the order in which they were appended. They are decoded twice, first to count their rows.
    """
    places: list[tuple[int, int]] = []
    left = count
    for message in newest_messages(view.streams, stream, ends):
        left -= len(decoded(view, message, stream))
        places.append((message.shard, message.offset))
        if left <= 0:
            break
    skip = max(0, -left)
    for shard, offset in reversed(places):
        for message in _message(view.streams, stream, shard, offset):
            rows = decoded(view, message, stream)
            yield from rows[skip:]
            skip = max(0, skip - len(rows))


def newest_messages(streams: Streams, stream: str, ends: Ends) -> Iterator[Message]:
    """Yield the messages before `ends`, over all shards, the one that was appended last first."""
    newest: list[tuple[int, int, int]] = []

    def push(shard: int, offset: int) -> None:
        for message in _message(streams, stream, shard, offset):
            heapq.heappush(newest, (-message.appended_at, -shard, offset))

    for shard, end in ends.items():
        push(shard, end - 1)
    while newest:
        _, minus_shard, offset = heapq.heappop(newest)
        yield from _message(streams, stream, -minus_shard, offset)
        push(-minus_shard, offset - 1)


def _message(streams: Streams, stream: str, shard: int, offset: int) -> list[Message]:
    """Return the message at an offset, or nothing if it is not there, or no longer."""
    if offset < streams.first_offset:
        return []
    found = streams.read(stream, shard, offset, 1, MAX_BYTES)
    return [message for message in found if message.offset == offset]


def new_messages(streams: Streams, stream: str, ends: Ends, wait: Callable[[float], None]) -> Iterator[list[Message]]:
    """Yield what was appended after `ends`, whenever there is something, in the order of appending; for ever."""
    offsets = dict(ends)
    while True:
        found: list[Message] = []
        for shard, offset in offsets.items():
            of_shard = streams.read(stream, shard, offset, FOLLOW_MESSAGES, FOLLOW_BYTES)
            if of_shard:
                offsets[shard] = of_shard[-1].offset + 1
            found += of_shard
        if found:
            yield sorted(found, key=lambda message: message.appended_at)
        else:
            wait(FOLLOW_EVERY)


_PLACE = ("shard", "offset", "appended_at")


def decoded(view: View, message: Message, stream: str) -> list[Row]:
    """Return the rows of a message of any kind, each with its place."""
    at = datetime.fromtimestamp(message.appended_at / 1e6, UTC)
    place = {"stream": stream, "shard": message.shard, "offset": message.offset, "appended_at": at}
    return [place | dict(row) for row in _content(view, message, stream)]


def _content(view: View, message: Message, stream: str) -> list[Row]:
    import msgspec

    from modelstream.base.timestamps import rows_of
    from modelstream.messages import dead_letters
    from modelstream.messages.codec import LINE, UnreadableError, decode, is_framed
    from modelstream.messages.identity import stream_origin, stream_position
    from modelstream.messages.json_text import split_body

    body = message.body
    if stream == view.names.dead_letters:
        return [msgspec.to_builtins(letter) for letter in dead_letters.decode_letters(body)]
    try:
        if is_framed(body):
            found = decode(body)
            rows: list[Row] = list(rows_of(found.batch))
            if found.kind == "lines":
                rows = [dict(row) | {LINE: row[LINE].decode("utf-8", "replace")} for row in rows]
            return [{"origin": found.origin, **row} for row in rows]
        lines = split_body(body)
        origin, first = stream_origin(stream, message.shard), stream_position(view.epoch, message.offset)
        return [
            {"origin": origin, "position": first + index, LINE: line.decode("utf-8", "replace")}
            for index, line in enumerate(lines)
        ]
    except UnreadableError as error:
        return [{"unreadable": str(error), "begins": body[:200].decode("utf-8", "replace")}]
