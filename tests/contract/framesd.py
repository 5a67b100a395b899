"""framesd for tests: the program itself where MODELSTREAM_FRAMESD names it, and a client that does without.

framesd is a program in Go of the public repository v3io/frames, no part of this one: `go build ./cmd/framesd` makes it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from modelstream.clients.v3io import Container, V3ioAddress

PROGRAM = "MODELSTREAM_FRAMESD"
"""The environment variable with the path of the program."""


class Frames:
    """Stands for `v3io_frames.Client`: writes items as framesd does, and keeps what it was given."""

    written: list[list[str]]
    """The keys of each request."""

    def __init__(self, address: str, container: str, should_check_version: bool) -> None:
        assert not should_check_version, "it would warn of a version that nobody set"
        self._container = container

    def write(self, backend: str, table: str, frame: Any, save_mode: str) -> None:
        """An item of the key and what the row has replaces the one of the same name, as the key is, whole."""
        assert (backend, save_mode) == ("kv", "overwriteItem")
        self.written.append(list(frame.index))
        puts = [
            {"table_path": table, "key": key, "attributes": {frame.index.name: key, **row.dropna().to_dict()}}
            for key, row in frame.iterrows()
        ]
        with closing(Container(V3ioAddress.of(f"v3io://{self._container}/{table}"))) as container:
            for _ in container.many(("kv", "put", put) for put in puts):
                pass


@contextmanager
def running(program: str, api: str, folder: Path) -> Iterator[dict[str, str]]:
    """Start framesd on the web API at an address; give its own addresses, by `http` and `grpc`."""
    config, log = folder / "framesd.yaml", folder / "framesd.log"
    options = {"log": {"level": "warn"}, "disableHistory": True, "disableProfiling": True}
    described = {"webApiEndpoint": api, "container": "bigdata", "backends": [{"type": "kv"}], **options}
    config.write_text(json.dumps(described))  # which is YAML too
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    command = [program, "-config", str(config), "-httpAddr", addresses[0], "-grpcAddr", addresses[1]]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while "server running" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"framesd did not start: {log.read_text()}")
            time.sleep(0.02)
        yield {"http": f"http://{addresses[0]}", "grpc": addresses[1]}
    finally:
        process.terminate()
        process.wait(10)


def free_ports(number: int) -> list[int]:
    """Return ports of 127.0.0.1 where nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def program() -> str:
    return os.environ.get(PROGRAM, "")
