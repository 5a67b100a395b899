"""A log in a folder.

Appending writes a file in a hidden folder beside the log, syncs it, and links it to the next number, which fails if
that number exists. A kill at any step leaves at most a file in the hidden folder. (Polars refuses a folder with foreign
files, so it is beside the log, not in it.) Parts stay there until they are published.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from modelstream.base.durable import link, outages, shared, sync_folder, write_at
from modelstream.errors import GoneError, NumberTakenError
from modelstream.logs.contract import Log, is_own
from modelstream.logs.file import Footer, LogFile, read_footer, readable
from modelstream.logs.longer import write_longer
from modelstream.logs.storage import SCHEMA_FILE, Key, Stamp

ABANDONED_SECONDS = 600.0
"""Hidden files older than this are deleted. A writer needs a few seconds; one that was suspended for longer finds its
file gone, and writes it again."""


FULL_BYTES = 16 << 20
"""A file of this size isn't made longer: all of it would be copied."""

LOCK = "{:02d}-{:02d}.lock"
"""The file that is locked while an epoch and shard is published."""


class ParquetLog(Log):
    """The log in a folder, for rows of a schema, written in an epoch. See `Log`.

    >>> import tempfile
    >>> schema = pa.schema([("user", pa.string()), ("value", pa.float64())])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = ParquetLog(Path(folder), schema, epoch=0)
    ...     checkpoint = log.checkpoint(shard=3)
    ...     checkpoint.offset = 7
    ...     log.append(3, pa.table({"user": ["a", "b"], "value": [1.0, 2.0]}), checkpoint)
    ...     done = log.publish()
    ...     pq.read_table(folder).num_rows, log.count(), ParquetLog(Path(folder), schema, epoch=0).checkpoint(3).offset
    (2, 2, 7)
    """

    keeps_parts = True

    def __init__(self, folder: Path, schema: pa.Schema, epoch: int, definition: str = "") -> None:
        super().__init__(schema, epoch, definition)
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
        return _names_in(self._folder)

    def _part_names(self) -> list[str]:
        return _names_in(self._hidden)

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

    def _shared(self) -> bool:
        return self._is_shared

    @cached_property
    def _is_shared(self) -> bool:
        return shared(self._hidden)

    def _stamp(self, name: str) -> Stamp | None:
        return _stamp_of(self._folder / name)

    def _has_part(self, name: str) -> bool:
        return _stamp_of(self._hidden / name) is not None

    def _read_part(self, name: str) -> pa.Buffer | None:
        try:
            return pa.py_buffer((self._hidden / name).read_bytes())
        except FileNotFoundError:
            return None

    def _settle(self) -> None:
        """Sync the folders, so that files count which another process linked before it was killed."""
        sync_folder(self._hidden)
        sync_folder(self._folder)

    def _commit(self, name: str, file: pa.Buffer) -> None:
        self._link(file, self._folder / name)

    def _commit_part(self, name: str, part: pa.Buffer) -> None:
        self._link(part, self._hidden / name)

    def _link(self, file: pa.Buffer, path: Path) -> None:
        hidden = self._hidden / f"{path.name}.{uuid.uuid4().hex}"
        with self._outages():
            try:
                descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                try:
                    write_at(descriptor, memoryview(file), 0)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                self._name(hidden, path)
            finally:
                with suppress(OSError):
                    hidden.unlink()

    def _name(self, hidden: Path, path: Path) -> None:
        try:
            link(hidden, path)
        except FileExistsError as error:
            raise NumberTakenError(f"{path} was written by another process") from error
        sync_folder(path.parent)

    def _rename_part(self, part: LogFile, name: str) -> None:
        self._name(self._hidden / part.part, self._folder / name)

    def _remove_parts(self, parts: Sequence[LogFile]) -> None:
        for part in parts:
            (self._hidden / part.part).unlink(missing_ok=True)

    @contextmanager
    def _alone(self, key: Key) -> Iterator[bool]:
        if self._shared():
            yield True
            return
        path = self._hidden / LOCK.format(*key)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            yield _locked(descriptor)
        finally:
            os.close(descriptor)

    def _lengthen(self, name: str, table: pa.Table, footer: Footer) -> bool:
        path = self._folder / name
        _, schema = self._read_footer(name)
        if path.stat().st_size >= FULL_BYTES or not schema.equals(table.schema):
            return False
        hidden = self._hidden / f"{name}.{uuid.uuid4().hex}"
        try:
            descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                # A megabyte at a time, as those who commit meanwhile wait for what is being synced.
                with readable(path):
                    write_longer(path, hidden, table, footer, between=lambda: os.fsync(descriptor))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(hidden, path)  # noqa: PTH105 (in one step, which tests stop before and after)
            sync_folder(self._folder)
        finally:
            with suppress(OSError):
                hidden.unlink()
        return True

    def _remove_abandoned(self, shard: int) -> None:
        for hidden in self._hidden.glob(f"??-{shard:02d}-*"):
            with suppress(FileNotFoundError):
                if not LogFile.of_part(hidden.name) and hidden.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                    hidden.unlink()


def _names_in(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _stamp_of(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
