"""Requests to a function's worker over a Unix socket: how HTTP reaches the model server on one machine."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import nuclio_sdk
import nuclio_sdk.event

from modelstream.errors import ConfigurationError


class Request(msgspec.Struct, frozen=True):
    """An HTTP request for a function."""

    method: str
    path: str
    content_type: str
    body: bytes
    headers: dict[str, str] = {}


class Answer(msgspec.Struct, frozen=True):
    """A function's answer."""

    status: int
    content_type: str
    body: bytes


_REQUEST = msgspec.msgpack.Decoder(Request)
_ANSWER = msgspec.msgpack.Decoder(Answer)
MAX_MESSAGE = 64 << 20


LONGEST_PATH = 103
"""Most bytes of a Unix socket's path: 107 on Linux, 103 on macOS."""


def socket_folder(name: str) -> tempfile.TemporaryDirectory[str]:
    """Return a new folder for a socket of this name: in TMPDIR if the socket's path is not too long there, or in /tmp.

    Raises ConfigurationError if neither will do.
    """
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(f"{parent}/modelstream-12345678/{name}")) <= LONGEST_PATH:
            try:
                return tempfile.TemporaryDirectory(prefix="modelstream-", dir=parent)
            except OSError:  # not here
                continue
    raise ConfigurationError(
        f"there is no folder for the socket {name}, whose whole path may have {LONGEST_PATH} bytes",
        remedy="set TMPDIR to a folder with a short path that you may write to",
    )


async def _write(writer: asyncio.StreamWriter, message: Request | Answer) -> None:
    body = msgspec.msgpack.encode(message)
    writer.write(len(body).to_bytes(4, "big") + body)
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_MESSAGE:
        raise ConnectionError(f"a message of {size} bytes")
    return await reader.readexactly(size)


async def ask(path: Path, request: Request) -> Answer:
    """Send a request to the worker that listens at a path; return its answer. Raises OSError if none listens."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        await _write(writer, request)
        return _ANSWER.decode(await _read(reader))
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the function ended before it answered") from error
    finally:
        writer.close()


async def serve(path: Path, handle: Callable[[Any], Awaitable[Any]]) -> asyncio.Server:
    """Answer requests at a path with a function's handler, which takes a Nuclio event."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = _REQUEST.decode(await _read(reader))
            await _write(writer, _answer(await handle(_event(request))))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(connected, str(path))


def _event(request: Request) -> Any:
    """Return the event as Nuclio's HTTP trigger would make it."""
    return nuclio_sdk.Event(
        body=request.body,
        content_type=request.content_type,
        trigger=nuclio_sdk.event.TriggerInfo("http", "http"),
        headers={**request.headers, "Content-Type": request.content_type},
        method=request.method,
        path=request.path,
        size=len(request.body),
        shard_id=-1,
        topic="",
    )


def _answer(result: Any) -> Answer:
    if isinstance(result, nuclio_sdk.Response):
        body = result.body if isinstance(result.body, bytes) else str(result.body).encode()
        return Answer(int(result.status_code), result.content_type or "text/plain", body)
    if isinstance(result, bytes):
        return Answer(200, "application/octet-stream", result)
    if isinstance(result, str):
        return Answer(200, "application/json", result.encode())
    return Answer(200, "application/json", msgspec.json.encode(result))
