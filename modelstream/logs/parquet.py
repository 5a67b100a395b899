"""A log in a folder.

Appending writes a file in a hidden folder beside the log, syncs it, and links it to the next number, which fails if
that number exists. A kill at any step leaves at most a file in the hidden folder. (Polars refuses a folder with foreign
files, so it is beside the log, not in it.)
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.base.durable import link, outages, sync_folder, write_at
from modelstream.errors import GoneError, NumberTakenError
from modelstream.logs.contract import SCHEMA_FILE, Log, is_own
from modelstream.logs.file import Footer, read_footer

ABANDONED_SECONDS = 600.0
"""Hidden files older than this are deleted. A writer needs a few seconds; one that was suspended for longer finds its
file gone, and writes it again."""


class ParquetLog(Log):
    """The log in a folder, for rows of a schema, written in an epoch. See `Log`.

    >>> import tempfile
    >>> schema = pa.schema([("user", pa.string()), ("value", pa.float64())])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = ParquetLog(Path(folder), schema, epoch=0)
    ...     checkpoint = log.checkpoint(shard=3)
    ...     checkpoint.offset = 7
    ...     log.append(3, pa.table({"user": ["a", "b"], "value": [1.0, 2.0]}), checkpoint)
    ...     pq.read_table(folder).num_rows, log.count(), ParquetLog(Path(folder), schema, epoch=0).checkpoint(3).offset
    (2, 2, 7)
    """

    def __init__(self, folder: Path, schema: pa.Schema, epoch: int) -> None:
        super().__init__(schema, epoch)
        self._folder = folder
        self._made = False
        self._hidden = folder.resolve().parent / f".{folder.name}.writing"

    def place(self, name: str = "") -> str:
        return str(self._folder / name)

    def remove(self) -> None:
        """Delete the log's files, and its folders if nothing else is in them. The log must not be in use."""
        with self._outages():
            for folder in (self._folder, self._hidden):
                if not folder.is_dir():
                    continue
                for path in folder.iterdir():
                    if folder == self._hidden or is_own(path.name):
                        path.unlink(missing_ok=True)
                with suppress(OSError):  # somebody else's files
                    folder.rmdir()
        self._made = False
        self._forget()

    def _outages(self) -> AbstractContextManager[None]:
        return outages(self._folder)

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []

    def _open(self, name: str) -> pq.ParquetFile:
        return pq.ParquetFile(self._folder / name)

    def _read_footer(self, name: str) -> tuple[Footer, pa.Schema]:
        return read_footer(self._folder / name)

    def _make(self) -> bool:
        if self._made and not self._folder.is_dir():
            raise GoneError(self._folder)
        for folder in (self._folder, self._hidden):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                sync_folder(folder.parent)
        self._made = True
        return (self._folder / SCHEMA_FILE).exists()

    def _check_there(self, before: str) -> None:
        for name in {before, SCHEMA_FILE}:
            if not (self._folder / name).exists():
                raise GoneError(self._folder / name)

    def _settle(self) -> None:
        """Sync the folder, so that files count which another process linked before it was killed."""
        sync_folder(self._folder)

    def _commit(self, name: str, file: pa.Buffer) -> None:
        hidden = self._hidden / f"{name}.{uuid.uuid4().hex}"
        with self._outages():
            try:
                descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                try:
                    write_at(descriptor, memoryview(file), 0)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                try:
                    link(hidden, self._folder / name)
                except FileExistsError as error:
                    raise NumberTakenError(f"{self._folder / name} was written by another process") from error
                sync_folder(self._folder)
            finally:
                with suppress(OSError):
                    hidden.unlink()

    def _remove_abandoned(self, shard: int) -> None:
        for hidden in self._hidden.glob(f"??-{shard:02d}-*"):
            with suppress(FileNotFoundError):
                if hidden.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                    hidden.unlink()
