"""Reads dead letters; those of all functions are in one stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelstream.messages.dead_letters import DeadLetter, decode_letters, once
from modelstream.streams.contract import Streams

MESSAGES = 64
BYTES = 8_000_000
"""Most bytes that are read at once."""


def read_letters(
    streams: Streams, name: str, since: int | None = None, after: Mapping[int, int] | None = None
) -> Iterator[DeadLetter]:
    """Yield every dead letter of a stream once, shard by shard, in the order of their rows.

    Yields nothing if there is no such stream. With `since` (us since 1970 UTC), only those that were appended from then
    on; with `after`, only those of messages from an offset on, by shard.

    >>> import tempfile
    >>> from modelstream.messages.dead_letters import encode_letters, letter
    >>> from modelstream.streams import open_streams
    >>> with tempfile.TemporaryDirectory() as folder, open_streams(f"sqlite://{folder}") as streams:
    ...     none = list(read_letters(streams, "dead-letters"))
    ...     info = streams.create("dead-letters", shards=1)
    ...     sent = encode_letters([letter("not JSON", "a.ndjson", 7, ("generated", 0, 1), b"{")])
    ...     offsets = streams.append("dead-letters", [(0, sent[0]), (0, sent[0])])  # the second as after a crash
    ...     none, [(found.origin, found.position, found.reason) for found in read_letters(streams, "dead-letters")]
    ([], [('a.ndjson', 7, 'not JSON')])
    """
    if name in streams.names():
        for shard in range(streams.describe(name).shards):
            yield from once(_of_shard(streams, name, shard, since, (after or {}).get(shard, 0)))


def _of_shard(streams: Streams, name: str, shard: int, since: int | None, begin: int) -> Iterator[DeadLetter]:
    offset, end = streams.range(name, shard)
    offset = max(offset, begin)
    while offset < end:
        messages = streams.read(name, shard, offset, MESSAGES, BYTES)
        if not messages:
            return
        for message in messages:
            offset = message.offset + 1
            if since is None or message.appended_at >= since:
                yield from decode_letters(message.body)
