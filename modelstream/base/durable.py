"""Writes files that survive a power loss, and turns errors of the file system into ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelstream.errors import UnavailableError


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that files added to it or removed from it survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, content: bytes | memoryview, position: int) -> None:
    """Write all of the content at a position of an open file.

    (One write may store only a part of it on a disk that is nearly full.)
    """
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


@contextmanager
def outages(path: Path) -> Iterator[None]:
    """Turn errors of the file system into UnavailableError.

    >>> with outages(Path("log")):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    modelstream.errors.UnavailableError: log: No space left on device
    """
    try:
        yield
    except OSError as error:
        what = f"{error.filename or path}: {error.strerror or error}"
        raise UnavailableError(what, remedy=remedy_for(error)) from error


NOT_WRITABLE = "give this user the right to write there, or name another folder"


def remedy_for(error: OSError) -> str:
    """Return what to do about an error of the file system.

    >>> remedy_for(OSError(30, "Read-only file system"))
    'give this user the right to write there, or name another folder'
    """
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return NOT_WRITABLE
    return "free space or fix the disk; the pipeline then continues by itself"
