"""HTTP/1.1 on a connection as uvicorn speaks it, with bounds that uvicorn's httptools protocol doesn't have.

uvicorn keeps a head (the request line and the headers) of any length, makes an object of every pipelined request as
soon as it comes, and lets a client take forever. Here a connection has one request at a time: bytes that follow it are
kept as they came, and reading stops until the answer is sent.

| bound | what a client gets beyond it |
|---|---|
| HEAD_BYTES, HEADERS | 431 |
| CONNECTIONS | 503, and the connection is closed |
| HEAD_SECONDS, REQUEST_SECONDS | 408 |
| IDLE_SECONDS, TAKE_SECONDS | the connection is closed |

An idle connection costs some 10 KB, a busy one at most 64 KB that are not read yet, 128 KB that the application has not
taken yet, and 128 KB of its answer; the application counts what it takes (`app.IN_HAND_LIMIT`).
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 64 << 10
"""The longest head, and the most that may frame the chunks of a body, trailers included."""
HEADERS = 100
"""A header of four bytes takes 200 in memory."""
READ_BYTES = 64 << 10
"""The most that is read at once: for a connection whose request is being answered, all that is read."""
CONNECTIONS = 256
IDLE_SECONDS = 30.0
HEAD_SECONDS = 10.0
REQUEST_SECONDS = 60.0
"""The longest time from the first byte of a request to its last: 16 MiB at 280 KB/s."""
TAKE_SECONDS = 30.0
"""The longest time in which a client takes nothing of an answer of more than 64 KB."""
LINGER_SECONDS = 2.0
"""Seconds for which a connection stays open after a refusal. Closed at once, the client might never see the reason."""

END = b"\r\n\r\n"
"""Ends a head, and the last chunk of a body with its trailers."""


class RefusedRequestError(Exception):
    """Raised in a callback of the parser, which then stops."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class BoundedProtocol(HttpToolsProtocol, asyncio.BufferedProtocol):
    """One connection. `HttpServer` calls `check` every second."""

    _input = memoryview(bytearray(READ_BYTES))  # a buffer is read and emptied in one step, so one serves all

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._held = b""
        self._at = 0
        """What was read from this byte on is not parsed: it follows the request that is being answered."""
        self._head = True
        """Whether the next byte belongs to a head, or is the first of one."""
        self._whole = True
        """Whether no request is half received."""
        self._body_left: int | None = 0
        """Bytes of the body that have not come yet; None if it comes in chunks."""
        self._framing = 0
        """Bytes that are no body, since the last byte of one."""
        self._tail = b""
        """The last three bytes parsed."""
        self._refused = False
        self._deadline = math.inf
        """When the client must have sent what it sends, or this must have ended."""
        self._take_until = math.inf
        """When the client must have taken some of its answers."""

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection, unless there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._deadline = time.monotonic() + IDLE_SECONDS
        if len(self.connections) > 2 * CONNECTIONS:
            self.transport.abort()
        elif len(self.connections) > CONNECTIONS:
            self._refuse(503, f"more than {CONNECTIONS} connections: send the same again later")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where the transport shall read to."""
        return self._input

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self.data_received(bytes(self._input[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Parse up to the end of a request; keep the rest until it is answered."""
        if not self._refused:
            self._held, self._at = self._held[self._at :] + data, 0
            self._parse()

    def pause_writing(self) -> None:
        """Stop answering: the client doesn't take the answers."""
        super().pause_writing()
        self._take_until = time.monotonic() + TAKE_SECONDS

    def resume_writing(self) -> None:
        """Answer again."""
        super().resume_writing()
        self._take_until = math.inf

    def check(self, now: float) -> None:
        """Close the connection if its time is up; `now` is in seconds of the monotonic clock."""
        if self.transport.is_closing() and self._deadline == math.inf:
            self._deadline = now + LINGER_SECONDS
        if now >= self._take_until or (now >= self._deadline and (self._refused or self.transport.is_closing())):
            self.transport.abort()
        elif now >= self._deadline and self._whole:
            self.transport.close()
            self._deadline = now + LINGER_SECONDS
        elif now >= self._deadline:
            took = HEAD_SECONDS if self._head else REQUEST_SECONDS
            self._refuse(408, f"the {'head of the ' if self._head else ''}request did not come within {took:g} s")

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        if not self._answered or not self._whole:
            raise RefusedRequestError(400, "a request begins before the one before it has ended")
        super().on_message_begin()
        self._whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        super().on_header(name, value)
        if len(self.headers) > HEADERS:
            raise RefusedRequestError(431, f"more than {HEADERS} headers")

    def on_headers_complete(self) -> None:
        """Let the application begin."""
        super().on_headers_complete()
        self._head = False
        fields = dict(self.headers)
        self._body_left = None if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))
        self._deadline = time.monotonic() + REQUEST_SECONDS

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        self._framing = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request: there is no limit to how long the application takes."""
        super().on_message_complete()
        self._whole = self._head = True
        self._framing = 0
        self._deadline = time.monotonic() + IDLE_SECONDS if self._answered else math.inf

    def on_response_complete(self) -> None:
        """Go on with what came after the request; called by uvicorn."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._deadline = time.monotonic() + TAKE_SECONDS
            return
        if self._whole:
            self._deadline = time.monotonic() + IDLE_SECONDS
        self.flow.resume_reading()
        self._parse()

    # How it is done.

    @property
    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _parse(self) -> None:
        """Parse what is held, to the end of a request that is not answered yet. Then reading stops."""
        while self._at < len(self._held) and not self._refused and not self.transport.is_closing():
            if self._whole and not self._answered:
                self.flow.pause_reading()
                return
            begin, self._at = self._at, self._next()
            self._feed(self._held[begin : self._at])
        self._held, self._at = b"", 0

    def _next(self) -> int:
        """Return up to which byte what is held surely has nothing of the next request."""
        end = len(self._held)
        if not self._head and self._body_left is not None:
            return min(self._at + self._body_left, end)
        if self._at == 0:  # the end may have begun in what was read before
            across = (self._tail + self._held[:3]).find(END)
            if across >= 0:
                return across + len(END) - len(self._tail)
        at = self._held.find(END, self._at)
        return end if at < 0 else at + len(END)

    def _feed(self, piece: bytes) -> None:
        if self._whole:
            self._deadline = time.monotonic() + HEAD_SECONDS
            self._tail = b""
        if not self._head and self._body_left is not None:
            self._body_left -= len(piece)
        else:
            self._framing += len(piece)
            self._tail = (self._tail + piece)[-3:]
        head = self._head
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._at = len(self._held)
            self.cycle.keep_alive = False  # what follows would be another protocol
        except httptools.HttpParserCallbackError as error:
            reason = error.__context__
            if not isinstance(reason, RefusedRequestError):
                raise
            self._refuse(reason.status, str(reason))
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is not HTTP/1.1: {error}")
        else:
            if head and self._head and not self._whole and self._framing > HEAD_BYTES:
                self._refuse(431, f"the request line and headers have more than {HEAD_BYTES:,} bytes")
            elif not self._head and self._body_left is None and self._framing > HEAD_BYTES:
                self._refuse(431, f"more than {HEAD_BYTES:,} bytes around the chunks of a body")

    def _refuse(self, status: int, reason: str) -> None:
        """Answer that a connection can't go on, whatever comes after."""
        self._refused = True
        self.parser = None  # type: ignore[assignment]  # as uvicorn does
        self._deadline = time.monotonic() + LINGER_SECONDS
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # so that the application ends
            self.cycle.message_event.set()
        self.flow.resume_reading()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = msgspec.json.encode({"error": reason})
            retry = b"retry-after: 2\r\n" if status == 503 else b""
            self.transport.write(
                STATUS_LINE[status]
                + retry
                + b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
                + str(len(body)).encode()
                + END
                + body
            )
        self.transport.write_eof()
