"""A place in a bucket, `s3://bucket/prefix`, on any store that speaks S3.

Address and credentials come from the environment, under the names that all S3 clients know: AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; in a cluster from the pod's role. The client
(obstore) has threads, which a fork does not copy. So it is made in the process that uses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import S3Store

from modelstream.errors import ConfigurationError, UnavailableError

TIMEOUT = timedelta(seconds=30)
"""For one request; the file of a flush has some MB."""
RETRY = timedelta(seconds=5)
"""How long the client itself retries. After that the caller reports an outage, and asks again."""

_SHAPE = "write s3://bucket/prefix"
_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_.=-]+)+)")
_ENDPOINT = re.compile(r"https?://[^\s/?#]+(/\S*)?")
_REFUSED = re.compile(r"status code: 40[13] ")
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that the store accepts, and for a store of your own also "
    "AWS_ENDPOINT_URL"
)
_CONDITIONS = "use a store (or a version of this one) that supports conditional writes"


class Bucket:
    """The objects below a prefix. In addition to what they document, methods raise what `guarded` raises."""

    def __init__(self, url: str, setting: str = "") -> None:
        """Take a URL, and the setting that it comes from, for messages. No request is sent yet.

        Raises ConfigurationError if it is not a URL of a bucket.
        """
        match = _URL.fullmatch(url)
        if not match or any(part in (".", "..") for part in match[2].split("/")):
            raise ConfigurationError(f"{url!r} is not a place in a bucket", remedy=_SHAPE)
        self.url = url
        self._named = f"{url} ({setting})" if setting else url
        self.name, self.prefix = match[1], match[2].strip("/")
        self._client: tuple[int, S3Store] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    @property
    def store(self) -> S3Store:
        """obstore's client, made in this process."""
        if self._client is None or self._client[0] != os.getpid():
            variable, endpoint = endpoint_of(os.environ)
            if endpoint and not _ENDPOINT.fullmatch(endpoint):
                raise ConfigurationError(
                    f"{variable} is {endpoint!r}, which is not the address of a store",
                    remedy="write http://host:port or https://host:port",
                )
            store = S3Store(
                self.name,
                conditional_put="etag",
                client_options={"timeout": TIMEOUT, "allow_http": endpoint.startswith("http://")},
                retry_config={"max_retries": 5, "retry_timeout": RETRY},
            )
            self._client = os.getpid(), store
        return self._client[1]

    def key(self, *names: str) -> str:
        """Return the key of an object below the prefix."""
        return "/".join((self.prefix, *names))

    def place(self, *names: str) -> str:
        """Return the URL of an object: for messages."""
        return "/".join((self.url, *names))

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn the client's errors into ours: UnavailableError for an outage, ConfigurationError for an error that
        won't pass."""
        url = self._named
        try:
            yield
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise ConfigurationError(f"{url}: {_said(error)}", remedy=_CREDENTIALS) from error
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            raise ConfigurationError(
                f"{url}: {_said(error)}", remedy="make the bucket, or restore what is missing from a copy"
            ) from error
        except ValueError as error:
            raise ConfigurationError(
                f"{url}: {_said(error)}", remedy="use names of letters, digits, - and _"
            ) from error
        except (exceptions.BaseError, OSError) as error:
            if _REFUSED.search(str(error)):  # which a list of objects tells by its text alone
                raise ConfigurationError(f"{url}: {_said(error)}", remedy=_CREDENTIALS) from error
            if _no_bucket(error):
                raise ConfigurationError(
                    f"{url}: there is no such bucket", remedy="make the bucket, or correct the URL"
                ) from error
            raise UnavailableError(
                f"{url}: {_said(error)}",
                remedy=_who_should_answer(),
            ) from error

    def objects(self) -> list[dict[str, Any]]:
        """Return all objects below the prefix, as obstore describes them; `path` is what stands after the prefix."""
        start = f"{self.prefix}/"
        with self.guarded():
            found: list[dict[str, Any]] = [{**each} for page in obstore.list(self.store, start) for each in page]
        return [{**each, "path": each["path"].removeprefix(start)} for each in found]

    def head(self, *names: str) -> dict[str, Any] | None:
        """Return what obstore says of an object, None if there is none."""
        with self.guarded():
            try:
                return dict(obstore.head(self.store, self.key(*names)))
            except (exceptions.BaseError, OSError) as error:
                if _missing(error):
                    return None
                raise

    def get(self, limit: int, *names: str) -> tuple[bytes, str] | None:
        """Return an object's content and ETag, None if there is none.

        Raises ConfigurationError, and reads nothing, when it has more than `limit` bytes.
        """
        with self.guarded():
            try:
                found = obstore.get(self.store, self.key(*names))
                size = found.meta["size"]
                if size <= limit:
                    return bytes(found.bytes()), found.meta["e_tag"] or ""
            except (exceptions.BaseError, OSError) as error:
                if _missing(error):
                    return None
                raise
        raise ConfigurationError(
            f"{self.place(*names)} has more than {limit:,} bytes, which is too large for this kind of file",
            remedy="restore it from a copy",
        )

    def create(self, content: bytes, *names: str) -> bool:
        """Put an object that is not there yet (`If-None-Match: *`), durably; tell whether it was not there.

        After an outage, the object that is there may be the one that this call itself stored.
        """
        with self.guarded():
            try:
                obstore.put(self.store, self.key(*names), content, mode="create", use_multipart=False)
            except exceptions.AlreadyExistsError:
                return False
        return True

    def replace(self, content: bytes, etag: str, *names: str) -> bool:
        """Replace the object that has this ETag (`If-Match`), durably; return whether it was there."""
        with self.guarded():
            try:
                obstore.put(self.store, self.key(*names), content, mode={"e_tag": etag}, use_multipart=False)
            except (exceptions.PreconditionError, exceptions.AlreadyExistsError):  # 412, and 409 by one that is early
                return False
        return True

    def may_replace(self, content: bytes, etag: str, *names: str) -> bool:
        """Replace an object as `replace` does, also if there is none; with an ETag that none has, it tells by errors
        alone whether one may be written."""
        try:
            return self.replace(content, etag, *names)
        except ConfigurationError as error:
            if error.__cause__ is not None and _missing(error.__cause__):
                return False
            raise

    def no_conditions(self, header: str, harm: str) -> ConfigurationError:
        """Return the error for a store that ignores a condition."""
        return ConfigurationError(
            f"{self.url}: the store ignores {header}: it overwrites a file that must not be overwritten",
            remedy=f"{_CONDITIONS}: {harm}",
        )


def endpoint_of(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable that has the address of the store, and the address: empty for AWS itself.

    >>> endpoint_of({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"})
    ('AWS_ENDPOINT_URL', 'http://127.0.0.1:9000')
    """
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if endpoint := environment.get(variable, ""):
            return variable, endpoint
    return "AWS_ENDPOINT_URL", ""


def _who_should_answer() -> str:
    variable, endpoint = endpoint_of(os.environ)
    if endpoint:
        return f"check that a store answers at {endpoint}, which is what {variable} says"
    return f"check that this machine can reach AWS, since AWS_ENDPOINT_URL is not set; {_CREDENTIALS}"


def _missing(error: BaseException) -> bool:
    """Tell whether an error says that there is no such object, and not that there is no bucket."""
    return isinstance(error, exceptions.NotFoundError | FileNotFoundError) and not _no_bucket(error)


def _no_bucket(error: BaseException) -> bool:
    return "<Code>NoSuchBucket<" in str(error)


def _said(error: Exception) -> str:
    """Return the first line of an error, without the answer's XML."""
    return re.sub(r"\s+", " ", str(error).split("\n\n")[0])[:500]
