"""V3IO through its own client (v3io-py): reads URLs, makes calls singly or many at a time, turns errors into ours.

The URL is `v3io://container/path?option=…`. The address of the web API and the access key come from the environment
(V3IO_API, V3IO_ACCESS_KEY), because a URL is visible in logs, in the data folder and in the list of processes.
"""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import v3io.dataplane

from modelstream.base.names import PLAIN_NAME
from modelstream.errors import ConfigurationError, UnavailableError

CONNECTIONS = 16
"""Requests that one process has in flight: no call writes or reads several items at once.

Putting 4,000 where each answer takes 2 ms: 3.7 s with 4, 1.7 s with 16, 1.2 s with 64 (the client's own CPU time is 0.1
ms a request). `connections=N` in the URL changes it.
"""

AT_ONCE = 1000
"""Requests encoded ahead: v3io-py keeps them in a list, whose front it pops."""

RETENTION_HOURS = 168
"""V3IO deletes messages that are older than this, acknowledged or not, and nothing else deletes them. Its default of 24
h is shorter than a weekend on which nobody is there to fix something; `retention_hours=N` in the URL sets it for new
streams."""

CONDITION_IS_FALSE = b"16777244"
"""Code in the body of a 400: the condition did not hold, nothing was written."""

_SHAPE = "write v3io://container/path, with connections=N or retention_hours=N after a ? if needed"
_Call = tuple[str, str, Mapping[str, Any]]
"""A model of the client (kv, stream, object, container), its method, and the arguments."""


@dataclass(frozen=True)
class V3ioAddress:
    """What a URL says.

    >>> V3ioAddress.of("v3io://projects/demo/streams?connections=32")
    V3ioAddress(container='projects', path='demo/streams', connections=32, retention_hours=168)
    """

    container: str
    path: str
    connections: int = CONNECTIONS
    retention_hours: int = RETENTION_HOURS

    @classmethod
    def of(cls, url: str) -> V3ioAddress:
        """Return what a URL says; ConfigurationError if it can't be read."""
        parts = urlsplit(url)
        if parts.scheme != "v3io" or not PLAIN_NAME.fullmatch(parts.netloc):
            raise ConfigurationError(f"no container in the URL {url!r}", remedy=_SHAPE)
        path = "/".join(part for part in parts.path.split("/") if part)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_/-]*", path):
            raise ConfigurationError(f"the URL {url!r} needs a path of letters, digits, - and _", remedy=_SHAPE)
        options = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in ("connections", "retention_hours") or not value.isdecimal() or int(value) < 1:
                raise ConfigurationError(f"can't use {name}={value} in the URL {url!r}", remedy=_SHAPE)
            options[name] = int(value)
        return cls(parts.netloc, path, **options)


class Container:
    """The container and path that a URL names. Each process makes its client when it first uses it.

    Every call raises UnavailableError when the web API can't be reached, is overloaded or broken, and
    ConfigurationError when it refuses. v3io-py itself may send a request twice when a connection breaks: every
    write must be one that may be repeated.
    """

    def __init__(self, address: V3ioAddress) -> None:
        self.address = address
        self._client: Any = None
        self._process = 0

    def path(self, *parts: str) -> str:
        """Return a path below the URL's."""
        return "/".join((self.address.path, *parts))

    def call(self, model: str, method: str, /, *, also: Iterable[int] = (), **arguments: Any) -> Any:
        """Make one call and return v3io-py's response. `also`: statuses besides 200 to 299 that are not errors."""
        with self._guarded() as client:
            function = getattr(getattr(client, model), method)
            response = function(container=self.address.container, raise_for_status="never", **arguments)
        return self._checked(response, also)

    def many(self, calls: Iterable[_Call], *, also: Iterable[int] = ()) -> Iterator[Any]:
        """Make calls, `connections` at a time; yield their responses in the order of the calls.

        They may take effect in any order. After an error, some were done and some not.
        """
        waiting = list(calls)
        for start in range(0, len(waiting), AT_ONCE):
            with self._guarded() as client:
                for model, method, arguments in waiting[start : start + AT_ONCE]:
                    function = getattr(getattr(client.batch, model), method)
                    function(container=self.address.container, raise_for_status="never", **arguments)
                requests = list(client.batch._encoded_requests)
                try:
                    responses = client.batch.wait()
                except BaseException:
                    _close_connections(requests)
                    raise
            for response in responses:
                yield self._checked(response, also)

    def scan(
        self, table: str, attributes: str = "*", condition: str | None = None, segments: int = 1
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield pages of the items of a table, as they are in the body: {attribute: {type: value}}.

        A page of each segment is asked for at once. Nothing when there is no such table. v3io-py's own cursor stops at
        a page without items, which a filter can give anywhere.
        """
        wanted: dict[str, Any] = {
            "table_path": self.path(table) + "/",
            "attribute_names": [attributes],
            "filter_expression": condition,
        }
        unread: list[dict[str, Any]] = [{}]
        if segments > 1:
            unread = [{"segment": segment, "total_segments": segments} for segment in range(segments)]
        while unread:
            pages = self.many([("kv", "scan", wanted | where) for where in unread], also=[404])
            left = []
            for where, response in zip(unread, pages, strict=True):
                if response.status_code == 404:
                    continue
                page = msgspec.json.decode(response.body, type=_Page)
                if page.Items:
                    yield page.Items
                if page.LastItemIncluded != "TRUE" and page.NextMarker is not None:
                    left.append(where | {"marker": page.NextMarker})
            unread = left

    def folders(self) -> list[str]:
        """Return the names of the folders (tables, streams and others) directly below the URL's path."""
        found: list[str] = []
        marker = None
        while True:
            arguments = {"path": self.path() + "/", "directories_only": True, "marker": marker}
            response = self.call("container", "list", also=[404], **arguments)
            if response.status_code == 404:
                return []
            listed = response.output
            found += [prefix.prefix.strip("/").rpartition("/")[2] for prefix in listed.common_prefixes]
            marker = listed.next_marker
            if (listed.is_truncated or "").lower() != "true" or not marker:
                return sorted(set(found))

    def remove_folder(self, name: str) -> None:
        """Delete a folder below the URL's path, with the files in it; nothing if there is none."""
        path = self.path(name) + "/"
        while True:
            listed = self.call("container", "list", also=[404], path=path)
            if listed.status_code == 404:
                return
            files = [{"path": content.key} for content in listed.output.contents]
            for _ in self.many((("object", "delete", file) for file in files), also=[404]):
                pass
            if not files:
                self.call("object", "delete", also=[404], path=path)

    def close(self) -> None:
        """Give the connections back; the next call opens others."""
        client, self._client = self._client, None
        if client is not None and self._process == os.getpid():
            client.close()

    @contextmanager
    def _guarded(self) -> Iterator[Any]:
        """Give the client of this process; drop it after an error, since its batch may then hold connections."""
        if self._client is None or self._process != os.getpid():
            # One made before a fork shares its connections with the parent: left to it, not closed.
            self._client, self._process = _new_client(self.address), os.getpid()
        try:
            yield self._client
        except http.client.InvalidURL as error:
            self.close()
            raise ConfigurationError(f"V3IO_API is not an address: {error}", remedy=_API_REMEDY) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise UnavailableError(
                f"V3IO at {os.environ.get('V3IO_API')}: {error or type(error).__name__}",
                remedy="check V3IO_API, and that the web API is up; running functions then continue by themselves",
            ) from error
        except BaseException:
            self.close()
            raise

    def _checked(self, response: Any, also: Iterable[int]) -> Any:
        status, body = response.status_code, bytes(response.body or b"")
        missing_container = status == 404 and b"ontainer not found" in body
        if 200 <= status < 300 or (status in also and not missing_container):
            return response
        what = f"V3IO answered {status} for {self.address.container}/{self.address.path}: {_text(body)}"
        if status in (408, 429) or status >= 500:
            raise UnavailableError(what, remedy="if it is temporary, nothing: the pipeline continues by itself")
        if status in (401, 403):
            raise ConfigurationError(
                what, remedy="give V3IO_ACCESS_KEY the key of a user who may read and write this container"
            )
        if missing_container:
            raise ConfigurationError(what, remedy="make the container, or name another in the URL")
        raise ConfigurationError(what, remedy="check the URL, and V3IO_API for the address of the web API")


class _Page(msgspec.Struct):
    LastItemIncluded: str
    NextMarker: str | None = None
    Items: list[dict[str, Any]] = []


class _Silent:
    """A logger that drops what v3io-py logs, since our errors say the same."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _say_nothing


def _say_nothing(*_: object, **__: object) -> None: ...


_API_REMEDY = "set it to the address of the web API, such as http://v3io-webapi:8081"


def _new_client(address: V3ioAddress) -> Any:
    api, key = os.environ.get("V3IO_API"), os.environ.get("V3IO_ACCESS_KEY")
    if not api:
        raise ConfigurationError("no address for V3IO: V3IO_API is not set", remedy=_API_REMEDY)
    if not key:
        raise ConfigurationError(
            "no access key for V3IO: V3IO_ACCESS_KEY is not set",
            remedy="set it to an access key of your user (Iguazio's dashboard shows and makes them)",
        )
    try:
        return v3io.dataplane.Client(
            logger=_Silent(), endpoint=api, access_key=key, max_connections=address.connections
        )
    except http.client.InvalidURL as error:
        raise ConfigurationError(f"V3IO_API is no address: {error}", remedy=_API_REMEDY) from error


def _close_connections(requests: Iterable[Any]) -> None:
    """Close the connections of a batch that failed: v3io-py forgets those on which it still waits for an answer."""
    for request in requests:
        connection = getattr(request.transport, "connection_used", None)  # there is none before it is sent
        if connection is not None:
            connection.close()


def condition_failed(response: Any) -> bool:
    """Return whether a write was refused because its condition is false; ConfigurationError if for something else.

    For responses of a call with `also=[400]`.
    """
    if response.status_code != 400:
        return False
    body = bytes(response.body or b"")
    if CONDITION_IS_FALSE not in body:
        raise ConfigurationError(
            f"V3IO refused a write: {_text(body)}", remedy="report it: this should not be possible"
        )
    return True


def rises(attribute: str, number: int) -> str:
    """Return the condition "the attribute is missing or lower than this number".

    >>> rises("applied", 7)
    '(not(exists(applied))) or (applied < 7)'
    """
    return f"(not(exists({attribute}))) or ({attribute} < {number})"


def item_of(response: Any) -> dict[str, Any] | None:
    """Return the attributes in the body of a GetItem, typed as they are there; None for a 404."""
    if response.status_code == 404:
        return None
    item: dict[str, Any] = msgspec.json.decode(response.body).get("Item", {})
    return item


def _text(body: bytes) -> str:
    return body[:300].decode(errors="replace") or "nothing"
