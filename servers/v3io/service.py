"""Part of a test tool (see README.md): dispatches requests, checks the access key, and causes the faults that a test
asks for."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import msgspec

from . import items, objects, streams
from .errors import ApiError, invalid
from .http import Request, Response
from .store import Store

FAULTS_PATH = "/_faults"
"""POST it a JSON object of `Faults`; GET it for `Seen`. V3IO has nothing like it."""


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """What goes wrong, as shares of the requests (0 to 1)."""

    seed: int = 0
    refuse_records: float = 0.0
    """Records of PutRecords that fail alone."""
    drop_answers: float = 0.0
    """Requests that are done, but whose connection is closed instead of answered."""
    unavailable: float = 0.0
    """Requests that are answered with 503 and not done."""
    empty_pages: bool = False
    """GetItems may answer without an item although there are more."""
    delay_seconds: float = 0.0
    """Before every answer."""
    clock_ahead_seconds: int = 0


class Seen(msgspec.Struct):
    """What was asked for since the faults were set."""

    calls: dict[str, int]
    most_at_once: int
    refused_records: int


class Service:
    """Answers the requests of a store's clients; an access key that is empty lets any in."""

    _most_pending: int

    def __init__(self, store: Store, access_key: str) -> None:
        self.store = store
        self.access_key = access_key
        self._set(Faults())

    def answer(self, request: Request) -> Response:
        """Do what a request asks for."""
        if request.path == FAULTS_PATH:
            return self._control(request)
        name = request.headers.get("x-v3io-function") or request.method
        self._calls[name] += 1
        faults = self.faults
        try:
            if faults.unavailable and self._random.random() < faults.unavailable:
                raise ApiError(503, -11, "told so by the test")
            self._authorize(request)
            response = self._answer(name, request)
        except ApiError as error:
            response = _json(error.status, error.body)
        response.delay = faults.delay_seconds
        response.dropped = bool(faults.drop_answers) and self._random.random() < faults.drop_answers
        return response

    def note_pending(self, change: int) -> None:
        """Count the requests that wait for their delayed answer."""
        self._now_pending += change
        self._most_pending = max(self._most_pending, self._now_pending)

    def _set(self, faults: Faults) -> None:
        self.faults = faults
        self.store.set_clock_ahead(faults.clock_ahead_seconds * 10**9)
        self._random = random.Random(faults.seed)
        self._calls: Counter[str] = Counter()
        self._now_pending = self._most_pending = self._refused = 0

    def _control(self, request: Request) -> Response:
        if request.method == "POST":
            self._set(msgspec.json.decode(request.body, type=Faults))
        seen = Seen(dict(self._calls), self._most_pending, self._refused)
        return Response(200, msgspec.json.encode(seen))

    def _authorize(self, request: Request) -> None:
        key = request.headers.get("x-v3io-session-key")
        if key is None and not request.headers.get("authorization", "").startswith("Basic "):
            raise ApiError(401, -13, "Permission denied: no access key")
        if self.access_key and key is not None and key != self.access_key:
            raise ApiError(403, -13, "Permission denied")

    def _answer(self, name: str, request: Request) -> Response:
        container, _, path = request.path.lstrip("/").partition("/")
        if "x-v3io-function" not in request.headers:
            return self._answer_object(name, container, path, request)
        try:
            arguments = json.loads(request.body or b"{}")
        except ValueError as error:
            raise invalid(f"the body is not JSON: {error}") from error
        if request.method not in ("PUT", "POST") or not isinstance(arguments, dict):
            raise invalid("method or body")
        return self._call(name, container, path, arguments, request.body)

    def _call(self, name: str, container: str, path: str, arguments: dict[str, Any], body: bytes) -> Response:
        store = self.store
        if name == "PutItem":
            return _verified(items.put_item(store, container, path, arguments))
        if name == "UpdateItem":
            return _verified(items.update_item(store, container, path, arguments))
        if name == "GetItem":
            found, verifier = items.get_item(store, container, path, arguments)
            return _verified(verifier, found)
        if name == "GetItems":
            empty = self.faults.empty_pages
            return _json(200, items.get_items(store, container, path, arguments, empty_pages=empty))
        if name == "PutRecords":
            return _json(200, streams.put_records(store, container, path, body, arguments, self._refuses))
        if name in ("Seek", "SeekShard"):
            return _json(200, streams.seek(store, container, path, arguments))
        if name == "GetRecords":
            return _json(200, streams.get_records(store, container, path, arguments))
        if name == "DescribeStream":
            return _json(200, streams.describe_stream(store, container, path))
        if name == "CreateStream":
            streams.create_stream(store, container, path, arguments)
        elif name == "UpdateStream":
            streams.update_stream(store, container, path, arguments)
        elif name == "GetClusterMD":
            return _json(200, {"NumberOfVNs": 4})
        else:
            raise invalid(f"no function {name!r}")
        return Response(204)

    def _answer_object(self, method: str, container: str, path: str, request: Request) -> Response:
        store, wanted = self.store, request.headers.get("range", "")
        if not container:
            return Response(200, objects.list_containers(store), {"Content-Type": "application/xml"})
        if method == "GET" and not path.strip("/"):
            listed = objects.list_container(store, container, request.query)
            return Response(200, listed, {"Content-Type": "application/xml"})
        if method in ("GET", "HEAD"):
            return Response(*objects.get_object(store, container, path, wanted))
        if method in ("PUT", "POST"):
            objects.put_object(store, container, path, request.body, wanted)
            return Response(200)
        if method == "DELETE":
            objects.delete_object(store, container, path)
            return Response(204)
        raise invalid(f"method {method}")

    def _refuses(self) -> bool:
        refuses = bool(self.faults.refuse_records) and self._random.random() < self.faults.refuse_records
        self._refused += refuses
        return refuses


def _json(status: int, body: Any) -> Response:
    return Response(status, msgspec.json.encode(body), {"Content-Type": "application/json"})


def _verified(verifier: str, body: Any = None) -> Response:
    response = Response(200) if body is None else _json(200, body)
    response.headers["X-v3io-transaction-verifier"] = verifier
    return response
