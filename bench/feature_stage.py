"""The feature stage alone, on one core: messages of 1,000 events in, messages of vectors out.

    python -m bench.feature_stage --input events.ndjson --enrichment postcodes.csv [--store FOLDER]

Each message is decoded, its repeated events dropped, its users' features brought up to date and its vectors encoded,
by the stage that the pipeline runs. Without --store streams and tables are in memory, so this is what the computing
takes; with it vectors go to a SQLite stream and users' rows to a SQLite table, durably, as in a run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nuclio_sdk
import numpy as np
import pyarrow as pa
from pyarrow import csv

from modelstream.base.json_bytes import Int64s
from modelstream.events.parsing import LineParser
from modelstream.features.engine import no_rows
from modelstream.messages.codec import encode
from modelstream.messages.identity import Checkpoint
from modelstream.settings import Settings
from modelstream.source.lines import LineSplitter
from modelstream.stages.stream_to_features import StreamToFeatures
from modelstream.streams import open_streams
from modelstream.tables import open_tables
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).resolve().parents[1]
READS = "incoming-events"
SHARDS = 8
MESSAGE = 1_000


class NoStore:
    """Stands for the streams and both tables: forgets what it is given, except for the enrichment."""

    first_offset = 0
    together = True

    def __init__(self, use_case: UseCase, enrichment: dict[str, float]) -> None:
        self._rows = no_rows(use_case)
        self._enrichment = enrichment

    def acked(self, function: str, name: str) -> list[int]:  # noqa: ARG002
        """Return that nothing was acknowledged."""
        return [-1] * SHARDS

    def range(self, name: str, shard: int) -> tuple[int, int]:  # noqa: ARG002
        """Return a range that holds every message."""
        return 0, 1 << 40

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:  # noqa: ARG002
        """Take records."""
        return [0] * len(records)

    def checkpoint(self, shard: int) -> Checkpoint:  # noqa: ARG002
        """Return a new shard's state."""
        return Checkpoint()

    def commit_all(self, commits: Sequence[tuple[int, pa.RecordBatch, Checkpoint]]) -> list[bool]:
        """Take rows."""
        return [True] * len(commits)

    def get_many(self, keys: Sequence[str]) -> Any:
        """Return no rows, and the enrichment of postcodes."""
        return self._rows if keys and keys[0] not in self._enrichment else [self._enrichment.get(k) for k in keys]


def messages(use_case: UseCase, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (shard, message) for the events of a file, in the order in which shards fill a message."""
    parser = LineParser(use_case)
    waiting: list[list[bytes]] = [[] for _ in range(SHARDS)]
    places: list[list[int]] = [[] for _ in range(SHARDS)]

    def message(shard: int) -> tuple[int, bytes]:
        positions: Int64s = np.array(places[shard], np.int64)
        batch = parser.parse(waiting[shard], positions, 1_800_000_000_000_000).events
        waiting[shard], places[shard] = [], []
        return shard, encode("events", path.name, batch)

    splitter = LineSplitter(use_case.key_path)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 22), b""):
            lines = splitter.feed(block).lines
            for text, position, bucket in zip(lines.texts(), lines.positions, lines.buckets, strict=True):
                shard = int(bucket) % SHARDS
                waiting[shard].append(text)
                places[shard].append(int(position))
                if len(waiting[shard]) == MESSAGE:
                    yield message(shard)
    yield from (message(shard) for shard in range(SHARDS) if waiting[shard])


async def run(stage: StreamToFeatures, bodies: Sequence[tuple[int, bytes]]) -> float:
    """Give the stage all messages, and return the seconds until everything is sent and committed."""
    offsets = [itertools.count() for _ in range(SHARDS)]
    now = datetime.now(UTC)
    events = [
        nuclio_sdk.Event(body=body, shard_id=shard, offset=next(offsets[shard]), timestamp=now, topic=READS)
        for shard, body in bodies
    ]
    begun = time.perf_counter()
    stage.cycle.start()
    for event in events:
        await stage.handle(event)
    await stage.terminate()
    return time.perf_counter() - begun


def main() -> None:
    """Measure, and print one JSON object: events, vectors, seconds, CPU seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--enrichment", type=Path, required=True)
    parser.add_argument("--store", type=Path, help="an empty folder for streams and tables")
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    use_case_file = ROOT / "use_cases" / "churn.yaml"
    use_case = load_use_case(use_case_file)
    columns = csv.read_csv(arguments.enrichment).columns
    postcodes, values = columns[0].cast(pa.string()), columns[1].cast(pa.float64())
    bodies = list(messages(use_case, arguments.input))

    urls = {name: f"sqlite://{(arguments.store or Path('unused')) / name}" for name in ("streams", "tables")}
    settings = Settings(
        function="stream-to-features",
        use_case=str(use_case_file),
        reads=READS,
        writes="serving",
        streams=urls["streams"],
        tables=urls["tables"],
    )
    streams: Any
    features: Any
    lookup: Any
    if arguments.store is None:
        streams = features = lookup = NoStore(
            use_case, dict(zip(postcodes.to_pylist(), values.to_pylist(), strict=True))
        )
    else:
        streams, tables = open_streams(urls["streams"]), open_tables(urls["tables"])
        for name in (READS, "serving"):
            streams.create(name, SHARDS)
        features, lookup = tables.features(use_case.row_schema), tables.lookup("enrichment")
        lookup.load(pa.table({"key": postcodes, "value": values}).to_batches())

    async def nothing(*_: object) -> None: ...

    context = SimpleNamespace(platform=SimpleNamespace(explicit_ack=nothing), logger=None)
    stage = StreamToFeatures(context, settings, streams, use_case, features, lambda _, keys: lookup.get_many(keys), 0)
    cpu = time.process_time()
    seconds = asyncio.run(run(stage, bodies))
    result = {"events": stage.counters.rows_in, "vectors": stage.counters.rows_out, "seconds": seconds}
    print(json.dumps(result | {"cpu_seconds": time.process_time() - cpu, "messages": len(bodies)}))


if __name__ == "__main__":
    main()
