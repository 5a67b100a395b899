"""A real Redis server for tests: on 127.0.0.1 and a free port, in a folder of its own, every write synced.

python -m servers.redis [--port 6379]       run a server until Ctrl-C, to try things on
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

PATIENCE = 30.0
"""Seconds that a server may take to start: 0.05 to 0.3 were seen."""


class RedisServer:
    """A server over a folder: started, stopped, killed, and started again at the same address."""

    def __init__(self, folder: Path, port: int | None = None, *options: str) -> None:
        self.folder = folder
        self.port = port or _free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, prefix: str, db: int = 0) -> str:
        """Return a URL of tables."""
        return f"redis://127.0.0.1:{self.port}/{db}?prefix={prefix}"

    def client(self, db: int = 0) -> redis.Redis:
        """Return a plain client, to look at what is stored."""
        return redis.Redis(port=self.port, db=db, decode_responses=True)

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--loglevel", "warning"]
        command = ["redis-server", *place, *durable, *self.options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < deadline, self.words()
            time.sleep(0.02)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop, or kill."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.stop(signal.SIGKILL)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let it stand still: it takes connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def words(self) -> str:
        """Return what it wrote to its log."""
        return (self.folder / "server.log").read_text()[-2000:]

    def _answers(self) -> bool:
        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False


def missing() -> str:
    """Return what is missing to run a server; "" if nothing is."""
    return (
        "" if shutil.which("redis-server") else "redis-server is not installed (Debian: apt-get install redis-server)"
    )


def require() -> None:
    """Skip the test where there is no server: on a laptop. In CI that is a failure."""
    if lacking := missing():
        if os.environ.get("CI") or os.environ.get("MODELSTREAM_CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)


@contextmanager
def running(*options: str) -> Iterator[RedisServer]:
    """Run a server in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), None, *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=6379)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="redis-") as here:
        shown = RedisServer(Path(here), given.port)
        shown.start()
        print(f'--tables "{shown.url("churn")}"', flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
        shown.stop()
