"""Reads URLs `redis://host:port/db?prefix=…`, connects to the server, and translates its errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError

VERSION = 1
"""Version of the stored format; a program that doesn't know it refuses the data."""
USERNAME, PASSWORD = "MODELSTREAM_REDIS_USERNAME", "MODELSTREAM_REDIS_PASSWORD"
TIMEOUT = 10.0
"""Seconds until a call that gets no answer counts as an outage: a flush takes milliseconds, but a server that forks
to rewrite its files, or loads a table of enrichment, may keep others waiting for a second or two."""
PAIRS = 1000
"""Most keys in one command: it then takes about a millisecond, and other clients get their turn in between."""

_PREFIX = re.compile(r"[A-Za-z0-9_{][A-Za-z0-9_.:{}-]*")
_SHAPE = "write redis://host:port/db?prefix=NAME, or rediss:// for TLS; db is a number, 0 by default"
_OUTAGES = {
    *("OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"),
    *("MISCONF", "NOREPLICAS", "BUSY", "UNKILLABLE", "UNBLOCKED"),
}
"""First words of error answers that pass by themselves, or that must be fixed on the server rather than in the URL."""
_REMEDIES = {
    "OOM": "give the server more memory (maxmemory); the pipeline then continues by itself",
    "MISCONF": "the server can't write its files: its log says why; once that is fixed, the pipeline "
    "continues by itself",
    "READONLY": "a replica answered: point the URL at the primary; after a failover the pipeline continues by itself",
    "MOVED": "give one server, not a Redis Cluster: a commit changes several keys at once",
    "CROSSSLOT": "give one server, not a Redis Cluster: a commit changes several keys at once",
    "WRONGTYPE": "another program uses keys with this prefix: give another ?prefix=",
}


@dataclass(frozen=True)
class RedisAddress:
    """What a URL says.

    >>> RedisAddress("localhost", 6379, 0, "demo").key("lookup", "enrichment")
    'demo:lookup:enrichment'
    """

    host: str
    port: int
    db: int
    prefix: str
    tls: bool = False
    ca: str = ""
    """File with the certificates to trust, for TLS; the system's if empty."""
    timeout: float = TIMEOUT
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str, environment: Mapping[str, str] | None = None) -> RedisAddress:
        """Return what a URL and the environment say. Raises ConfigurationError.

        >>> str(RedisAddress.of("redis://localhost?prefix=demo", {}))
        'redis://localhost:6379/0?prefix=demo'
        >>> RedisAddress.of("redis://a:7000/2", {}).key("shards")
        'modelstream:shards'
        """
        shown = re.sub(r"//[^/@]*@", "//…@", url)
        try:
            parts = urlsplit(url)
            port, db = parts.port or 6379, int(parts.path.strip("/") or 0)
        except ValueError:
            raise ConfigurationError(f"{shown!r} is not the URL of a Redis server", remedy=_SHAPE) from None
        options = {"prefix": "modelstream", "timeout": str(TIMEOUT), "ca": ""}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in options:
                raise ConfigurationError(
                    f"redis:// tables have no option {name!r}", remedy=f"known are {', '.join(sorted(options))}"
                )
            options[name] = value
        if not parts.hostname or db < 0:
            raise ConfigurationError(
                f"the URL {shown!r} has no host, or a wrong port or database number", remedy=_SHAPE
            )
        if not _PREFIX.fullmatch(options["prefix"]):
            raise ConfigurationError(
                f"{options['prefix']!r} can't be the prefix of keys", remedy="use letters, digits, and _ . : -"
            )
        if parts.password:
            raise ConfigurationError(
                f"the URL {shown} has a password, but URLs are visible in logs and in the list of processes",
                remedy=f"put it into the environment variable {PASSWORD}",
            )
        found = os.environ if environment is None else environment
        return cls(
            parts.hostname,
            port,
            db,
            options["prefix"],
            parts.scheme == "rediss",
            options["ca"],
            _seconds(options["timeout"]),
            unquote(parts.username or "") or found.get(USERNAME, ""),
            found.get(PASSWORD, ""),
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.db}?prefix={self.prefix}"

    def key(self, *parts: object) -> str:
        """Return the name of a key."""
        return ":".join((self.prefix, *map(str, parts)))


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 3600:
        raise ConfigurationError(f"timeout={text} is not a number of seconds", remedy="write, for example, &timeout=10")
    return number


def connect(address: RedisAddress) -> redis.Redis:
    """Return a client, which connects when it is first used, and anew after a fork or an outage.

    It repeats nothing by itself; the stage that holds the shard does that, and knows what it means.

    >>> client = connect(RedisAddress.of("redis://localhost:6379/2?prefix=demo", {}))
    >>> client.connection_pool.connection_kwargs["db"]
    2
    """
    tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": address.ca or None} if address.tls else {}
    return redis.Redis(
        host=address.host,
        port=address.port,
        db=address.db,
        username=address.username or None,
        password=address.password or None,
        socket_timeout=address.timeout,
        socket_connect_timeout=min(address.timeout, 5.0),
        socket_keepalive=True,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        client_name="modelstream",
        **tls,
    )


@contextmanager
def guarded(address: RedisAddress) -> Iterator[None]:
    """Turn the client's errors into ours: UnavailableError for an outage, ConfigurationError for an error that won't
    pass.

    >>> with guarded(RedisAddress.of("redis://localhost:6379/0?prefix=demo", {})):
    ...     raise redis.ConnectionError("connection refused")
    Traceback (most recent call last):
    modelstream.errors.UnavailableError: redis://localhost:6379/0?prefix=demo: connection refused
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise _error(address, error) from error


def _error(address: RedisAddress, error: Exception) -> ModelstreamError:
    said = str(error).strip() or type(error).__name__
    status = getattr(error, "status_code", None)
    words = {status, *said.split(" ", 1)[:1]}
    remedy = next((text for code, text in _REMEDIES.items() if code in words), "")
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return ConfigurationError(
            f"{address}: {said}",
            remedy=f"put a password that the server accepts into the environment variable {PASSWORD}, and its user, if "
            f"it is not the default one, into {USERNAME}",
        )
    if isinstance(error, (ResponseError, redis.exceptions.DataError)) and not words & _OUTAGES:
        return ConfigurationError(f"{address}: {said}", remedy=remedy or _SHAPE)
    return UnavailableError(
        f"{address}: {said}",
        remedy=remedy
        or f"check that a Redis server runs at {address.host}:{address.port} and that this machine can reach it",
    )


class Server:
    """A connection, checked when it is first used.

    Methods that ask it raise as `guarded` says. An example would need a server: `tests/contract/test_redis_tables.py`
    has one.
    """

    def __init__(self, address: RedisAddress) -> None:
        self.address = address
        self.client = connect(address)
        self._scripts: dict[str, Any] = {}
        self._checked = False

    def call(self, action: Callable[[redis.Redis], Any]) -> Any:
        """Call the client, with its errors turned into ours."""
        with guarded(self.address):
            if not self._checked:
                self._check()
            return action(self.client)

    def run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script, in one round trip once the server has it."""
        if script not in self._scripts:
            self._scripts[script] = self.client.register_script(script)
        return self.call(lambda _: self._scripts[script](keys, arguments))

    def key(self, *parts: object) -> str:
        """Return the name of a key."""
        return self.address.key(*parts)

    def forget(self) -> None:
        """Check the server's data again at the next use."""
        self._checked = False

    def _check(self) -> None:
        about = self.key("about")
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.hsetnx(about, "version", VERSION)
            pipeline.hget(about, "version")
            pipeline.info("memory")
            _, version, memory = pipeline.execute(raise_on_error=False)
        if isinstance(version, Exception):
            raise version
        if int(version) > VERSION:
            raise ConfigurationError(
                f"{self.address} has tables of format {int(version)}; this program reads format {VERSION}",
                remedy="use the newer program that wrote them, or another prefix",
            )
        policy = str(memory.get("maxmemory_policy", "")) if isinstance(memory, dict) else ""
        if policy.startswith("allkeys") and memory.get("maxmemory"):
            raise ConfigurationError(
                f"{self.address} deletes keys when its memory is full (maxmemory-policy {policy})",
                remedy="set maxmemory-policy to noeviction on the server",
            )
        self._checked = True

    def broken(self, what: str, error: Exception) -> ConfigurationError:
        """Return the error to raise for a value that can't be read."""
        return ConfigurationError(
            f"{self.address}: {what} can't be read: {error}",
            remedy="restore the server's data from a copy, or start over with another prefix",
        )
