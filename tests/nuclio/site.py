"""A cluster on this machine: servers and a folder, and the functions in Nuclio's processor as `deploy` sends them.

MLRun's API is a stand-in, which notes what it is sent; so is V3IO. Kafka, Redis and the processor are real.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelstream.cluster import deploy, functions, jobs
from modelstream.cluster.file import load_cluster
from modelstream.cluster.options import WorkflowOptions
from modelstream.errors import UnavailableError
from modelstream.logs.parquet import ParquetLog
from modelstream.model.onnx import as_input, load_model
from modelstream.project import load_project
from modelstream.settings import from_environment
from modelstream.source.lines import LineSplitter
from modelstream.source.sender import messages
from modelstream.stores import Stores
from modelstream.streams.letters import read_letters
from modelstream.use_case.file import load_use_case
from servers.base import Server
from servers.kafka import KafkaServer
from servers.redis import RedisServer
from servers.v3io.process import V3ioServer
from tests.cluster.mlrun_api import StandIn
from tests.faults import inputs
from tests.faults.expected import Truth
from tests.nuclio.pods import Pod, until_all, warnings_of
from tests.oracle import read_values

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
PROJECT = load_project(ROOT / "project.yaml")
CHURN = load_use_case(ROOT / PROJECT.params.use_case)
CHAIN = PROJECT.chain.consumers
PATIENCE = 600.0
"""Seconds within which everything must be processed, and acknowledged, after the last message."""


@dataclass(frozen=True)
class Servers:
    """Where streams and tables are, on servers that run."""

    broker: Server
    """The server of the streams, which may be killed."""
    streams: str
    """A URL, below which each site has streams of its own."""
    tables: str
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of every function, in the cluster's file."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Values of secrets, which pods get from Kubernetes."""
    more: str = ""
    """Further lines of the cluster's file."""

    @classmethod
    def open(cls, kafka: KafkaServer, redis: RedisServer, name: str) -> Servers:
        """Return Kafka and Redis."""
        return cls(kafka, kafka.url(name), redis.url(name))

    @classmethod
    def iguazio(cls, v3io: V3ioServer, name: str) -> Servers:
        """Return V3IO's stand-in for both."""
        place = f"v3io://projects/{name}"
        key = {"V3IO_ACCESS_KEY": v3io.environment["V3IO_ACCESS_KEY"]}
        more = f"v3io_api: {v3io.endpoint}\nsecrets: {{V3IO_ACCESS_KEY: {{secret: v3io, key: accessKey}}}}\n"
        return cls(v3io, f"{place}/streams", f"{place}/tables", {"V3IO_API": v3io.endpoint}, key, more)


class Site:
    """The servers, the pods, and what must come out of what was sent."""

    def __init__(self, folder: Path, servers: Servers, sizes: str) -> None:
        self.folder, self.servers = folder, servers
        self.happened: Counter[str] = Counter()
        self.sent = 0
        values = read_values(GOLDEN / "enrichment.csv")
        self.truth = Truth(CHURN, values)
        self.file = folder / "cluster.yaml"
        env = {"MODELSTREAM_COMMIT_MS": "100", "MODELSTREAM_LINGER_MS": "5"} | dict(servers.env)
        self.file.write_text(
            f"streams: {servers.streams}\ntables: {servers.tables}\nlogs: file://{folder}/logs\n"
            f"image: registry.local/modelstream:1\nfolder: {ROOT}\nvolumes:\n- {{claim: any, path: {folder}}}\n"
            f"env: {json.dumps(env)}\nfunctions: {sizes}\n{servers.more}"
        )
        self.cluster = load_cluster(self.file, PROJECT)
        with pytest.MonkeyPatch.context() as patch:
            for variable, text in {
                **functions.environment(PROJECT, self.cluster, "prepare"),
                **servers.secrets,
            }.items():
                patch.setenv(variable, text)
            jobs.prepare(SimpleNamespace(logger=SimpleNamespace(info=lambda _: None)))
            self.stores = Stores.of(from_environment())
        lookup = pa.record_batch({"key": [*values], "value": [*values.values()]})
        self.stores.tables.lookup("enrichment").load([lookup])
        self.pods = [
            Pod(sent, folder / f"{sent['metadata']['name']}-{number}", servers.secrets)
            for sent in self._deployed()
            for number in range(self.cluster.size(sent["metadata"]["name"]).replicas)
        ]

    def _deployed(self) -> list[dict[str, Any]]:
        """Return the functions as MLRun's API gets them from `deploy`."""
        import mlrun

        with StandIn() as api, pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLRUN_DBPATH", api.url)
            patch.setenv("MLRUN_HTTPDB__LOGS__NUCLIO__PULL_DEPLOY_STATUS_DEFAULT_INTERVAL", "0")
            mlrun.mlconf.reload()
            told: dict[str, Any] = {"engine": "local", "dry_run": False, "diff": False, "output": self.folder}
            deploy.deploy(self.file, WorkflowOptions(), folder=ROOT, **told)
        mlrun.mlconf.reload()
        assert [*api.functions] == [*reversed(CHAIN)]
        return [api.functions[name] for name in CHAIN]

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            if pod.process is not None:
                pod.kill()
        self.stores.close()

    def start(self, *pods: Pod) -> None:
        """Start pods, or all, and wait until they are ready."""
        for pod in pods or self.pods:
            pod.start()
        until_all([*(pods or self.pods)])

    def replicas(self, number: int) -> list[Pod]:
        """Return the pods with a number, the first being 0: one of each function that has so many."""
        return [pod for pod in self.pods if pod.folder.name == f"{pod.name}-{number}"]

    def send(self, lines: bytes, origin: str, *, most: int) -> None:
        """Send the lines of an input in messages of at most `most` of them, and note what must come of them."""
        streams, source = self.stores.streams, PROJECT.params.wiring[PROJECT.chain.source].writes
        shards = PROJECT.params.shards
        found = LineSplitter(CHURN.key).feed(lines, last=True).lines
        records = messages(found, shards, origin, 0, most=most)
        for first in range(0, len(records), 500):
            streams.append(source, records[first : first + 500])
        for shard, body in records:
            self.truth.append(0, shard, 0, shards, body)
        self.sent += len(records)

    def lag(self) -> dict[str, int]:
        """Return how much of its stream each function has not acknowledged."""
        return {name: self.stores.lag(name, PROJECT.params.wiring[name].reads) for name in CHAIN}

    def finish(self, *, most: float = 0) -> float:
        """Wait until no function has more than `most` rows left to acknowledge; return the seconds that it took."""
        begun = time.monotonic()
        while True:
            lag = self._lag_if_there()
            if lag is not None and all(left <= most for left in lag.values()):
                return time.monotonic() - begun
            for pod in self.pods:
                pod.tend()
            words = "\n".join(pod.words() for pod in self.pods)
            assert time.monotonic() - begun < PATIENCE, f"{lag} after {dict(self.happened)}:\n{words}"
            time.sleep(0.2)

    def _lag_if_there(self) -> dict[str, int] | None:
        try:
            return self.lag()
        except UnavailableError:
            return None

    def check(self) -> None:
        """Compare everything with the events applied one at a time: each once, to the last bit."""
        logs = self.folder / "logs"
        model = load_model(ROOT / PROJECT.params.model, CHURN.features)

        def probability_of(vector: list[float]) -> float:
            return float(model.predict(as_input([np.array([value]) for value in vector]))[0])

        self.truth.check_events(ParquetLog(logs / "events", CHURN.events_log_schema, 0), logs / "events")
        predictions = ParquetLog(logs / "inference", CHURN.inference_log_schema, 0)
        self.truth.check_rows(self.stores.features)
        self.truth.check_letters(list(read_letters(self.stores.streams, "dead-letters")))
        self.truth.check_predictions(predictions, logs / "inference", probability_of)

    def told(self) -> str:
        """Return in one line what was sent, what came out, and what happened."""
        events, vectors = (sum(map(len, rows.values())) for rows in (self.truth.events, self.truth.vectors))
        starts = sum(pod.starts for pod in self.pods)
        return (
            f"{events} events in {self.sent} messages, {vectors} predictions, {len(self.truth.letters)} dead letters; "
            f"{len(self.pods)} pods, started {starts} times; {dict(self.happened)}; {warnings_of(self.pods)}"
        )

    # What happens to pods.

    def interrupt(self, rng: random.Random, kind: str) -> None:
        """Let something happen to a pod of any function, or to the broker, and note it."""
        self.happened[kind] += 1
        self.happened["with messages waiting"] += any((self._lag_if_there() or {"": 1}).values())
        pod = rng.choice([pod for pod in self.pods if pod.is_ready()] or self.pods)
        if kind == "pod killed":
            pod.kill()
        elif kind == "worker killed":
            self.happened[kind] -= not pod.kill_a_worker(rng.randrange(8))
        elif kind == "pod terminated":
            pod.terminate()
        elif kind == "broker killed":
            self.servers.broker.kill()
            time.sleep(rng.uniform(0, 3))
            self.servers.broker.start()
        elif kind == "replica leaves and joins":
            pod.terminate()
            self._run_on(rng.uniform(1, 8), but=pod)
        for each in self.pods:
            each.tend()

    def _run_on(self, seconds: float, but: Pod) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for pod in self.pods:
                if pod is not but:
                    pod.tend()
            time.sleep(0.1)


KINDS = ("pod killed", "worker killed", "pod terminated", "replica leaves and joins", "broker killed")


def schedule(rng: random.Random, count: int) -> Iterator[str]:
    """Yield what shall happen: each kind, in about equal numbers, but the broker is killed less often."""
    for number in range(count):
        yield KINDS[number] if number < len(KINDS) else rng.choices(KINDS, (8, 6, 4, 6, 2))[0]


def golden(rng: random.Random) -> list[bytes]:
    """Return all golden events, with bad lines among them."""
    lines = [*(GOLDEN / "edge_events.ndjson").read_bytes().splitlines()]
    lines += (GOLDEN / "reference_events.ndjson").read_bytes().splitlines()
    for _ in range(60):
        lines.insert(rng.randrange(len(lines)), inputs.bad_line(rng, ("u1", "u2", "x")))
    return lines
