"""Single JSON records of a foreign producer on Kafka, and what the event-handler takes until they are in its log.

    python -m bench.foreign --input events.ndjson --records 500000

The topic is filled before the clock starts, over all partitions, with records of one event each: no key, no envelope.
Then one process of the event-handler, as the pipeline runs it, reads them, sends them on and writes `events`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from confluent_kafka import Producer

from modelstream.runner.line import DESCRIPTOR, Command, Line
from modelstream.runner.pipeline import PROCESS
from modelstream.runner.worker import Assignment
from modelstream.settings import Settings
from modelstream.stores import Stores
from modelstream.streams.kafka import KafkaStreams
from servers.kafka import KafkaServer

ROOT = Path(__file__).resolve().parents[1]
SHARDS = 8
PATIENCE = 600.0


def fill(broker: KafkaServer, topic: str, source: Path, records: int) -> None:
    """Send the first lines of a file, one a record."""
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 20, "queue.buffering.max.messages": 1 << 20})
    with source.open("rb") as lines:
        for number, line in enumerate(itertools.islice(lines, records)):
            producer.produce(topic, line.rstrip(), partition=number % SHARDS)
            if number % 10_000 == 0:
                producer.poll(0)
    producer.flush()


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(broker: KafkaServer, folder: Path, source: Path, records: int) -> dict[str, float]:
    """Return seconds, and CPU seconds of the event-handler and the broker, from the first read to the last commit."""
    settings = Settings(
        function="event-handler",
        use_case=str(ROOT / "use_cases" / "churn.yaml"),
        reads="generated",
        writes="incoming-events",
        streams=broker.url(folder.name),
        tables=f"sqlite://{folder / 'tables'}",
        logs=str(folder / "logs"),
        shards=SHARDS,
    )
    assignment = Assignment(notebook=str(ROOT / "functions" / "event-handler.ipynb"), shards=tuple(range(SHARDS)))
    command = [sys.executable, "-m", "modelstream.runner.worker", msgspec.json.encode(assignment).decode()]
    line, end = Line.pair()
    with Stores.of(settings) as stores:
        streams = stores.streams
        assert isinstance(streams, KafkaStreams)
        for name in ("generated", "incoming-events", "dead-letters"):
            streams.create(name, SHARDS)
        fill(broker, streams.address.topic("generated", 0), source, records)
        environment = os.environ | settings.environment() | PROCESS | {DESCRIPTOR: str(end.fileno())}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[end.fileno()])
        end.close()
        reports = line.reports()
        assert next(reports).ready
        begun, own, brokers = time.perf_counter(), cpu(process.pid), cpu(_pid(broker))
        acked = 0
        while acked < records:
            if time.perf_counter() > begun + PATIENCE or process.poll() is not None:
                sys.exit(f"only {acked:,} of {records:,} records were taken")
            time.sleep(0.05)
            acked = sum(offset + 1 for offset in streams.acked("event-handler", "generated").values())
        seconds = time.perf_counter() - begun
        own, brokers = cpu(process.pid) - own, cpu(_pid(broker)) - brokers
        line.send(Command("stop"))
        process.wait(30)
        line.close()
        if (kept := stores.events_log.count()) != records:
            sys.exit(f"{kept:,} rows of {records:,} records")
    return {"records": records, "seconds": seconds, "cpu_seconds": own, "broker_cpu_seconds": brokers}


def _pid(broker: KafkaServer) -> int:
    assert broker.process is not None
    return broker.process.pid


def main() -> None:
    """Measure, and print one JSON object a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="a file of at least as many events")
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, KafkaServer(Path(temporary) / "broker") as broker:
        for number in range(arguments.rounds):
            folder = Path(temporary) / f"round-{number}"
            folder.mkdir()
            found = measure(broker, folder, arguments.input, arguments.records)
            rates = {"records_per_second": found["records"] / found["seconds"]}
            rates["records_per_cpu_second"] = found["records"] / found["cpu_seconds"]
            print(json.dumps({name: round(value, 2) for name, value in (found | rates).items()}), flush=True)


if __name__ == "__main__":
    main()
