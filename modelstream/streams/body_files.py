"""The bodies of a stream's large messages, one after the other in plain files of some 64 MB.

Through SQLite's write-ahead log a megabyte is written twice and checksummed, at 3 to 6 times the CPU time
(docs/performance.md). A writer takes the lock of the stream's SQLite file, writes and syncs the bodies here, then
commits the rows that point at them. Bytes that no row points at (after a kill before the commit) are overwritten.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from modelstream.base.durable import check_there, identity, sync_folder, write_at
from modelstream.errors import ConfigurationError

FILE_BYTES = 64 << 20
"""When a file has reached this size, the next one is begun. Trimming deletes whole files."""

MAX_OPEN = 8
"""How many files stay open; a reader goes from one to the next, so more would never be used."""


class BodyPlace(NamedTuple):
    """Where a body is: the number of its file, and the byte that it begins at.

    `BodyFiles` has an example.
    """

    file: int
    position: int


class BodyFiles:
    """The files `NAME.NUMBER.bodies` of a folder.

    Methods raise OSError for the disk. Use an instance in one thread.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = BodyFiles(Path(folder), "incoming")
    ...     places, end = files.write([b"one", b"three"], end=None)
    ...     found = files.read(places[1], size=5)
    ...     files.close()
    >>> found, places[1], end
    (b'three', BodyPlace(file=0, position=3), BodyPlace(file=0, position=8))
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._descriptors: dict[int, int] = {}

    def write(self, bodies: Sequence[bytes], end: BodyPlace | None) -> tuple[list[BodyPlace], BodyPlace]:
        """Write bodies from `end` on (None: no file yet) and sync them; return their places and the new end.

        Raises OSError, after which `end` is as it was, and GoneError if the file was deleted or replaced.
        """
        if end is None or end.position >= FILE_BYTES:
            end = BodyPlace(0 if end is None else end.file + 1, 0)
        descriptor = self._open(end.file, os.O_CREAT)
        if end.position == 0:
            sync_folder(self.folder)
        places = []
        for body in bodies:
            places.append(end)
            write_at(descriptor, body, end.position)
            end = BodyPlace(end.file, end.position + len(body))
        os.fdatasync(descriptor)
        check_there(self._path(end.file), identity(descriptor))
        return places, end

    def read(self, place: BodyPlace, size: int) -> bytes:
        """Return a body.

        Raises FileNotFoundError if its file was trimmed, ConfigurationError if the file is cut short.
        """
        body = os.pread(self._open(place.file), size, place.position)
        if len(body) != size:
            raise ConfigurationError(
                f"{self._path(place.file)} is cut short: a message ends at byte {place.position + size}",
                remedy="restore it from a copy, or start over in another folder",
            )
        return body

    def delete_below(self, number: int) -> None:
        """Delete the files with a lower number, including any that a killed call left behind."""
        for path in self.folder.glob(f"{self.name}.*.bodies"):
            found = path.name.removeprefix(f"{self.name}.").removesuffix(".bodies")
            if found.isdecimal() and int(found) < number:
                path.unlink(missing_ok=True)
                self._close(int(found))

    def close(self) -> None:
        """Give back the descriptors."""
        for number in list(self._descriptors):
            self._close(number)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.name}.{number:06d}.bodies"

    def _open(self, number: int, create: int = 0) -> int:
        descriptor = self._descriptors.get(number)
        if descriptor is None:
            descriptor = self._opened(self._path(number), create)
            self._descriptors[number] = descriptor
            if len(self._descriptors) > MAX_OPEN:
                self._close(next(iter(self._descriptors)))
        return descriptor

    def _opened(self, path: Path, create: int) -> int:
        """Open a file for reading and writing, or only for reading where this process may not write."""
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | create, 0o644)
        except OSError as error:
            if create or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _close(self, number: int) -> None:
        descriptor = self._descriptors.pop(number, None)
        if descriptor is not None:
            os.close(descriptor)
