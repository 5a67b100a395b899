"""Nuclio's side of a Python worker: its sockets, its messages and its signals, as nuclio 1.14's processor has them."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from modelstream.streams import Message

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
"""Seconds within which anything must happen, on a busy machine too."""


class Zygote:
    """Starts workers, see `zygote.py`."""

    def __init__(self, wrapper: Path, folder: Path, *, serving: bool) -> None:
        self._folder = folder
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment |= {"MLRUN_HTTPDB__NOP_DB__VERBOSE": "false", "MLRUN_LOG_LEVEL": "ERROR"}
        environment.pop("MLRUN_DBPATH", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nuclio.zygote", str(wrapper), *(["serving"] if serving else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline().strip()) != "ready":
            assert line or self._process.poll() is None, "the zygote has died"

    def start(self, arguments: list[str], environment: dict[str, str], code: Path) -> int:
        """Return the process id of a new worker."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        log = str(self._folder / "workers.log")
        asked = {"arguments": arguments, "environment": environment, "code": str(code), "log": log}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(DEADLINE)
        self._process.stdout.close()


@dataclass
class Function:
    """What a worker runs."""

    name: str
    handler: str
    code: Path
    """The folder with its module."""
    environment: dict[str, str]
    trigger: str = "kafka-cluster"


@dataclass
class Worker:
    """A wrapper's process, with the processor's ends of its two sockets."""

    number: int
    function: Function
    on_ack: Callable[[Worker, int, int], None]
    pid: int = 0
    lines: queue.Queue[str] = field(default_factory=queue.Queue)
    waiting: list[Message] = field(default_factory=list)
    """Messages that it was given and has not answered: one at most."""
    logged: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0
    ended: int = 0
    """Callbacks that were waited for."""
    controls: int = 0
    """Messages that came on the control socket."""

    def start(self, zygote: Zygote, folder: Path) -> Worker:
        """Start the process; return when it says that it is ready."""
        paths = [folder / f"{kind}-{self.number}.sock" for kind in ("event", "control")]
        servers = []
        for path in paths:
            path.unlink(missing_ok=True)
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.bind(str(path))
            server.listen(1)
            server.settimeout(DEADLINE)
            servers.append(server)
        arguments = ["--handler", self.function.handler, "--event-socket-path", str(paths[0])]
        arguments += ["--control-socket-path", str(paths[1]), "--platform-kind", "kube", "--namespace", "tests"]
        arguments += ["--worker-id", str(self.number), "--trigger-kind", self.function.trigger]
        arguments += ["--trigger-name", "in", "--decode-event-strings"]
        self.pid = zygote.start(arguments, self.function.environment, self.function.code)
        self._events, self._control = (server.accept()[0] for server in servers)
        for server in servers:
            server.close()
        threading.Thread(target=self._listen, args=(self._events, self.lines.put), daemon=True).start()
        threading.Thread(target=self._listen, args=(self._control, self._take_control), daemon=True).start()
        assert self._next("s") == ""
        # A drain that comes before the wrapper waits for its first message is done after that message.
        until(lambda: self.controls > 0 and self._state() == "S", "the worker doesn't wait for messages")
        return self

    def send(self, message: Message, topic: str) -> None:
        """Give it a message. It must have answered the one before."""
        assert not self.waiting, "the processor waits for an answer"
        self.waiting.append(message)
        body = msgspec.msgpack.encode(event(message, topic, self.function.trigger))
        self._events.sendall(len(body).to_bytes(4, "big") + body)

    def taken(self) -> None:
        """Wait until the function has the message in its hands."""
        self._logs("taken")

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the message; return it."""
        while True:
            line = self._line()
            if line.startswith("r"):
                self.waiting.clear()
                self.answered += 1
                return dict(json.loads(line[1:]))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def go_on(self) -> None:
        """Let it go on after a drain, or after it stood still; what comes before it knows would be discarded."""
        self.signal(signal.SIGCONT)
        while True:
            self._logs("Received signal")
            if self.logged[-1]["with"]["signal"] == "SIGCONT":
                return

    def called_back(self) -> None:
        """Wait until the drain or termination callback has ended; it may do so before a message is answered."""
        self.ended += 1
        while sum(line["message"] == "called back" for line in self.logged) < self.ended:
            self._line()

    def settled(self) -> None:
        """Wait until what it has sent on the control socket is taken."""
        sent = sum(line["message"] == "Sending data on control socket" for line in self.logged)
        until(lambda: self.controls >= sent, "an acknowledgement doesn't arrive")

    def kill(self) -> None:
        """End it as a crash or a lost node does."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Wait until the process is gone."""
        until(lambda: self._state() in ("", "Z"), "the worker doesn't end")
        for end in (self._events, self._control):
            end.close()

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _state(self) -> str:
        """Return the state of the process as the kernel tells it: S is waiting, Z and "" are gone."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def _listen(self, end: socket.socket, put: Callable[[str], None]) -> None:
        with suppress(OSError), end.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                put(line.rstrip("\n"))
        self.lines.put("")

    def _take_control(self, line: str) -> None:
        message = json.loads(line)
        if message["kind"] == "streamMessageAck":
            attributes = message["attributes"]
            self.on_ack(self, attributes["partition"], attributes["offset"])
        self.controls += 1

    def _line(self) -> str:
        try:
            line = self.lines.get(timeout=DEADLINE)
        except queue.Empty:
            line = ""
        said = [f"{one['message']} {one['with']}" for one in self.logged[-15:]]
        assert line, f"worker {self.number} ({self._state() or 'dead'}) is silent; it said last: {said}"
        if line.startswith("l"):
            self.logged.append(json.loads(line[1:]))
        return line

    def _next(self, kind: str) -> str:
        while not (line := self._line()).startswith(kind):
            pass
        return line[1:]

    def _logs(self, words: str) -> None:
        while True:
            line = self._line()
            assert not line.startswith("r"), "an answer to nothing"
            if line.startswith("l") and self.logged[-1]["message"] == words:
                return


def until(condition: Callable[[], bool], problem: str) -> None:
    """Return when a condition holds; fail with `problem` if it never does."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.0005)


def event(message: Message, topic: str, trigger: str) -> dict[str, Any]:
    """Return a stream's message as the processor encodes it (facts: body bytes, no content type, whole seconds)."""
    return {
        "body": message.body,
        "content_type": "",
        "content-type": "",
        "trigger": {"kind": trigger, "name": "in"},
        "fields": {},
        "headers": {},
        "id": f"{message.shard}-{message.offset}-{time.monotonic_ns()}",
        "method": "",
        "path": topic,
        "size": len(message.body),
        "timestamp": message.appended_at // 1_000_000,
        "url": "",
        "shard_id": message.shard,
        "num_shards": 0,
        "type": "",
        "type_version": "",
        "version": "",
        "offset": message.offset,
        "topic": topic,
    }
