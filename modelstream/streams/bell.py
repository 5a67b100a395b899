"""Wakes the processes of this machine that wait for a stream, so that an event needn't wait for their next look.

Each listener has a named pipe, and who appends writes a byte into every pipe of the stream: 2 us for one listener. A
bell is only a hint: listeners look by themselves too, now and then, since a process may be killed between its append
and the ring.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import xxhash

GRAIN_NS = 1_000_000_000
"""A folder that has not changed for so long is not looked through again: HFS+ has times of whole seconds."""

_NUMBERS = itertools.count()


class Bell:
    """The bell of one stream, which `place` identifies on this machine: any path, it needn't exist.

    The pipes are in the folder for temporary files: where data lie, copies would be made of them, and file systems such
    as exFAT have none. Where they can't be made, nobody listens and `ring` does nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     here, there = Bell(Path(folder) / "incoming"), Bell(Path(folder) / "incoming")
    ...     pipe = here.listen()
    ...     there.ring()
    ...     os.read(pipe, 16)
    ...     there.close(), here.close()
    b'!'
    (None, None)
    """

    def __init__(self, place: Path) -> None:
        name = xxhash.xxh3_64_hexdigest(os.fsencode(place.absolute()))
        self._folder = Path(tempfile.gettempdir(), f"modelstream-bells-{os.getuid()}", name)
        self._pipe: tuple[int, Path] | None = None
        self._looked = -1
        self._listeners: dict[Path, int] = {}
        self._mine: bool | None = None

    def listen(self) -> int | None:
        """Return a file descriptor, the same each time, that can be read after a ring; None if there are no pipes.

        Read it empty before looking at the stream.
        """
        if self._pipe is None:
            with contextlib.suppress(OSError):
                self._pipe = self._open_pipe()
        return self._pipe[0] if self._pipe else None

    def _open_pipe(self) -> tuple[int, Path] | None:
        self._folder.parent.mkdir(mode=0o700, exist_ok=True)
        if not self._is_mine():
            return None
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{os.getpid()}-{next(_NUMBERS)}"
        unready = path.with_name(f".{path.name}")
        with contextlib.suppress(FileNotFoundError):
            unready.unlink()  # of a process that was killed, whose number this one has
        os.mkfifo(unready, 0o600)
        # For writing too: with nobody at the other end, a pipe would always be ready, at its end.
        opened = os.open(unready, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        # A pipe that is seen before it is open would be taken for one that was left over.
        unready.rename(path)
        return opened, path

    def ring(self) -> None:
        """Wake all listeners."""
        for path, pipe in list(self._found()):
            try:
                os.write(pipe, b"!")
            except BlockingIOError:
                pass  # thousands of rings are in it
            except OSError:  # its process ended
                self._drop(path)

    def _found(self) -> Iterator[tuple[Path, int]]:
        """Return the pipes of all listeners, open."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except OSError:
            return iter(())  # nobody has ever listened
        if changed != self._looked and self._is_mine():
            with contextlib.suppress(OSError):
                for path in self._folder.iterdir():
                    if path not in self._listeners and not path.name.startswith("."):
                        self._open_listener(path)
                # A pipe that is made within the clock's grain of this look (4 ms on Linux) would never be seen.
                self._looked = changed if time.time_ns() - changed > GRAIN_NS else -1
        return iter(self._listeners.items())

    def _open_listener(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            try:
                pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:  # nobody reads it: its process was killed
                path.unlink()
            else:
                self._listeners[path] = pipe

    def _drop(self, path: Path) -> None:
        os.close(self._listeners.pop(path))
        with contextlib.suppress(OSError):
            path.unlink()

    def _is_mine(self) -> bool:
        """Tell whether nobody else can put pipes there."""
        if self._mine is None:
            about = self._folder.parent.lstat()
            self._mine = about.st_uid == os.getuid() and not about.st_mode & 0o077
        return self._mine

    def close(self) -> None:
        """Give back the pipes. A later `listen` or `ring` opens them again."""
        for pipe in self._listeners.values():
            os.close(pipe)
        self._listeners, self._looked = {}, -1
        if self._pipe is not None:
            os.close(self._pipe[0])
            with contextlib.suppress(OSError):
                self._pipe[1].unlink()
                self._folder.rmdir()  # if it is empty
            self._pipe = None
