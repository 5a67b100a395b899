"""The base class of servers: a process on 127.0.0.1 with a folder for its data."""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
STOP_PATIENCE = 30.0
"""Seconds that a server may take to stop before it is killed; 0.1 to 2 were measured."""


class ServerError(Exception):
    """A server can't be started, or stopped unexpectedly; the text says why, and what to do."""


class Server(ABC):
    """A server: started, stopped, killed, and started again at the same address with what it had.

    `with` starts and stops it. Without a folder it uses a temporary one, which is deleted when `with` ends; without a
    port it takes a free one. On Linux it ends with the thread that started it, even if that is killed.
    """

    name: ClassVar[str]
    """What it is called on the command line."""
    usual_port: ClassVar[int]
    patience: ClassVar[float] = 30.0
    """Seconds that it may take to start."""

    def __init__(self, folder: Path | None = None, port: int = 0) -> None:
        self._is_temporary = folder is None
        self.folder = folder or Path(tempfile.gettempdir()) / f"{self.name}-{uuid.uuid4().hex}"
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    @abstractmethod
    def missing(cls) -> str:
        """Return what is missing on this machine to run it, and how to get it; "" if nothing is."""

    @abstractmethod
    def options(self, name: str) -> dict[str, str]:
        """Return the options of `pipeline.py` that make it use the server, for a pipeline of this name."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command that runs it."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its clients need."""
        return {}

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.folder / "server.log"

    def start(self) -> None:
        """Start, and wait until it answers; raises ServerError if it can't."""
        self.check()
        self.folder.mkdir(0o700, parents=True, exist_ok=True)
        self._prepare()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C for who started it is none for the server
                preexec_fn=end_with_parent,  # tests that are killed leave none behind
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to stop, and wait until it has closed its files properly."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend it: it accepts connections but does not answer."""
        process = self.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def check(self) -> None:
        """Raise ServerError if it can't be started: something is missing, or its port is taken."""
        if lacking := self.missing():
            raise ServerError(f"{self.name} can't be started: {lacking}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended hold no port
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise ServerError(
                    f"{self.name} can't be started: {self.address} is not free ({error.strerror}). If a server of "
                    f"yours runs there, use that or stop it; or give another port: {self.name}:{self.port + 1}"
                ) from None

    def words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _prepare(self) -> None:  # noqa: B027  most have nothing to do
        """Make what it needs in its folder."""

    def _answers(self) -> bool:
        """Tell whether it answers."""
        with suppress(OSError):
            socket.create_connection((HOST, self.port), 1).close()
            return True
        return False

    def _wait_until_it_answers(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + self.patience
        while not self._answers():
            if self.process.poll() is not None:
                raise ServerError(f"{self.name} stopped while starting: {self.words()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} does not answer after {self.patience:.0f} s: {self.words()}")
            time.sleep(0.02)

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        try:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_PATIENCE)
        finally:  # also when the one who waits is interrupted
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
