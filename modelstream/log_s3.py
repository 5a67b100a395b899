"""A log in a bucket: `s3://bucket/prefix/NAME/EPOCH-SHARD-NUMBER.parquet`, on any store that speaks S3.

Appending is one PUT with `If-None-Match: *`, which fails if that number exists: commit and compare-and-set in one
step, as linking is in a folder (see `log`). An object is there as a whole or not at all, and listed at once. A store
that ignores the condition would lose rows, so that is tried out before the first append.

Address and credentials come from the environment, under the names that all S3 clients know: AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; in a cluster from the pod's role.
The client (obstore) has threads that a fork doesn't take along: it is made in the process that uses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore import exceptions
from obstore.store import S3Store

from modelstream.errors import ConfigurationError, NumberTakenError, UnavailableError
from modelstream.log import SCHEMA_FILE, ParquetLog
from modelstream.log_files import Footer, Place, content, read_footer

END = 64 << 10
"""Bytes read for a footer: it has some 10 KB, and more with watermarks of many inputs, which takes a second read."""
TIMEOUT = timedelta(seconds=30)
"""A file of a flush has some MB."""
RETRY = timedelta(seconds=5)
"""Time in which the client itself tries again. Longer outages hold the shard, which says so."""

_SHAPE = "write s3://bucket/prefix"
_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_.=-]+)+)")
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for a store of your own AWS_ENDPOINT_URL too"


class S3Log(ParquetLog):
    """The log behind a URL, for rows of a schema, written in an epoch. See the module, and `ParquetLog`."""

    def __init__(self, url: str, schema: pa.Schema, epoch: int) -> None:
        match = _URL.fullmatch(url)
        if not match or any(part in (".", "..") for part in match[2].split("/")):
            raise ConfigurationError(f"{url!r} is no place in a bucket", remedy=_SHAPE)
        super().__init__(Path(match[2]), schema, epoch)
        self.url = url
        self.bucket, self.prefix = match[1], match[2].strip("/")
        self._client: tuple[int, S3Store] | None = None
        self._tried = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    def place(self, name: str = "") -> str:
        return f"{self.url}/{name}" if name else self.url

    def remove(self) -> None:
        with self._outages():
            names = [name for name in self._names() if name == SCHEMA_FILE or Place.of(name)]
            for first in range(0, len(names), 1000):
                obstore.delete(self._store, [self._key(name) for name in names[first : first + 1000]])
        self._tails, self._rows = {}, {}

    @property
    def _store(self) -> S3Store:
        if self._client is None or self._client[0] != os.getpid():
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
            store = S3Store(
                self.bucket,
                conditional_put="etag",
                client_options={"timeout": TIMEOUT, "allow_http": endpoint.startswith("http://")},
                retry_config={"max_retries": 5, "retry_timeout": RETRY},
            )
            self._client = os.getpid(), store
        return self._client[1]

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _outages(self) -> AbstractContextManager[None]:
        return _guarded(self.url)

    def _names(self) -> list[str]:
        with self._outages():
            pages = obstore.list(self._store, f"{self.prefix}/")
            paths = [PurePosixPath(found["path"]) for page in pages for found in page]
        return [path.name for path in paths if str(path.parent) == self.prefix]

    def _file(self, name: str) -> pq.ParquetFile:
        whole = obstore.get(self._store, self._key(name)).bytes()
        return pq.ParquetFile(pa.BufferReader(pa.py_buffer(whole)))

    def _read_footer(self, name: str) -> tuple[Footer, pa.Schema]:
        with self._outages():
            end = self._end(name, END)
            # The last 8 bytes of a Parquet file: the length of what stands before them, and PAR1.
            length = int.from_bytes(end[-8:-4], "little") + 8
            if len(end) == END < length and end[-4:] == b"PAR1":
                end = self._end(name, length)
        return read_footer(self.place(name), pa.py_buffer(end))

    def _end(self, name: str, size: int) -> bytes:
        try:
            return bytes(obstore.get(self._store, self._key(name), options={"range": {"suffix": size}}).bytes())
        except exceptions.GenericError:
            if obstore.head(self._store, self._key(name))["size"]:
                raise
            return b""  # which has no last part

    def _make(self) -> bool:
        return SCHEMA_FILE in self._names()

    def _prepare(self) -> None:
        super()._prepare()
        if self._tried:
            return
        footer = Footer(epoch=self.epoch, shard=-1, number=-1, rows=0, offset=-1, watermarks={}, counters={})
        try:
            self._commit(SCHEMA_FILE, content(self.schema.empty_table(), footer))
        except NumberTakenError:
            self._tried = True
        else:
            raise ConfigurationError(
                f"{self.url}: the store overwrites a file although it was told not to (If-None-Match: *)",
                remedy="use a store, or a version of it, that has conditional writes: two owners of a shard would "
                "overwrite each other's rows",
            )

    def _settle(self) -> None:
        """An object that is listed is durable."""

    def _remove_abandoned(self, shard: int) -> None:
        """There are no hidden files."""

    def _commit(self, name: str, file: pa.Buffer) -> None:
        with self._outages():
            try:
                obstore.put(self._store, self._key(name), file.to_pybytes(), mode="create", use_multipart=False)
            except exceptions.AlreadyExistsError as error:
                raise NumberTakenError(f"{self.place(name)} was written by another process") from error


@contextmanager
def _guarded(url: str) -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise ConfigurationError(f"{url}: {_said(error)}", remedy=_CREDENTIALS) from error
    except (exceptions.NotFoundError, FileNotFoundError) as error:
        raise ConfigurationError(
            f"{url}: {_said(error)}", remedy="make the bucket, or restore what is missing from a copy"
        ) from error
    except (exceptions.BaseError, OSError) as error:
        if "<Code>NoSuchBucket<" in str(error):
            raise ConfigurationError(
                f"{url}: there is no such bucket", remedy="make the bucket, or correct the URL"
            ) from error
        raise UnavailableError(
            f"{url}: {_said(error)}",
            remedy=f"see that the store answers at AWS_ENDPOINT_URL (AWS if it is not set); {_CREDENTIALS}",
        ) from error


def _said(error: Exception) -> str:
    """Return the first line of an error, without the answer's XML."""
    return re.sub(r"\s+", " ", str(error).split("\n\n")[0])[:500]
