"""The line between the supervisor and a worker: JSON lines over a socket pair.

Commands go down, reports go up. When the supervisor dies in any way, its end closes and the worker ends itself, so no
worker outlives its supervisor.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from modelstream.stages.counters import Counters, ServedModel

DESCRIPTOR = "MODELSTREAM_CONTROL"
"""The environment variable with the number of the worker's end."""

OUTAGE = 75
"""Exit status of a worker that could not start because of an outage (EX_TEMPFAIL of sysexits.h)."""


class Command(msgspec.Struct, frozen=True):
    """What a supervisor asks of a worker."""

    do: Literal["go", "drain", "stop"]


class Report(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A worker's report: what its stage has done since this process started, and its state."""

    ready: bool = False
    counters: Counters = msgspec.field(default_factory=Counters)
    held: str = ""
    """Why it is held, with the row that a hook failed at; empty if it is not."""
    held_logged: str = ""
    """The same without values of events, if it has some."""
    hopeless: bool = False
    """It is held, and no further attempt will succeed."""
    model: ServedModel | None = None
    total: int = 0
    """Rows that a source has in all, if it knows."""
    finished: bool = False
    """A source has come to its end."""
    result: dict[str, str | int | float] = {}
    error: str = ""
    """Why it has ended, or can't continue if `gone`; empty if it works or is held."""
    remedy: str = ""
    gone: bool = False
    """A file that it uses was deleted: nothing can be saved any more, so the pipeline must end."""
    exit_status: int = 1
    """The exit status of a command that ends with this error."""


_REPORT = msgspec.json.Decoder(Report)
_COMMAND = msgspec.json.Decoder(Command)


class Line:
    """One end of the line. Sending never blocks for long and never fails; reading notices a dead peer."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Line, socket.socket]:
        """Return the supervisor's end, and the socket to hand to the worker."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    @classmethod
    def inherited(cls) -> Line:
        """Return the worker's end, in the process that was started with it."""
        return cls(socket.socket(fileno=int(os.environ[DESCRIPTOR])))

    def send(self, message: Command | Report) -> None:
        """Send one message."""
        with self._sending:
            try:
                self._socket.sendall(msgspec.json.encode(message) + b"\n")
            except OSError:
                return

    def _lines(self) -> Iterator[bytes]:
        with self._socket.makefile("rb") as lines:
            while True:
                try:
                    line = lines.readline()
                except OSError:
                    return
                if not line.endswith(b"\n"):
                    return
                yield line

    def reports(self) -> Iterator[Report]:
        """Yield the worker's reports until it ends."""
        for line in self._lines():
            yield _REPORT.decode(line)

    def commands(self) -> Iterator[Command]:
        """Yield the supervisor's commands until it ends."""
        for line in self._lines():
            yield _COMMAND.decode(line)

    def close(self) -> None:
        """Close this end."""
        with self._sending:
            self._socket.close()


def obey(line: Line, on_command: Callable[[Command], None]) -> threading.Thread:
    """Follow commands in a thread of their own; end the process at once when the supervisor is gone."""

    def follow() -> None:
        for command in line.commands():
            on_command(command)
        os._exit(3)

    thread = threading.Thread(target=follow, name="control", daemon=True)
    thread.start()
    return thread
