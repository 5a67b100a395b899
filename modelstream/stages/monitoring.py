"""Sends what the model server answers to MLRun's model monitoring, beside its work.

`offer` only queues: a thread sends, once a second, in batches. MLRun takes a record apart row by row, some thousands in
a second, so of more rows it gets a uniform sample, with the percentage that it is. While its stream or its API is away,
rows wait in a bounded queue; those beyond it are left out, counted, and told. Predictions never wait for any of this.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from modelstream.errors import ModelstreamError
from modelstream.model.onnx import Floats
from modelstream.model.scoring import Scores
from modelstream.streams import Streams

EVERY = 1.0
"""Seconds between two batches."""
MOST_ROWS = 1_000
"""Rows of a batch, beyond which it is a sample: MLRun's stream function, in Python, handles a few thousand a second."""
WAITING_ROWS = 100_000
"""Rows that may wait: 5 MB of thirteen features."""
RECORD_BYTES = 300_000
"""Size of a record, about: V3IO and Kafka take 1 MB."""
LAST_PAUSE = 30.0
"""Seconds between tries during an outage, at most."""

Say = Callable[[str, str], None]


@dataclass(frozen=True)
class Connection:
    """Where the answers of a version of the model go. `Monitor` has an example."""

    endpoint: str
    """The uid of its model endpoint in MLRun."""
    streams: Streams
    stream: str


@dataclass(frozen=True)
class About:
    """What each record says of the function. `Monitor` has an example."""

    model: str
    """The endpoint's name."""
    class_name: str
    function_uri: str
    worker: str = "0"
    host: str = field(default_factory=socket.gethostname)


@dataclass(frozen=True)
class Answered:
    """The vectors of a message or a request, float32[n, features], and the answers to them.

    `Monitor` has an example.
    """

    version: str
    vectors: Floats
    scores: Scores
    at: float
    """When it was asked, in seconds since 1970."""
    seconds: float
    """How long the answer took."""

    def __len__(self) -> int:
        return len(self.vectors)


class Monitor:
    """The queue and its thread. Call `start`; or call `send` yourself.

    >>> import tempfile
    >>> from modelstream.streams import open_streams
    >>> vectors, scores = np.ones((3, 2), np.float32), Scores(np.array([0, 1, 1], np.int8), np.array([0.2, 0.7, 0.9]))
    >>> with tempfile.TemporaryDirectory() as folder, open_streams(f"sqlite://{folder}") as streams:
    ...     info = streams.create("monitoring", shards=1)
    ...     about = About("frost", "Model", "heating/model-server")
    ...     monitor = Monitor(about, connect=lambda version: Connection("ab12", streams, "monitoring"), say=print)
    ...     monitor.offer("3", vectors, scores, started=time.time())
    ...     monitor.send()
    ...     body = streams.read("monitoring", 0, 0, 1, 1)[0].body
    >>> record = msgspec.json.decode(body)
    >>> record["endpoint_id"], record["request"]["inputs"][0], record["resp"]["outputs"]
    ('ab12', [1.0, 1.0], [[0, 0.2], [1, 0.7], [1, 0.9]])
    """

    def __init__(
        self, about: About, connect: Callable[[str], Connection], say: Say, *, seed: int | None = None
    ) -> None:
        """`connect` returns where the answers of a version go; it may fail, and is then called again.

        `say` is called in the monitor's thread.
        """
        self.left_out = 0
        """Rows that were not sent because the queue was full."""
        self._about, self._connect, self._say = about, connect, say
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._waiting: list[Answered] = []
        self._waiting_rows = 0
        self._batch: list[tuple[str, list[dict[str, Any]]]] = []
        self._connections: dict[str, Connection] = {}
        self._problem = ""
        self._told = 0

    def offer(self, version: str, vectors: Floats, scores: Scores, started: float) -> None:
        """Queue the answers to a message or request, unless the queue is full. It never waits for anything."""
        count = len(vectors)
        if not count:
            return
        with self._lock:
            if self._waiting_rows + count > max(WAITING_ROWS, count):
                self.left_out += count
                return
            self._waiting.append(Answered(version, vectors, scores, started, time.time() - started))
            self._waiting_rows += count

    def send(self) -> None:
        """Send what waits. Raises ModelstreamError, or whatever MLRun's client raises; the same is then sent again."""
        if not self._batch:
            self._batch = self._sampled(self._taken())
        while self._batch:
            version, records = self._batch[0]
            connection = self._connections.get(version)
            if connection is None:
                connection = self._connections[version] = self._connect(version)
            shards = connection.streams.describe(connection.stream).shards
            shard = zlib.crc32(connection.endpoint.encode()) % shards  # an endpoint's records stay in order
            bodies = [(shard, self._body(record, connection.endpoint)) for record in records]
            connection.streams.append(connection.stream, bodies)
            self._batch.pop(0)

    def start(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Send from now on, in a thread of its own, as long as the server is alive."""
        threading.Thread(target=self._work, args=(alive,), name="monitoring", daemon=True).start()

    # In the thread.

    def _work(self, alive: Callable[[], bool]) -> None:
        pause, wait = threading.Event(), EVERY
        while not pause.wait(wait) and alive():
            wait = EVERY if self._sent() else min(2 * wait, LAST_PAUSE)

    def _sent(self) -> bool:
        """Send, and tell what has changed; return whether it went well."""
        problem = ""
        try:
            self.send()
        except Exception as error:  # the thread must go on, whatever MLRun's client or a server comes up with
            known = isinstance(error, ModelstreamError)
            problem = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self._connections.clear()  # the endpoint may be gone, or another one
        if bool(problem) != bool(self._problem):
            self._say("MLRun's monitoring gets no records" if problem else "MLRun's monitoring gets records", problem)
        self._problem = problem
        if not problem and self.left_out != self._told:
            why = f"{self.left_out - self._told:,} predictions, since the queue was full; {self.left_out:,} so far"
            self._say("not told to MLRun's monitoring", why)
            self._told = self.left_out
        return not problem

    def _taken(self) -> list[Answered]:
        with self._lock:
            taken, self._waiting, self._waiting_rows = self._waiting, [], 0
        return taken

    def _sampled(self, answered: Sequence[Answered]) -> list[tuple[str, list[dict[str, Any]]]]:
        """Return the records of each version, of at most `MOST_ROWS` rows in all, drawn uniformly."""
        total = sum(map(len, answered))
        kept = min(total, MOST_ROWS)
        chosen = np.sort(self._random.choice(total, kept, replace=False)) if kept < total else np.arange(total)
        records: list[tuple[str, list[dict[str, Any]]]] = []
        first = 0
        for one in answered:
            low, high = np.searchsorted(chosen, (first, first + len(one)))
            rows = chosen[low:high] - first
            first += len(one)
            if len(rows):
                if not records or records[-1][0] != one.version:
                    records.append((one.version, []))
                records[-1][1].extend(self._records(one, rows, 100 * kept / total))
        return records

    def _records(self, one: Answered, rows: np.ndarray[Any, Any], percentage: float) -> list[dict[str, Any]]:
        """Return some rows of a message as records."""
        size = max(1, RECORD_BYTES // (25 * (one.vectors.shape[1] + 2)))
        return [self._record(one, rows[at : at + size], percentage) for at in range(0, len(rows), size)]

    def _record(self, one: Answered, rows: np.ndarray[Any, Any], percentage: float) -> dict[str, Any]:
        """Return a record as MLRun's own V2ModelServer writes it (`_ModelLogPusher`), but for its endpoint.

        There, `effective_sample_count` is the number of rows, and MLRun's stream function counts it for each row: n
        rows as n². Here it is 1, as its comment says.
        """
        about, identity = self._about, str(uuid.uuid4())
        when = datetime.fromtimestamp(one.at, UTC).isoformat(sep=" ", timespec="microseconds")
        outputs = zip(one.scores.prediction[rows].tolist(), one.scores.probability[rows].tolist(), strict=True)
        return {
            "class": about.class_name,
            "worker": about.worker,
            "model": about.model,
            "host": about.host,
            "function_uri": about.function_uri,
            "sampling_percentage": percentage,
            "labels": {"version": one.version},
            "request": {"id": identity, "inputs": one.vectors[rows].tolist()},
            "op": "infer",
            "resp": {
                "id": identity,
                "model_name": about.model,
                "outputs": [list(answer) for answer in outputs],
                "timestamp": when,
            },
            "when": when,
            "microsec": round(one.seconds * 1e6),
            "effective_sample_count": 1,
        }

    def _body(self, record: dict[str, Any], endpoint: str) -> bytes:
        response = record["resp"] | {"model_endpoint_uid": endpoint}
        return msgspec.json.encode(record | {"endpoint_id": endpoint, "resp": response})
