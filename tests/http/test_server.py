"""The server has one port, and answers what it has in hand before it ends."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError
from modelstream.http import server
from modelstream.http.server import bind
from tests.http.serving import PRETTY, Client, serving, wait_until


def test_stopping_answers_what_is_in_hand_once_it_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 60)  # a busy machine may need more than its second for this test
    with serving(tmp_path) as client:
        client.streams.free.clear()
        with ThreadPoolExecutor(2) as pool:
            answer = pool.submit(client.ask, "POST", "/events", PRETTY)
            assert client.streams.entered.wait(10)
            stopped = pool.submit(client.server.stop)
            wait_until(lambda: not listens(client))
            with pytest.raises(TimeoutError):
                stopped.result(0.4)
            assert not answer.done()
            client.streams.free.set()
            assert answer.result() == (202, {"accepted": 1})
            assert stopped.result()
        assert len(client.stored()) == 1


def listens(client: Client) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(client.server.url.rsplit(":", 1)[1])), 1).close()
    except OSError:
        return False
    return True


def test_a_port_that_is_taken_is_said_clearly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is in use") as caught:
            bind(port)
    assert "--port" in caught.value.remedy
