"""The HTTP server: uvicorn in a thread of the supervisor's process, reachable only from this machine."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.http.protocol import BoundedProtocol

HOST = "127.0.0.1"
START_SECONDS = 15.0
ANSWER_SECONDS = 1
"""Seconds in which requests are still answered when the server stops. The functions then have the rest of 5 s to flush.
"""


def bind(port: int) -> socket.socket:
    """Return a socket bound to a port, 0 for any that is free. Raises ConfigurationError."""
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named: without, an answer takes 40 ms more.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            what, remedy = "is in use", "stop the program that listens there, or give another --port"
        else:
            what, remedy = f"can't be used: {error.strerror}", "give another --port, above 1023"
        raise ConfigurationError(f"port {port} of {HOST} {what}", remedy=remedy) from None
    return listener


class _Server(uvicorn.Server):
    async def on_tick(self, counter: int) -> bool:
        """Once a second, close connections whose time is up; uvicorn calls this every 0.1 s."""
        if counter % 10 == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.check(now)
        return await super().on_tick(counter)


class HttpServer:
    """Serves an application until it is stopped; logs to a file."""

    def __init__(self, app: Starlette, listener: socket.socket, log: Path) -> None:
        self._listener = listener
        self._log = log
        # Not uvicorn's own logging set-up: it writes to the terminal, over the live table.
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            proxy_headers=False,
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=ANSWER_SECONDS,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def url(self) -> str:
        """The address."""
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Listen. Raises ModelstreamError if that fails."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            self._thread.join(0.01)
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ModelstreamError("the HTTP server did not start", remedy=f"see the end of {self._log}")

    def is_alive(self) -> bool:
        """Tell whether it serves."""
        return self._thread.is_alive()

    def stop(self) -> bool:
        """Accept no more requests, and answer those in progress; return whether all were answered."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(ANSWER_SECONDS + 1.0)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with _logging_to(self._log):
                self._server.run(sockets=[self._listener])
        except SystemExit:  # uvicorn's way to say that the application did not start
            return


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Let uvicorn and asyncio log to a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("uvicorn", "asyncio")]
    for logger in loggers:
        logger.handlers = [handler]
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
