"""A log in a bucket: `s3://bucket/prefix/NAME/EPOCH-SHARD-NUMBER.parquet`, on any store that speaks S3.

Appending is one PUT with `If-None-Match: *`, which fails if that number exists: step, like linking in a folder (see
`parquet`). An object is complete or absent, and listed at once. A store that ignores the condition would lose rows, so
the condition is tried before the first append. See `clients.s3` for address and credentials.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore import exceptions

from modelstream.clients.s3 import Bucket
from modelstream.errors import NumberTakenError
from modelstream.logs.contract import Log
from modelstream.logs.file import Footer, LogFile, read_footer
from modelstream.logs.storage import SCHEMA_FILE, Stamp

END = 64 << 10
"""Bytes read for a footer. A footer has about 10 KB; one with the watermarks of many inputs is larger and takes a
second read."""


class S3Log(Log):
    """The log behind a URL, for rows of a schema, written in an epoch. See `Log`.

    An example would need a bucket: `tests/contract/test_log_in_s3.py` has one.
    """

    def __init__(self, url: str, schema: pa.Schema, epoch: int, definition: str = "") -> None:
        super().__init__(schema, epoch, definition)
        self.bucket = Bucket(url)
        self._tried = False

    def place(self, name: str = "") -> str:
        return self.bucket.place(name) if name else self.bucket.url

    def remove(self) -> None:
        with self._outages():
            names = [name for name in self._names() if name == SCHEMA_FILE or LogFile.of(name)]
            for first in range(0, len(names), 1000):
                obstore.delete(self.bucket.store, [self.bucket.key(name) for name in names[first : first + 1000]])
        self._forget()

    def _outages(self) -> AbstractContextManager[None]:
        return self.bucket.guarded()

    def _names(self) -> list[str]:
        return [found["path"] for found in self.bucket.objects() if "/" not in found["path"]]

    def _open(self, name: str) -> pq.ParquetFile:
        whole = obstore.get(self.bucket.store, self.bucket.key(name)).bytes()
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
            return bytes(
                obstore.get(self.bucket.store, self.bucket.key(name), options={"range": {"suffix": size}}).bytes()
            )
        except exceptions.GenericError:
            if obstore.head(self.bucket.store, self.bucket.key(name))["size"]:
                raise
            return b""  # which has no last part

    def _make(self) -> bool:
        return SCHEMA_FILE in self._names()

    def _prepare(self) -> None:
        super()._prepare()
        if self._tried:
            return
        try:
            self._commit(SCHEMA_FILE, self._schema_file())
        except NumberTakenError:
            self._tried = True
        else:
            raise self.bucket.no_conditions(
                "If-None-Match: *", "two owners of a shard would overwrite each other's rows"
            )

    def _stamp(self, name: str) -> Stamp | None:  # noqa: ARG002 (of any)
        return ()  # objects stay as they are

    def _settle(self) -> None:
        """Do nothing: an object that is listed is durable."""

    def _remove_abandoned(self, shard: int) -> None:
        """Do nothing: a bucket has no hidden files."""

    def _commit(self, name: str, file: pa.Buffer) -> None:
        if not self.bucket.create(file.to_pybytes(), name):
            raise NumberTakenError(f"{self.place(name)} was written by another process")
