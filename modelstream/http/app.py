"""The HTTP application: accepts events, answers requests for predictions, and shows the state of the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from modelstream.errors import GoneError, ModelstreamError, UnavailableError
from modelstream.http.bodies import MAX_BODY, RefusedError
from modelstream.http.intake import Intake
from modelstream.http.overload import overload
from modelstream.runner.metrics import CONTENT_TYPE, Exporter
from modelstream.runner.rpc import Answer, Request

IN_HAND_LIMIT = 64 << 20
"""Bytes of request bodies held at the same time. Beyond this, clients get 503 and retry, so that memory stays bounded.
"""
RETRY_SECONDS = 2
"""Seconds after which a client should retry after an outage.

The model server is started again after 0.2 s, and needs 6 s.
"""
INFER_SECONDS = 10.0
"""The longest wait for the model server. If it takes longer, an outage holds it, and the client is told."""

MAX_DELAY = 30.0
OVERLOAD_SECONDS = 5
"""Seconds after which a client should retry when the pipeline is behind."""

METHODS = frozenset({"GET", "HEAD", "POST"})

FORM = "application/x-www-form-urlencoded"
"""The content type that curl sends by default; it is taken for JSON."""

Handler = Callable[[HttpRequest], Awaitable[Response]]
Ask = Callable[[Request], Awaitable[Answer]]
"""Sends a request to the model server; OSError when it isn't there."""


@dataclass(frozen=True)
class Edge:
    """What the HTTP application needs from the pipeline behind it."""

    intake: Intake
    ask: Ask
    exporter: Exporter
    about: Callable[[str], str]
    """Returns what `GET /` tells, for the address of the server."""
    max_delay: float = MAX_DELAY
    """Events get 503 when one that was accepted has been waiting for longer than this, in seconds."""
    infer_seconds: float = INFER_SECONDS
    in_hand_limit: int = IN_HAND_LIMIT


def create_app(edge: Edge) -> Starlette:
    """Return the application. All answers are JSON, except `/` and `/metrics`; errors have the reason in `error`."""
    handlers = _Handlers(edge)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await edge.intake.start()
        yield
        await edge.intake.close()

    def route(path: str, handler: Handler, *methods: str) -> Route:
        return Route(path, handlers.answering(path, handler), methods=methods)

    return _Application(
        handlers,
        routes=[
            route("/", handlers.about, "GET"),
            route("/events", handlers.events, "POST"),
            route("/v2", handlers.model, "GET"),
            route("/v2/{rest:path}", handlers.model, "GET", "POST"),
            route("/metrics", handlers.metrics, "GET"),
            route("/healthz", handlers.health, "GET"),
        ],
        exception_handlers={HTTPException: handlers.no_route, Exception: handlers.defect},
        lifespan=lifespan,
    )


class _Application(Starlette):
    """Passes `POST /events` on at once: of 19 us of CPU here for a small body, middleware and routing took 6."""

    def __init__(self, handlers: _Handlers, **options: Any) -> None:
        super().__init__(**options)
        self._defect = handlers.defect
        self._events = handlers.answering("/events", handlers.events)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/events" or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
            return
        request = HttpRequest(scope, receive)
        try:
            response = await self._events(request)
        except Exception as error:
            response = await self._defect(request, error)
            await response(scope, receive, send)
            raise  # uvicorn logs it
        await response(scope, receive, send)


class _Handlers:
    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._in_hand = 0

    def answering(self, path: str, handler: Handler) -> Handler:
        """Return a handler that also turns our errors into answers, and counts its answers under `path`."""

        async def answer(request: HttpRequest) -> Response:
            try:
                response = await handler(request)
            except RefusedError as error:
                response = _problem(error, error.status)
            except (UnavailableError, GoneError) as error:
                response = _unavailable(str(error))
            except ModelstreamError as error:
                response = _problem(error, 500)
            except ClientDisconnect:
                response = Response(status_code=400)  # nobody is there to read it
            return self._count(request, path, response)

        return answer

    async def events(self, request: HttpRequest) -> Response:
        """Take events: 202 once they are durable."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RefusedError("the body is compressed: send it as it is, without a Content-Encoding", 415)
        if reason := overload(self._edge.exporter.state, self._edge.max_delay):
            return _unavailable(reason, OVERLOAD_SECONDS)
        async with self._body(request) as body:
            count = await self._edge.intake.take(body)
        self._edge.exporter.accepted.inc(count)
        return _json({"accepted": count}, 202)

    async def model(self, request: HttpRequest) -> Response:
        """Pass a V2 request to the model server, and its answer back."""
        async with self._body(request) as body:
            kind = request.headers.get("content-type", FORM)
            kind = "application/json" if kind.startswith(FORM) else kind
            # MLRun answers broken JSON by itself, with plain text: as text it goes to the model server as it is.
            kind = "text/plain" if body and kind == "application/json" else kind if body else ""
            headers = {name.title(): value for name, value in request.headers.items()}  # as Nuclio writes them
            asked = Request(request.method, request.url.path, kind, body, headers)
            try:
                answer = await asyncio.wait_for(self._edge.ask(asked), self._edge.infer_seconds)
            except TimeoutError:
                seconds = self._edge.infer_seconds
                raise UnavailableError(f"the model server gave no answer within {seconds:g} s; see /healthz") from None
            except OSError:
                raise UnavailableError("the model server is starting; see /healthz") from None
        return Response(answer.body, answer.status, media_type=answer.content_type)

    async def metrics(self, _: HttpRequest) -> Response:
        """Return Prometheus' text."""
        return Response(self._edge.exporter.text(), headers={"Content-Type": CONTENT_TYPE})

    async def health(self, _: HttpRequest) -> Response:
        """Return 200, or 503 when rows wait and nothing has been committed for 30 s."""
        health = self._edge.exporter.health()
        return _json(health, 200 if health["status"] == "ok" else 503)

    async def about(self, request: HttpRequest) -> Response:
        """Tell a newcomer what is here."""
        return Response(self._edge.about(str(request.base_url)), media_type="text/plain")

    async def no_route(self, request: HttpRequest, error: Exception) -> Response:
        """Answer a request for an unknown path or method."""
        assert isinstance(error, HTTPException)
        what = f"{request.method} {request.url.path}"
        response = _json({"error": f"{error.detail}: {what}", "remedy": "GET / lists the paths"}, error.status_code)
        response.headers.update(error.headers or {})
        return self._count(request, "other", response)

    async def defect(self, request: HttpRequest, error: Exception) -> Response:
        """Answer an unexpected error; its traceback goes to the log."""
        return self._count(request, "other", _json({"error": f"{type(error).__name__}: {error}"}, 500))

    @asynccontextmanager
    async def _body(self, request: HttpRequest) -> AsyncIterator[bytes]:
        """Read a request's body, and keep account of the memory until it is handled."""
        size = 0
        body: bytes | bytearray = b""
        try:
            declared = request.headers.get("content-length", "0")
            if declared.isdecimal() and int(declared) > MAX_BODY:
                raise _too_large(int(declared))
            async for chunk in request.stream():
                size += len(chunk)
                self._in_hand += len(chunk)
                if size > MAX_BODY:
                    raise _too_large(size)
                if self._in_hand > self._edge.in_hand_limit:
                    raise UnavailableError("too many events are being sent at the same time")
                if not body:
                    body = chunk  # most bodies come in one piece
                else:
                    body = body if isinstance(body, bytearray) else bytearray(body)
                    body += chunk  # not a list: pieces of one byte would take 40 times as much memory
            yield bytes(body)
        finally:
            self._in_hand -= size

    def _count(self, request: HttpRequest, path: str, response: Response) -> Response:
        method = request.method if request.method in METHODS else "other"  # clients may invent them
        self._edge.exporter.requests.labels(method, path, str(response.status_code)).inc()
        return response


def _too_large(size: int) -> RefusedError:
    return RefusedError(f"the body has more than {MAX_BODY:,} bytes (at least {size:,}): send it in parts", 413)


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _problem(error: ModelstreamError, status: int) -> Response:
    return _json({"error": str(error), "remedy": error.remedy}, status)


def _unavailable(reason: str, seconds: int = RETRY_SECONDS) -> Response:
    response = _json({"error": reason, "remedy": f"send the same again after {seconds} s"}, 503)
    response.headers["Retry-After"] = str(seconds)
    return response
