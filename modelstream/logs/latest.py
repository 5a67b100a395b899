"""The latest row of each key in a log, such as each user's latest prediction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from modelstream.logs.contract import Log

COMPACT_ROWS = 100_000
"""Rows that wait until only the latest of each key are kept: more take more memory, fewer more passes."""


def latest_rows(log: Log, columns: Sequence[str], shards: Sequence[int] | None) -> Iterator[pa.Table]:
    """Yield tables with the last row of each key, the first of the `columns`.

    With `shards`, a table for each: the keys of one shard are in memory at a time, which is all of a key in logs of
    one epoch. Otherwise one table. Raises as `Log.scan` does.

    An example would need a folder with a log: `tests/logs/test_latest.py` has one.
    """
    for part in [None] if shards is None else [[shard] for shard in shards]:
        yield last_of_each(log.scan(columns, part), columns[0])


def last_of_each(batches: Iterable[pa.RecordBatch], key: str) -> pa.Table:
    """Return the last row of each key, in the order of these rows.

    >>> rows = pa.record_batch({"user": ["ann", "bob", "ann", "bob"], "n": [1, 2, 3, 4]})
    >>> last_of_each([rows.slice(0, 3), rows.slice(3)], "user").to_pydict()
    {'user': ['ann', 'bob'], 'n': [3, 4]}
    """
    kept, waiting, rows = 0, [], 0
    for batch in batches:
        waiting.append(pa.table(batch))
        rows += batch.num_rows
        if rows > kept + max(COMPACT_ROWS, kept):
            waiting = [_last(pa.concat_tables(waiting), key)]
            rows = kept = waiting[0].num_rows
    return _last(pa.concat_tables(waiting), key) if waiting else pa.table({key: pa.array([], pa.string())})


def _last(rows: pa.Table, key: str) -> pa.Table:
    encoded = rows.column(key).combine_chunks().dictionary_encode()
    last = np.zeros(len(encoded.dictionary), np.int64)
    last[encoded.indices.to_numpy()] = np.arange(rows.num_rows)  # where a key occurs several times, the last counts
    return rows.take(pa.array(np.sort(last))).combine_chunks()
