"""Part of a test tool (see README.md): the server in a process of its own, to be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec

from .service import FAULTS_PATH, Faults, Seen

ROOT = Path(__file__).parents[2]


class Server:
    """A server on a free port of 127.0.0.1, which it keeps over restarts."""

    def __init__(self, journal: Path | None = None, *options: str) -> None:
        self._journal = journal
        self._options = options
        self._port = "0"
        self.start()

    def start(self) -> None:
        """Start it; it answers when this returns."""
        journal = [] if self._journal is None else ["--journal", str(self._journal)]
        command = [
            sys.executable,
            "-m",
            "servers.v3io",
            "--with-parent",
            "--port",
            self._port,
            *journal,
            *self._options,
        ]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the V3IO stand-in did not start: {self.process.wait()}")
        self._port = self.url.rpartition(":")[2]

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.process.kill()
        self._ended()

    def stop(self) -> None:
        self.process.terminate()
        self._ended()

    def fail(self, **faults: Any) -> None:
        """Let things go wrong from now on (see `Faults`); without arguments nothing does."""
        request = Request(self.url + FAULTS_PATH, msgspec.json.encode(Faults(**faults)), method="POST")
        urlopen(request, timeout=10).close()

    def seen(self) -> Seen:
        """Return what was asked for since the faults were set."""
        with urlopen(self.url + FAULTS_PATH, timeout=10) as response:
            return msgspec.json.decode(response.read(), type=Seen)

    def environment(self) -> dict[str, str]:
        """Return the environment that clients need."""
        return {**os.environ, "V3IO_API": self.url, "V3IO_ACCESS_KEY": "any"}

    def _ended(self) -> None:
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
