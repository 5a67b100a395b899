"""What a client can make the server hold is bounded: headers, connections, requests in flight, time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.http import protocol
from tests.http.alone import Alone, alone
from tests.http.serving import Client, serving, wait_until

MB = 1 << 20
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /events HTTP/1.1\r\nHost: a\r\n"


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def port_of(client: Client) -> int:
    return int(client.server.url.rsplit(":", 1)[1])


def push(one: socket.socket, data: bytes, limit: int) -> None:
    """Send the same again and again, until the limit or until it is not taken."""
    one.settimeout(0.5)
    sent = 0
    try:
        while sent < limit:
            sent += one.send(data)
    except OSError:
        return


def rest(one: socket.socket) -> bytes:
    """Return what is received up to the end of the connection."""
    one.settimeout(10)
    found = b""
    try:
        while part := one.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def is_served(port: int) -> bool:
    with connect(port) as one:
        one.sendall(GET)
        return one.recv(12) == b"HTTP/1.1 200"


# Memory.


def endless_header(server: Alone, stack: ExitStack) -> None:
    one = stack.enter_context(connect(server.port))
    one.sendall(b"GET / HTTP/1.1\r\nX: ")
    push(one, b"a" * MB, 300 * MB)


def endless_headers(server: Alone, stack: ExitStack) -> None:
    one = stack.enter_context(connect(server.port))
    one.sendall(b"GET / HTTP/1.1\r\n")
    push(one, b"a: b\r\n" * 100_000, 10 * MB)


def endless_trailers(server: Alone, stack: ExitStack) -> None:
    one = stack.enter_context(connect(server.port))
    one.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    push(one, b"a: b\r\n" * 100_000, 10 * MB)


def pipelined_gets(server: Alone, stack: ExitStack) -> None:
    for _ in range(5):
        push(stack.enter_context(connect(server.port)), GET * 1000, 5 * MB)


def pipelined_posts(server: Alone, stack: ExitStack) -> None:
    for _ in range(5):
        push(stack.enter_context(connect(server.port)), (POST + b"Content-Length: 2\r\n\r\n{}") * 1000, MB)


def many_half_bodies(server: Alone, stack: ExitStack) -> None:
    for _ in range(350):
        push(stack.enter_context(connect(server.port)), POST + b"Content-Length: 90000\r\n\r\n" + b"a" * 60_000, 1)


ATTACKS = (endless_header, endless_headers, endless_trailers, pipelined_gets, pipelined_posts, many_half_bodies)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.__name__)
def test_memory_is_what_it_was_after_an_attack(attack: Callable[[Alone, ExitStack], None]) -> None:
    with alone() as server, ExitStack() as stack:
        with connect(server.port) as one:
            one.sendall(POST + b"Content-Length: 2\r\n\r\n{}")
            assert one.recv(1000).startswith(b"HTTP/1.1 202")
        before = server.resident()
        attack(server, stack)
        stack.close()
        wait_until(lambda: is_served(server.port))
        wait_until(lambda: server.resident() < before + 50 * MB)
        assert server.peak() < before + 200 * MB


# Requests.


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


EVENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(
    lambda text: b'{"a":\r\n\r\n"%b"}' % text.encode().hex().encode()
)
REQUESTS = st.one_of(
    st.just(GET),
    st.just(b"\r\n" + GET),
    st.just(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
    EVENT.map(lambda body: POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)),
    st.builds(chunked, EVENT, st.integers(1, 7)),
    st.just(chunked(b"{}", 1).replace(b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n")),
)
LAST = b"GET /coffee HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that serves all examples of a property."""
    with serving(tmp_path_factory.mktemp("lasting")) as client:
        yield port_of(client)


@given(st.lists(REQUESTS, max_size=6), st.lists(st.integers(1, 60), min_size=1, max_size=8))
@settings(max_examples=60)
def test_pipelined_requests_are_answered_in_order_however_they_are_cut(
    lasting: int, requests: list[bytes], sizes: list[int]
) -> None:
    data = b"".join([*requests, LAST])
    with connect(lasting) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = number = 0
        while at < len(data):
            size = sizes[number % len(sizes)] * (1 if number < 40 else 1000)
            one.sendall(data[at : at + size])
            at, number = at + size, number + 1
        found = rest(one)
    expected = [{b"P": b"202", b"H": b"200"}.get(request.strip()[:1], b"200") for request in requests] + [b"404"]
    assert [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]] == expected


def test_a_connection_has_one_request_in_hand(client: Client) -> None:
    client.streams.free.clear()
    with connect(port_of(client)) as one:
        one.sendall((POST + b"Content-Length: 2\r\n\r\n{}") * 50)
        assert client.streams.entered.wait(10)
        with connect(port_of(client)) as other:  # whoever comes later is served, so the first was read
            other.sendall(GET)
            assert other.recv(12) == b"HTTP/1.1 200"
        assert len(client.intake._waiting) == 0
        client.streams.free.set()
        wait_until(lambda: client.intake.events == 50)
    assert client.intake.appends == 50


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * (70 << 10), b"431"),
        (b"GET /" + b"a" * (70 << 10), b"431"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 102, b"431"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * (70 << 10), b"431"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\na: " + b"x" * (140 << 10), b"431"),
        (b"hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\n\n" * 2, b"400"),
        (POST + b"Content-Length: -1\r\n\r\n", b"400"),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(client: Client, data: bytes, status: bytes) -> None:
    with connect(port_of(client)) as one:
        one.sendall(data)
        found = rest(one)
    assert found[9:12] == status
    assert b'{"error":"' in found
    assert client.ask("GET", "/healthz")[0] == 200


# Time.


@pytest.mark.parametrize(
    ("limit", "sent", "status"),
    [
        ("IDLE_SECONDS", b"", b""),
        ("IDLE_SECONDS", GET, b"200"),
        ("HEAD_SECONDS", b"GET / HTTP/1.1\r\nX: ", b"408"),
        ("HEAD_SECONDS", GET + b"G", b"200"),
        ("REQUEST_SECONDS", POST + b"Content-Length: 9\r\n\r\n{", b"408"),
        ("REQUEST_SECONDS", POST + b"Transfer-Encoding: chunked\r\n\r\n1", b"408"),
        ("REQUEST_SECONDS", POST + b"Content-Length: 99999999\r\n\r\n{", b"413"),
    ],
)
def test_a_slow_client_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, sent: bytes, status: bytes
) -> None:
    monkeypatch.setattr(protocol, limit, 0.2)
    with serving(tmp_path) as client, connect(port_of(client)) as one:
        begun = time.monotonic()
        one.sendall(sent)
        assert rest(one)[9:12] == status
        assert time.monotonic() - begun < 8


def test_a_client_that_takes_no_answers_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "TAKE_SECONDS", 0.2)
    with serving(tmp_path) as client, connect(port_of(client)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        push(one, GET.replace(b"healthz", b"metrics") * 100, 50 * MB)
        wait_until(lambda: not client.server._server.server_state.connections)


def test_a_request_that_takes_long_to_answer_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("IDLE_SECONDS", "HEAD_SECONDS", "REQUEST_SECONDS", "TAKE_SECONDS"):
        monkeypatch.setattr(protocol, limit, 0.1)
    with serving(tmp_path) as client, connect(port_of(client)) as one:
        client.streams.free.clear()
        one.sendall(POST + b"Content-Length: 2\r\n\r\n{}")
        assert client.streams.entered.wait(10)
        looked = time.monotonic()
        wait_until(lambda: time.monotonic() > looked + 2.5)  # two looks at all connections
        client.streams.free.set()
        assert one.recv(12) == b"HTTP/1.1 202"


def test_more_connections_than_allowed_are_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CONNECTIONS", 3)
    with serving(tmp_path) as client, ExitStack() as stack:
        connections = [stack.enter_context(connect(port_of(client))) for _ in range(3)]
        for one in connections:
            one.sendall(GET)
            assert one.recv(65536).startswith(b"HTTP/1.1 200")
        refused = stack.enter_context(connect(port_of(client)))
        refused.sendall(GET)
        found = rest(refused)
        assert found.startswith(b"HTTP/1.1 503")
        assert b"retry-after:" in found
        connections[0].close()
        wait_until(lambda: len(client.server._server.server_state.connections) < 3)
        assert client.ask("GET", "/healthz")[0] == 200
