"""Files that survive a power loss, and errors of the file system in our words."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelstream.errors import ConfigurationError, UnavailableError


def sync_folder(folder: Path) -> None:
    """Make names that were added to or removed from a folder safe against power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, content: bytes | memoryview, position: int) -> None:
    """Write all of the content at a position of an open file. A disk that fills up may take only a part of it."""
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
            remedy="free space or mend the disk; the pipeline goes on by itself",
        ) from error


def open_input(path: Path) -> io.FileIO:
    """Open a plain file of events. Raises ConfigurationError."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
            raise ConfigurationError(
                f"the input {path} is {kind}",
                remedy="give a file with one JSON object a line; pipe anything else in with --input -",
            )
        return path.open("rb", buffering=0)
    except OSError as error:
        raise ConfigurationError(
            f"the input {path} can't be read: {error.strerror or error}",
            remedy="give the path of a file with one JSON object a line that this user may read",
        ) from error
