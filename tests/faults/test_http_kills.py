"""`pipeline.py serve` under single events and kill -9: whatever is killed, each event that was accepted counts once.

MODELSTREAM_KILLS kills, of functions and of the service itself. A client whose connection broke doesn't know whether
its event was taken, and doesn't send it again: such an event may be there, once, or not.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest

from modelstream.logs.parquet import ParquetLog
from modelstream.streams import open_streams
from modelstream.tables import open_tables
from tests.end_to_end.test_serve import Service, serving, until
from tests.faults.expected import Truth
from tests.faults.kills import CHURN, KILLS, PATIENCE, SHARDS, kill_process, workers_of

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")]

CLIENTS = 8
KINDS = ("bet", "win", "bet", "purchase")
KILLS_A_SERVICE = 10
"""So many functions are killed, then the service."""
CALM = 1.0
"""Seconds between two kills, at most."""
USERS = 50


class Clients:
    """Posts events, one a request, over some connections, to whichever service runs; each event once."""

    def __init__(self) -> None:
        self.url = ""
        """Empty while there is no service."""
        self.accepted: set[int] = set()
        self.sent = 0
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._post, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _post(self) -> None:
        connection, url = None, ""
        while not self._stopping.is_set():
            if self.url != url:
                if connection is not None:
                    connection.close()
                url = self.url
                connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30) if url else None
            if connection is None:
                self._stopping.wait(0.02)
                continue
            number = next(self._numbers)
            self.sent = max(self.sent, number + 1)
            try:
                connection.request("POST", "/events", event(number))
                answer = connection.getresponse()
                answer.read()
                if answer.status == 202:
                    self.accepted.add(number)
                else:
                    assert answer.status in (429, 503), answer.status
                    self._stopping.wait(0.05)
            except (OSError, http.client.HTTPException):
                connection.close()
                self._stopping.wait(0.02)
        if connection is not None:
            connection.close()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def event(number: int) -> bytes:
    """Return an event that can be told from all others: its amount is its number."""
    user, turn = number % USERS, number // USERS
    kind = ("registration", "purchase", *KINDS)[turn if turn < 2 else 2 + turn % len(KINDS)]
    at = f"2026-11-16 12:{number // 600 % 60:02d}:{number // 10 % 60:02d}"
    value = {"purchase": "amount", "bet": "bet_amount", "win": "win_amount"}.get(kind)
    amount = {value: number} if value else {}
    return json.dumps(
        {"user_id": f"u{user}", "event_type": kind, "event_time": at, "number": number, **amount}
    ).encode()


def kill_one(service: Service, rng: random.Random) -> bool:
    """Kill a function; return whether one was found."""
    workers = list(workers_of(service.process.pid))
    chosen = [handle for name, handle in workers if name != "being started"]
    killed = bool(chosen) and kill_process(rng.choice(chosen))
    for _, handle in workers:
        os.close(handle)
    return killed


def calm(rng: random.Random) -> None:
    """Let a random moment pass: the next kill must find the functions anywhere in their cycles."""
    time.sleep(CALM * rng.random())


CHAIN = {
    "event-handler": "generated",
    "stream-to-features": "incoming-events",
    "model-server": "serving",
    "inference-logger": "inference",
}


def all_stored(data: Path) -> bool:
    """Tell whether every function, from the first to the last, has acknowledged all that is in its stream."""
    with open_streams(f"sqlite://{data}/streams") as streams:
        for function, name in CHAIN.items():  # what one has acknowledged, it has sent on
            acked = streams.acked(function, name)
            if any(acked[shard] < end - 1 for shard, (_, end) in streams.ranges(name).items()):
                return False
    return True


@pytest.mark.timeout(1800)
def test_each_accepted_event_counts_once_whatever_is_killed(tmp_path: Path) -> None:
    data, rng, killed = tmp_path / "data", random.Random("http"), 0
    clients = Clients()
    try:
        while killed < KILLS:
            with serving(data, "--quiet") as service:
                clients.url = service.url
                for _ in range(min(KILLS_A_SERVICE, KILLS - killed)):
                    before = len(clients.accepted)
                    until(lambda before=before: len(clients.accepted) > before, PATIENCE)  # type: ignore[misc]
                    calm(rng)
                    until(lambda service=service: kill_one(service, rng), PATIENCE)  # type: ignore[misc]
                    killed += 1
                service.process.kill()
                clients.url = ""
                killed += 1
    finally:
        clients.stop()
    with serving(data, "--quiet") as service:
        until(lambda: all_stored(data), PATIENCE)
        service.stop()
    print(f"{killed} kills; {len(clients.accepted)} of {clients.sent} events accepted")
    check(data, clients)


def check(data: Path, clients: Clients) -> None:
    """Check the logs and the features: what is in the stream once, and what was accepted is in it."""
    truth = Truth(CHURN, {})
    with ExitStack() as open_stores:
        streams = open_stores.enter_context(open_streams(f"sqlite://{data}/streams"))
        tables = open_stores.enter_context(open_tables(f"sqlite://{data}/tables"))
        for shard in range(SHARDS):
            offset, end = streams.range("generated", shard)
            while offset < end:
                for message in streams.read("generated", shard, offset, 1000, 1 << 24):
                    truth.append(0, shard, message.offset, SHARDS, message.body)
                    offset = message.offset + 1
        truth.check_events(ParquetLog(data / "events", CHURN.events_log_schema, 0), data / "events")
        truth.check_predictions(ParquetLog(data / "inference", CHURN.inference_log_schema, 0), data / "inference")
        truth.check_rows(tables.features(CHURN.row_schema))
    numbers = [json.loads(extra)["number"] for extra in pd.read_parquet(data / "events", columns=["extra"])["extra"]]
    assert len(numbers) == len(set(numbers))
    assert clients.accepted <= set(numbers)
    assert not truth.letters
