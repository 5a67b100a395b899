"""Writes files that survive a power loss, and turns errors of the file system into ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelstream.errors import GoneError, UnavailableError

Identity = tuple[int, int]
"""What tells a file from every other while it is open: its device and its inode."""


def identity(file: Path | int) -> Identity | None:
    """Return the identity of a path or of an open descriptor, None if there is nothing at the path."""
    try:
        found = os.stat(file)  # noqa: PTH116 (of a descriptor too)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def check_there(path: Path, opened: Identity | None) -> None:
    """Raise GoneError unless the file that was opened is still the one at its path.

    A file that is deleted while it is open takes writes and syncs without complaint, and loses them when it is closed.
    """
    with outages(path):
        found = identity(path)
    if found != opened:
        raise GoneError(path)


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
        raise UnavailableError(
            f"{error.filename or path}: {error.strerror or error}",
            remedy="free space or fix the disk; the pipeline then continues by itself",
        ) from error
