"""Part of a test tool (see README.md): the server in a process of its own, to be killed and started again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec

from servers.base import Server

from .service import FAULTS_PATH, Faults, Seen


class V3ioServer(Server):
    """The stand-in: what it has confirmed is there after a kill. Without `access_key` any key will do."""

    name = "v3io"
    usual_port = 8081

    def __init__(self, folder: Path | None = None, port: int = 0, *, access_key: str = "") -> None:
        super().__init__(folder, port)
        self._access_key = access_key

    @classmethod
    def missing(cls) -> str:
        """Return nothing: it needs no more than the library."""
        return ""

    @property
    def endpoint(self) -> str:
        """Where its web API is."""
        return f"http://{self.address}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its clients need."""
        return {"V3IO_API": self.endpoint, "V3IO_ACCESS_KEY": self._access_key or "any"}

    def options(self, name: str) -> dict[str, str]:
        """Return the options that put streams and tables there."""
        return {f"--{kind}": f"v3io://bigdata/{name}/{kind}" for kind in ("streams", "tables")}

    @property
    def journal(self) -> Path:
        """The file that keeps everything over a restart."""
        return self.folder / "journal"

    def fail(self, **faults: Any) -> None:
        """Let things go wrong from now on (see `Faults`); without arguments nothing does."""
        request = Request(self.endpoint + FAULTS_PATH, msgspec.json.encode(Faults(**faults)), method="POST")
        urlopen(request, timeout=10).close()

    def seen(self) -> Seen:
        """Return what was asked for since the faults were set."""
        with urlopen(self.endpoint + FAULTS_PATH, timeout=10) as response:
            return msgspec.json.decode(response.read(), type=Seen)

    def _command(self) -> list[str]:
        given = ["--port", str(self.port), "--journal", str(self.journal), "--access-key", self._access_key]
        return [sys.executable, "-m", "servers.v3io", *given]
