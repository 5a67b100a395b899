"""A request over a socket is the event that Nuclio's HTTP trigger would make, and its answer comes back whole."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nuclio_sdk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.runner import rpc
from modelstream.runner.rpc import Answer, Request, ask, serve

Handler = Callable[[Any], Awaitable[Any]]
REQUEST = Request("POST", "/v2/models/churn/infer", "application/json", b"{}")


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # short: a socket's path has at most 104 bytes
        yield Path(folder) / "socket"


def answered(path: Path, handle: Handler, *requests: Request) -> list[Answer]:
    """Return the answers to requests that are sent all at once."""

    async def work() -> list[Answer]:
        async with await serve(path, handle):
            return await asyncio.gather(*(ask(path, request) for request in requests))

    return asyncio.run(work())


async def echo(event: Any) -> Any:
    return nuclio_sdk.Response(body=event.body, status_code=202, content_type=event.content_type)


@settings(max_examples=50)
@given(
    st.builds(
        *(Request, st.text(min_size=1), st.text().map("/{}".format), st.text(min_size=1), st.binary()),
        headers=st.dictionaries(st.text(), st.text()),
    )
)
def test_what_is_asked_is_the_event_and_what_is_answered_comes_back(path: Path, request: Request) -> None:
    seen: list[Any] = []

    async def note(event: Any) -> Any:
        seen.append(event)
        return await echo(event)

    assert answered(path, note, request) == [Answer(202, request.content_type, request.body)]
    (event,) = seen
    assert (event.method, event.path, event.content_type, event.body) == (
        *(request.method, request.path, request.content_type, request.body),
    )
    assert event.headers == {**request.headers, "Content-Type": request.content_type}
    assert (event.trigger.kind, event.trigger.name) == ("http", "http")
    assert (event.size, event.shard_id, event.topic) == (len(request.body), -1, "")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (nuclio_sdk.Response(body=b"\xff", status_code=500), Answer(500, "text/plain", b"\xff")),
        (nuclio_sdk.Response(body="ü", status_code=404, content_type="a/b"), Answer(404, "a/b", "ü".encode())),
        (nuclio_sdk.Response(body="", content_type=""), Answer(200, "text/plain", b"")),
        (b"\xff", Answer(200, "application/octet-stream", b"\xff")),
        ('{"ü": 1}', Answer(200, "application/json", '{"ü": 1}'.encode())),
        ({"a": [1.5, None]}, Answer(200, "application/json", b'{"a":[1.5,null]}')),
    ],
)
def test_whatever_a_handler_returns_is_an_answer(path: Path, result: Any, expected: Answer) -> None:
    async def handle(_: Any) -> Any:
        return result

    assert answered(path, handle, REQUEST) == [expected]


def test_requests_at_once_get_their_own_answers(path: Path) -> None:
    bodies = [json.dumps({"n": n}).encode() * 20_000 for n in range(20)]

    async def handle(event: Any) -> Any:
        await asyncio.sleep(0.001 * (event.body[6] % 7))
        return event.body

    found = answered(path, handle, *(Request("POST", "/", "", body) for body in bodies))
    assert [answer.body for answer in found] == bodies


def test_a_request_that_nobody_listens_for_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(ask(path.with_name("nowhere"), REQUEST))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path.with_name("dead")))
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(ask(path.with_name("dead"), REQUEST))


def test_the_socket_of_a_worker_that_was_killed_is_taken_over(path: Path) -> None:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert answered(path, echo, REQUEST)[0].status == 202


async def failing(_: Any) -> Any:
    raise RuntimeError("a defect")


@pytest.mark.parametrize("limit", [10, 1 << 26])
def test_without_an_answer_the_connection_was_lost(path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Because the handler fails, or because the request is too large for the worker: it doesn't read that."""
    monkeypatch.setattr(rpc, "MAX_MESSAGE", limit)
    handled: list[Any] = []

    async def handle(event: Any) -> Any:
        handled.append(event)
        return await failing(event)

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with await serve(path, handle):
            with pytest.raises(ConnectionError, match="the function ended before it answered"):
                await ask(path, REQUEST)

    asyncio.run(work())
    assert len(handled) == (limit > 10)


def test_an_answer_that_is_too_large_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(_: Any) -> Any:
        monkeypatch.setattr(rpc, "MAX_MESSAGE", 100)  # from here on
        return b"x" * 1000

    with pytest.raises(ConnectionError, match=r"a message of 10\d\d bytes"):
        answered(path, handle, REQUEST)


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x09abc"])
def test_a_client_that_hangs_up_disturbs_nobody(path: Path, sent: bytes) -> None:
    troubles: list[Any] = []

    async def work() -> Answer:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        async with await serve(path, echo):
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.write(sent)
            writer.close()
            await writer.wait_closed()
            return await ask(path, REQUEST)

    assert asyncio.run(work()).status == 202
    assert troubles == []


def test_a_socket_has_a_short_path_wherever_temporary_files_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 80) / ("y" * 30)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with rpc.socket_folder("model-server") as folder:
        assert answered(Path(folder) / "model-server", echo, REQUEST)[0].status == 202
    assert not Path(folder).exists()
    with pytest.raises(ConfigurationError, match="no folder for the socket") as raised:
        rpc.socket_folder("n" * 90)
    assert "TMPDIR" in raised.value.remedy
