"""Servers start, stop and start again in one way, tell what is in their way, and leave nothing behind."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from servers import __main__ as command
from servers import base, kafka
from servers.base import HOST, ROOT, Server, ServerError, free_port
from servers.redis import RedisServer
from servers.s3 import S3Server
from servers.v3io.process import V3ioServer
from tests.required import require

QUICK = [RedisServer, S3Server, V3ioServer]
"""What Kafka's broker does takes seconds; tests/contract/test_kafka_streams.py stops, kills and restarts it."""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


@contextmanager
def started(folder: Path, *names: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m servers` with its temporary files in a folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "servers", *names],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    said = ""
    while text not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


@pytest.mark.parametrize("kind", QUICK)
def test_server_keeps_its_address_over_a_restart_and_leaves_nothing(kind: type[Server]) -> None:
    require(kind)
    with kind() as server:
        address, process = server.address, server.process
        assert not is_free(server.port)
        server.kill()
        assert is_free(server.port)
        server.start()
        assert server.address == address and server.process is not process
        assert not is_free(server.port)
    assert is_free(server.port)
    assert not server.folder.exists()


def test_folder_that_was_given_stays(tmp_path: Path) -> None:
    with V3ioServer(tmp_path) as server:
        assert server.log.exists()
    assert server.journal.exists()


@pytest.mark.parametrize("kind", QUICK)
def test_port_that_is_taken_is_told_at_once(kind: type[Server]) -> None:
    require(kind)
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"{HOST}:{port} is not free") as caught:
            kind(port=port).start()
        assert f"{kind.name}:{port + 1}" in str(caught.value)


def test_server_that_ends_as_it_starts_is_told_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(V3ioServer, "_command", lambda _: [sys.executable, "-c", "print('why'); raise SystemExit(3)"])
    with pytest.raises(ServerError, match="v3io stopped while starting: why"):
        V3ioServer(tmp_path).start()


def test_server_that_does_not_answer_is_told_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(V3ioServer, "_command", lambda _: [sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(V3ioServer, "patience", 0.2)
    server = V3ioServer(tmp_path)
    with pytest.raises(ServerError, match="does not answer"):
        server.start()
    assert server.process is None


def test_server_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "STOP_PATIENCE", 0.2)
    server = V3ioServer()
    with server, server.suspended():
        process = server.process
        server.stop()
        assert process is not None and process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a server outlives who is killed")
def test_server_ends_with_who_started_it(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, f"v3io:{port}") as process:
        read_until(process, "Ctrl-C")
        assert not is_free(port)
    deadline = time.monotonic() + 30
    while not is_free(port):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_to_type_is_what_the_readme_says(tmp_path: Path) -> None:
    usual = [command.make(name, tmp_path) for name in command.USUAL]
    (line,) = [line for line in command.how_to_use(usual).splitlines() if "pipeline.py" in line]
    known = [line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if "kafka://" in line]
    assert shlex.split(line)[1:] in [shlex.split(line)[1:] for line in known]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_command_says_how_to_use_the_servers_and_stops_them(tmp_path: Path, ending: signal.Signals) -> None:
    require(RedisServer)
    ports = free_port(), free_port()
    with started(tmp_path, f"redis:{ports[0]}", f"v3io:{ports[1]}") as process:
        said = read_until(process, "Ctrl-C")
        assert "--tables v3io://bigdata/churn/tables --streams v3io://bigdata/churn/streams" in said
        assert f"export V3IO_API=http://127.0.0.1:{ports[1]}" in said
        assert not any(map(is_free, ports))
        (folder,) = tmp_path.iterdir()
        assert f"are in {folder}," in said
        process.send_signal(ending)
        assert process.wait(60) == 0
        assert all(map(is_free, ports))
        assert not folder.exists()


def test_command_ends_with_an_error_when_a_server_does(tmp_path: Path) -> None:
    require(RedisServer)
    port = free_port()
    with started(tmp_path, f"redis:{port}") as process:
        read_until(process, "Ctrl-C")
        redis.Redis(HOST, port, retry=Retry(NoBackoff(), 0)).shutdown(nosave=True)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert told.startswith("redis stopped unexpectedly") and "Traceback" not in told


def test_all_that_is_missing_is_told_at_once_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kafka, "JARS", tmp_path / "kafka")
    with pytest.raises(ServerError) as caught:
        command.run(["kafka", "redis"])
    assert str(caught.value).splitlines() == [
        "kafka can't be fetched: java is not installed (Debian: apt-get install default-jre-headless maven)",
        "redis can't be started: redis-server is not installed (Debian: apt-get install redis-server)",
    ]


@pytest.mark.parametrize("given", ["mysql", "redis:", "redis:x", "redis:0", "redis:65536"])
def test_what_is_no_server_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="is not a server: write kafka, redis"):
        command.make(given, tmp_path)
