"""What a data folder holds, counted from what is durable."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelstream.messages.codec import decode
from modelstream.stores import Stores
from modelstream.streams import Streams
from modelstream.use_case.columns import INGESTED_AT


def totals(stores: Stores, shards: int) -> dict[str, Any]:
    """Return events, vectors, predictions, dead letters and the uncounted events by reason."""
    counters = stores.counters(shards)
    return {
        "events": stores.events_log.count(),
        "vectors": counters.pop("vectors", 0),
        "predictions": stores.inference_log.count(),
        "dead_letters": stores.dead_letter_count(),
        "not_counted": counters,
    }


def delays(streams: Streams, name: str, since: float) -> dict[str, float]:
    """Return the median and the 99th percentile of the time from an event's append to its stored prediction, in ms.

    Of events that were appended from `since` (seconds) on. A prediction is stored when its message is durable in the
    stream: from there it can be acted on.
    """
    found: list[npt.NDArray[np.int64]] = []
    for shard in range(streams.describe(name).shards):
        offset, end = streams.range(name, shard)
        while offset < end:
            for message in streams.read(name, shard, offset, 256, 8_000_000):
                offset = message.offset + 1
                if message.appended_at >= since * 1e6:
                    ingested = decode(message.body).batch.column(INGESTED_AT).cast("int64").to_numpy()
                    found.append(message.appended_at - ingested[ingested >= since * 1e6])
    late = np.concatenate([np.empty(0, np.int64), *found])
    if not len(late):  # all that was predicted had been appended before
        return {}
    p50, p99 = np.percentile(late / 1000, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
