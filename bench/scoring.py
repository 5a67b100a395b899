"""Scoring alone, on one core: messages of 1,000 vectors in, messages of predictions out; and single V2 requests.

    python -m bench.scoring [--messages 1000] [--requests 3000]

The model server runs as in a worker: the notebook's class, in MLRun's graph server, with the model that is promoted or
comes with the project. Each message is decoded, scored, and its predictions encoded, by the stage that the pipeline
runs; streams are in memory. A request is one vector as JSON text, from the handler's call to its answer: HTTP is not in
it. The vectors are the golden ones, again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import json
import os
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FUNCTION = "model-server"
MESSAGE = 1_000
SHARDS = 8
WARM = 300
"""Requests before the clock starts."""


class NoStreams:
    """Stands for the streams: forgets what it is given."""

    first_offset = 0

    def range(self, name: str, shard: int) -> tuple[int, int]:  # noqa: ARG002
        """Return a range that holds every message."""
        return 0, 1 << 40

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:  # noqa: ARG002
        """Take records."""
        return [0] * len(records)


def golden_messages(use_case: Any, count: int) -> tuple[list[bytes], Any]:
    """Return messages of golden vectors, as stream-to-features sends them, and their vectors float64[n, features]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from modelstream.messages.codec import encode

    table = pq.read_table(ROOT / "tests" / "golden" / "expected_vectors.parquet")
    given = {name: table[name].combine_chunks() for name in (use_case.key, use_case.type, *use_case.features)}
    counted = pa.array(np.arange(table.num_rows))
    given |= {"position": counted, use_case.time: counted, "ingested_at": counted}
    schema = use_case.vector_schema
    rows = pa.RecordBatch.from_arrays([given[field.name].cast(field.type) for field in schema], schema=schema)
    parts = range(0, rows.num_rows - MESSAGE + 1, MESSAGE)
    bodies = [encode("vectors", "golden", rows.slice(start, MESSAGE)) for start in parts]
    vectors = np.column_stack([rows.column(name).to_numpy() for name in use_case.features])
    return [bodies[i % len(bodies)] for i in range(count)], vectors


def started(folder: Path) -> tuple[Any, Any, Any]:
    """Return the running function, as a worker starts it: its module, its context, and the stage."""
    import nuclio_sdk
    import nuclio_sdk.logger

    from modelstream import notebooks
    from modelstream.project import load_project
    from modelstream.stages.model_server import entry_points
    from modelstream.streams import open_streams
    from modelstream.tables import open_tables

    declared = load_project(ROOT / "project.yaml")
    urls = {name: f"sqlite://{folder / name}" for name in ("streams", "tables")}
    streams, epoch = open_streams(urls["streams"]), open_tables(urls["tables"]).epoch()
    for name in declared.params.streams:
        streams.create(name, SHARDS, epoch)
    os.environ |= declared.settings(FUNCTION).environment()
    os.environ |= {f"MODELSTREAM_{name.upper()}": url for name, url in urls.items()}
    os.environ |= {"MODELSTREAM_REGISTRY": declared.registry(), "MLRUN_HTTPDB__NOP_DB__VERBOSE": "false"}
    os.environ |= {"SERVING_SPEC_ENV": declared.serving_spec(FUNCTION), "MLRUN_LOG_LEVEL": "ERROR"}

    async def nothing(*_: object) -> None: ...

    logger = nuclio_sdk.Logger("ERROR")
    logger.set_handler("default", io.StringIO(), nuclio_sdk.logger.HumanReadableFormatter())
    forget = {name: lambda _: None for name in ("set_drain_callback", "set_termination_callback")}
    platform = SimpleNamespace(explicit_ack=nothing, **forget)
    trigger = nuclio_sdk.TriggerInfo("modelstream", "serving")
    context = nuclio_sdk.Context(logger, platform, "0", trigger)
    module = types.ModuleType(FUNCTION)
    exec(compile(notebooks.code(declared.notebook(FUNCTION)) + entry_points(), FUNCTION, "exec"), module.__dict__)
    module.init_context(context)
    stage: Any = context.platform.stage
    stage.streams = NoStreams()
    return module, context, stage


async def score_messages(module: Any, context: Any, stage: Any, bodies: Sequence[bytes]) -> dict[str, float]:
    """Give the function all messages; return vectors a second until everything is sent."""
    import nuclio_sdk

    now, trigger = datetime.now(UTC), nuclio_sdk.TriggerInfo("modelstream", "serving")
    events = [
        nuclio_sdk.Event(body=body, trigger=trigger, shard_id=0, offset=offset, timestamp=now, topic="serving")
        for offset, body in enumerate(bodies)
    ]
    cpu, begun = time.process_time(), time.perf_counter()
    for event in events:
        await module.handler(context, event)
    await stage.drain()
    seconds = time.perf_counter() - begun
    vectors = stage.counters.rows_in
    if stage.counters.rows_out != vectors:
        sys.exit(f"{vectors} vectors went in, {stage.counters.rows_out} predictions came out")
    result = {"vectors": vectors, "vectors_per_second": vectors / seconds, "seconds": seconds}
    return {**result, "cpu_seconds": time.process_time() - cpu}


async def ask(module: Any, context: Any, vectors: Any, name: str, count: int) -> dict[str, float]:
    """Send single requests, one after the other; return the median and 99th percentile of their times in ms."""
    import nuclio_sdk

    trigger = nuclio_sdk.TriggerInfo("http", "http")
    path = f"/v2/models/{name}/infer"
    took = np.empty(count + WARM)
    for i in range(count + WARM):
        body = json.dumps({"inputs": [vectors[i % len(vectors)].tolist()]}).encode()
        event = nuclio_sdk.Event(body=body, content_type="text/plain", trigger=trigger, path=path, method="POST")
        begun = time.perf_counter()
        response = module.handler(context, event)
        response = await response if asyncio.iscoroutine(response) else response
        took[i] = time.perf_counter() - begun
        if response.status_code != 200:
            sys.exit(f"a request failed: {response.body}")
    p50, p99 = np.percentile(took[WARM:] * 1000, [50, 99])
    return {"requests": count, "request_p50_ms": float(p50), "request_p99_ms": float(p99)}


async def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start the function and measure both."""
    from modelstream.use_case.file import load_use_case

    module, context, stage = started(folder)
    use_case = load_use_case(os.environ["MODELSTREAM_USE_CASE"])
    bodies, vectors = golden_messages(use_case, arguments.messages)
    gc.freeze()  # as a worker does
    result: dict[str, Any] = {"model_version": stage.model.version}
    result |= await score_messages(module, context, stage, bodies)
    return result | await ask(module, context, vectors, use_case.model_name, arguments.requests)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=3000)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS"):
        os.environ[name] = "1"
    import pyarrow as pa

    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measured(arguments, Path(folder)))))


if __name__ == "__main__":
    main()
