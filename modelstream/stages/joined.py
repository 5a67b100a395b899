"""The rows of small messages, joined: checking and computing then cost as much for many messages as for one.

A call into Arrow or into the kernel takes as long for one row as for a hundred. Only decoding is left for each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from modelstream.messages.codec import Decoded, UnreadableError, row_count
from modelstream.messages.identity import Int64s
from modelstream.stages.shard import Incoming, Shard

LARGE = 1_000
"""Messages of so many rows are taken one by one: joining them would only copy."""

Groups = Sequence[tuple[Shard, list[Incoming]]]


@dataclass(frozen=True)
class Part:
    """Consecutive messages of one shard whose rows have one origin; `first` and `last` (exclusive) are their rows.

    `Joined` has an example.
    """

    shard: Shard
    origin: str
    first: int
    last: int


@dataclass
class Joined:
    """The rows of many messages as one batch.

    >>> from modelstream.messages.codec import decode, encode
    >>> from modelstream.messages.identity import Checkpoint
    >>> shards = [Shard(number, Checkpoint(), saved=-1) for number in (0, 5)]
    >>> bodies = [encode("vectors", "a.ndjson", pa.record_batch({"position": rows})) for rows in ([7], [8, 9], [4])]
    >>> messages = [Incoming(0, 0, bodies[0], 0), Incoming(0, 1, bodies[1], 0)], [Incoming(5, 3, bodies[2], 0)]
    >>> joined = join(list(zip(shards, messages)), lambda message: decode(message.body))
    >>> joined.batch["position"].to_pylist(), joined.offsets.tolist(), joined.indices.tolist()
    ([7, 8, 9, 4], [0, 1, 1, 3], [0, 0, 1, 0])
    >>> [(part.shard.number, part.first, part.last) for part in joined.parts], joined.counts
    ([(0, 0, 3), (5, 3, 4)], [3, 1])
    """

    batch: pa.RecordBatch
    offsets: Int64s
    """Of each row, the offset of its message."""
    indices: Int64s
    """Of each row, its place in its message."""
    parts: list[Part]
    counts: list[int]
    """Rows of each shard, as a stage counts them: an unreadable message is one."""
    unreadable: list[tuple[Shard, Incoming, str]] = field(default_factory=list)
    """Messages that can't be read, and why."""

    def slices(self, batch: pa.RecordBatch) -> Iterator[tuple[Part, pa.RecordBatch]]:
        """Yield each part with its rows in a batch that has a row for each row."""
        for part in self.parts:
            yield part, batch.slice(part.first, part.last - part.first)


def join(groups: Groups, decoded: Callable[[Incoming], Decoded]) -> Joined | None:
    """Join the rows of messages of several shards; None if that is no gain, or if their columns have different types.

    `decoded` returns the rows of a message, or raises UnreadableError. The batch has every column that one of the
    messages has. Nothing else is checked, and nothing is changed. `Joined` has an example.
    """
    messages = [(shard, message) for shard, many in groups for message in many]
    if len(messages) < 2 or sum(row_count(message.body) for _, message in messages) > LARGE * len(messages):
        return None
    batches: list[pa.RecordBatch] = []
    taken: list[tuple[Shard, Incoming, str]] = []
    joined = Joined(pa.record_batch([], []), np.empty(0, np.int64), np.empty(0, np.int64), [], [])
    for shard, many in groups:
        joined.counts.append(0)
        for message in many:
            try:
                rows = decoded(message)
            except UnreadableError as error:
                joined.unreadable.append((shard, message, str(error)))
                joined.counts[-1] += 1
                continue
            if rows.batch.num_rows:
                batches.append(rows.batch)
                taken.append((shard, message, rows.origin))
                joined.counts[-1] += rows.batch.num_rows
    if not batches:
        return None
    try:
        joined.batch = _together(batches)
    except pa.ArrowException:
        return None
    _place(joined, taken, np.array([batch.num_rows for batch in batches], np.int64))
    return joined


def _place(joined: Joined, taken: Sequence[tuple[Shard, Incoming, str]], sizes: Int64s) -> None:
    """Note the offset and the index of each row, and the parts."""
    ends = np.cumsum(sizes)
    joined.offsets = np.repeat(np.array([message.offset for _, message, _ in taken], np.int64), sizes)
    joined.indices = np.arange(len(joined.offsets)) - np.repeat(ends - sizes, sizes)
    parts = joined.parts
    for (shard, _, origin), size, end in zip(taken, sizes.tolist(), ends.tolist(), strict=True):
        if parts and parts[-1].shard is shard and parts[-1].origin == origin:
            parts[-1] = Part(shard, origin, parts[-1].first, end)
        else:
            parts.append(Part(shard, origin, end - size, end))


def _together(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return the rows of batches as one, where a column that is missing is null. Raises ArrowException."""
    first = batches[0].schema
    if all(batch.schema.equals(first) for batch in batches):
        return pa.concat_batches(batches)
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    (whole,) = pa.concat_tables(tables, promote_options="default").combine_chunks().to_batches()
    return whole
