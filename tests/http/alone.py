"""The HTTP server by itself in a process of its own, so that its memory can be looked at: `python -m tests.http.alone`.

It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelstream.http.about import about
from modelstream.http.app import Edge, create_app
from modelstream.http.intake import Intake
from modelstream.http.server import HttpServer, bind
from modelstream.runner.metrics import Exporter
from modelstream.runner.rpc import Answer, Request
from modelstream.streams import open_streams
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Alone:
    """A server's process and its port."""

    process: subprocess.Popen[bytes]
    port: int

    def resident(self) -> int:
        """Return its resident memory, in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def peak(self) -> int:
        """Return the highest resident memory since the start, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


@contextmanager
def alone(**changed: float) -> Iterator[Alone]:
    """Start a server, with some constants of `modelstream.http.protocol` changed."""
    command = [sys.executable, "-m", "tests.http.alone", *(f"{name}={value}" for name, value in changed.items())]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        try:
            yield Alone(process, int(process.stdout.readline()))
            process.stdin.close()
            process.wait(20)
        finally:
            process.kill()


async def _model(_: Request) -> Answer:
    return Answer(200, "application/json", b'{"outputs": [1]}')


def main() -> None:
    """Serve until standard input ends."""
    if len(sys.argv) > 1:
        from modelstream.http import protocol

        for name, value in (argument.split("=") for argument in sys.argv[1:]):
            setattr(protocol, name, float(value) if "." in value else int(value))
    use_case = load_use_case(ROOT / "use_cases" / "churn.yaml")
    with tempfile.TemporaryDirectory() as name, bind(0) as listener:
        folder = Path(name)
        with open_streams(f"sqlite://{folder}") as streams:
            streams.create("generated", 8)
        intake = Intake(lambda: open_streams(f"sqlite://{folder}"), "generated", use_case.key_path)
        edge = Edge(intake=intake, ask=_model, exporter=Exporter(), about=partial(about, use_case, folder))
        server = HttpServer(create_app(edge), listener, folder / "http.log")
        server.start()
        print(listener.getsockname()[1], flush=True)
        sys.stdin.read()
        server.stop()


if __name__ == "__main__":
    main()
