"""Measures the other backends against SQLite, with servers of its own: `make bench ARGS="--only backends"`.

    python -m bench.backends --rounds 1 --users 100      # prints JSON

A round is the same file over SQLite and over Kafka with Redis, one after the other; V3IO's stand-in, a Python program
that says nothing of V3IO's speed, gets a tenth of it. The rows of all logs must be the same to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.dataset as ds

from modelstream.messages.identity import Checkpoint
from modelstream.tables import open_tables
from modelstream.use_case.file import load_use_case
from servers.kafka import KafkaServer
from servers.redis import RedisServer
from servers.v3io.process import V3ioServer

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "bench" / "data"
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
FLUSHED = 2_000
"""Rows of a flush."""
PART = 10
"""V3IO's stand-in gets the events of a tenth of the users."""


@dataclass(frozen=True)
class Backend:
    """Where a run keeps its streams and tables, as options of `pipeline.py`, and tables to measure beside it."""

    options: dict[str, str]
    tables: str


@contextmanager
def backends(scratch: Path) -> Iterator[dict[str, Backend]]:
    """Give the backends by name; what SQLite and Kafka keep lies in a folder."""
    with KafkaServer(scratch / "broker") as kafka, RedisServer() as redis, V3ioServer() as v3io:
        os.environ |= v3io.environment
        os.environ.pop("V3IO_FRAMESD", None)
        yield {
            "SQLite": Backend({}, f"sqlite://{scratch / 'tables'}"),
            "Kafka, Redis": Backend(kafka.options("bench") | redis.options("bench"), redis.url("tables")),
            "V3IO's stand-in": Backend(v3io.options("bench"), v3io.options("tables")["--tables"]),
        }


def run(folder: Path, source: Path, options: dict[str, str]) -> dict[str, Any]:
    """Run the pipeline from scratch; return its summary."""
    files = ["--input", source / "events.ndjson", "--enrichment", source / "enrichment.csv", "--data", folder]
    command = [sys.executable, "pipeline.py", "run", *files, "--json", "--quiet", "--fresh", *sum(options.items(), ())]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{options}: {done.stderr}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def rows(folder: Path) -> pa.Table:
    """Return the rows of the log of predictions, without the time of each prediction."""
    table = ds.dataset(folder / "inference").to_table().drop_columns(["predicted_at"])
    return table.sort_by([("origin", "ascending"), ("position", "ascending")]).combine_chunks()


def make_input(users: int, events_per_user: int) -> Path:
    """Make the input file if it is not there."""
    folder = DATA / f"{users}x{events_per_user}"
    if not (folder / "done").exists():
        options = ["--users", str(users), "--events-per-user", str(events_per_user)]
        command = [sys.executable, "-m", "bench.make_input", str(folder), *options]
        subprocess.run(command, cwd=ROOT, check=True)
        (folder / "done").touch()
    return folder


def table_times(url: str, source: Path) -> tuple[float, float]:
    """Return the seconds that loading the table to look up takes, and a flush of rows of new users."""
    table = csv.read_csv(source / "enrichment.csv").rename_columns(["key", "value"])
    table = table.cast(pa.schema([("key", pa.string()), ("value", pa.float64())])).combine_chunks()
    schema = CHURN.row_schema
    flushed = pa.record_batch(
        [
            pa.array([f"user-{number}" for number in range(FLUSHED)])
            if field.name == schema[0].name
            else pa.array([1] * FLUSHED, pa.int64()).cast(field.type)
            if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            else pa.nulls(FLUSHED, field.type)
            for field in schema
        ],
        schema=schema,
    )
    with open_tables(url) as tables:
        begun = time.perf_counter()
        tables.lookup("measured").load(table.to_batches())
        loaded = time.perf_counter()
        features = tables.features(schema)
        features.checkpoint(0)
        opened = time.perf_counter()
        assert features.commit(0, flushed, Checkpoint(1))
        return loaded - begun, time.perf_counter() - opened


def run_rounds(
    found: dict[str, Backend], rounds: int, scratch: Path, whole: Path, part: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return what the runs of each backend said, a list of rounds; exits if one gives other rows than SQLite."""
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in found}
    for number in range(rounds):
        expected: dict[Path, pa.Table] = {}
        for name, backend in found.items():
            source = part if name.startswith("V3IO") else whole
            if source not in expected:
                summary = run(scratch / "sqlite", source, {})
                expected[source] = rows(scratch / "sqlite")
            if backend.options:
                folder = scratch / backend.options["--streams"].partition(":")[0]
                summary = run(folder, source, backend.options)
                if not rows(folder).equals(expected[source]):
                    sys.exit(f"{name} gives other rows than SQLite")
            said[name].append(summary)
            speed = summary["events_per_second"]
            print(f"round {number + 1}: {name}: {speed:,.0f} events/s", file=sys.stderr, flush=True)
    return said


def main() -> None:
    """Measure, and print one JSON object: the measurements of each backend by its name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--events-per-user", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    whole = make_input(given.users, given.events_per_user)
    part = make_input(max(1, given.users // PART), given.events_per_user)
    with tempfile.TemporaryDirectory(dir=DATA) as temporary, backends(Path(temporary)) as found:
        said = run_rounds(found, given.rounds, Path(temporary), whole, part)
        measured = {}
        for name, backend in found.items():
            load_seconds, flush_seconds = table_times(backend.tables, whole)
            measured[name] = {
                "events": said[name][-1]["events"],
                "events_per_second": statistics.median(one["events_per_second"] for one in said[name]),
                "load_seconds": load_seconds,
                "flush_seconds": flush_seconds,
            }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
