"""A server over the streams of a folder, and a client of it, for the tests of HTTP."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modelstream.http.about import about
from modelstream.http.app import Ask, Edge, create_app
from modelstream.http.intake import Intake
from modelstream.http.server import HttpServer, bind
from modelstream.messages.json_text import split_body
from modelstream.runner.metrics import Exporter
from modelstream.runner.rpc import Answer, Request
from modelstream.streams import Streams, open_streams
from modelstream.use_case.file import load_use_case
from tests.streams.wrapped import WrappedStreams

ROOT = Path(__file__).parents[2]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
SHARDS = 4


PRETTY = b'{\n  "user_id": "u1"\n}'


class Switchable(WrappedStreams):
    """The streams of a folder, whose appends can be held up, and can fail."""

    def __init__(self, streams: Streams) -> None:
        super().__init__(streams)
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
        self.entered.set()
        assert self.free.wait(30)
        if self.failure:
            raise self.failure
        return super().append(name, records)


@dataclass
class Client:
    """A server under test, and how to talk to it."""

    server: HttpServer
    streams: Switchable
    exporter: Exporter
    intake: Intake
    folder: Path

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Send a request; return the status, and the answer (decoded if it is JSON)."""
        status, content, _ = self.ask_whole(method, path, body, headers)
        return status, content

    def ask_whole(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", int(self.server.url.rsplit(":", 1)[1]), timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content: Any = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()
        if found.get("content-type", "").startswith("application/json"):
            content = json.loads(content)
        return response.status, content, found

    def stored(self) -> list[tuple[int, bytes]]:
        """Return every event in the stream, with its shard."""
        with open_streams(f"sqlite://{self.folder}") as streams:
            return [
                (shard, line)
                for shard in range(SHARDS)
                for message in streams.read("generated", shard, 0, 10_000, 1 << 30)
                for line in split_body(message.body)
            ]


async def answering(_: Request) -> Answer:
    return Answer(200, "application/json", b'{"outputs": [1]}')


@contextmanager
def serving(
    folder: Path,
    ask: Ask = answering,
    clock: Callable[[], float] | None = None,
    **options: Any,
) -> Iterator[Client]:
    with open_streams(f"sqlite://{folder}") as streams:
        streams.create("generated", SHARDS)
    switchable = Switchable(open_streams(f"sqlite://{folder}"))
    exporter = Exporter(clock) if clock else Exporter()
    intake = Intake(lambda: switchable, "generated", "user_id")
    page = partial(about, CHURN, folder)
    edge = Edge(intake=intake, ask=ask, exporter=exporter, about=page, **options)
    with bind(0) as listener:
        http_server = HttpServer(create_app(edge), listener, folder / "http.log")
        http_server.start()
        try:
            yield Client(http_server, switchable, exporter, intake, folder)
        finally:
            switchable.free.set()
            assert http_server.stop()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Look again and again until something is so; fails if that takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
