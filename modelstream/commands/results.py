"""What a data folder holds, counted from what is durable."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelstream.logs.parquet import open_log
from modelstream.messages.codec import decode
from modelstream.project import Project
from modelstream.runner.pipeline import dead_letter_count
from modelstream.runner.places import Places
from modelstream.streams import Streams, open_streams
from modelstream.tables import open_tables
from modelstream.use_case import declared as use_cases
from modelstream.use_case.columns import INGESTED_AT


def totals(places: Places, project: Project) -> dict[str, Any]:
    """Return events, vectors, predictions, dead letters and the uncounted events by reason."""
    use_case = use_cases.load(project.folder / project.params.use_case)
    with (
        open_streams(places.streams) as streams,
        open_tables(places.tables) as tables,
    ):
        shards = streams.describe(project.params.streams[0]).shards
        epoch = tables.epoch()
        features = tables.features(use_case.row_schema)
        counters: dict[str, int] = {}
        for shard in range(shards):
            for name, number in features.load(shard).counters.items():
                counters[name] = counters.get(name, 0) + number
        return {
            "events": open_log(places.logs, "events", use_case.events_log_schema, epoch).count(),
            "vectors": counters.pop("vectors", 0),
            "predictions": open_log(places.logs, "inference", use_case.inference_log_schema, epoch).count(),
            "dead_letters": dead_letter_count(streams),
            "not_counted": dict(sorted(counters.items())),
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
