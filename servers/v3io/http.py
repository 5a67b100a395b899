"""Part of a test tool (see README.md): HTTP/1.1 on asyncio, just as much as V3IO's clients use.

Header names are sent as `Content-Length`, not `content-length`: v3io-py's tests look for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

REASONS = {200: "OK", 204: "No Content", 206: "Partial Content"}


@dataclass
class Request:
    """A request, read whole."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes


@dataclass
class Response:
    """What to answer, and when."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    dropped: bool = False
    """Close the connection instead of answering, although the request was done."""


class Connection(asyncio.Protocol):
    """A client's connection: requests one after the other."""

    def __init__(self, answer: Callable[[Request], Response], pending: Callable[[int], None]) -> None:
        self._answer = answer
        self._pending = pending
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            lines = self._buffer[:end].decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            size = end + 4 + int(headers.get("content-length", "0"))
            if len(self._buffer) < size:
                if headers.pop("expect", "") and self._transport is not None:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self._buffer[end + 4 : size])
            del self._buffer[:size]
            path, _, query = target.partition("?")
            request = Request(method, unquote(path), dict(parse_qsl(query, keep_blank_values=True)), headers, body)
            response = self._answer(request)
            if response.delay:
                self._pending(1)
                asyncio.get_running_loop().call_later(response.delay, self._send_late, request, response)
            else:
                self._send(request, response)

    def _send_late(self, request: Request, response: Response) -> None:
        self._pending(-1)
        self._send(request, response)

    def _send(self, request: Request, response: Response) -> None:
        assert self._transport is not None
        if response.dropped:
            self._transport.abort()
            return
        head = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Error')}"]
        head += [f"{name}: {value}" for name, value in response.headers.items()]
        if response.status != 204:
            head.append(f"Content-Length: {len(response.body)}")
        body = b"" if request.method == "HEAD" else response.body
        self._transport.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
