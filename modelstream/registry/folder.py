"""The versions of a model in a folder.

A kill during a write leaves the old state or the new one; reads follow no links.

A version is written under a hidden name, synced, and then named. A file beside the versions is changed by one writer
at a time (`flock`), and replaced as a whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from modelstream.base.durable import outages, sync_folder, write_at
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.registry.store import WAIT_SECONDS, ModelStore, Stamp, TakenError, check_names

LOCK = ".lock"
WRITING = ".writing-"
LEFT_AFTER = 3600.0
"""A hidden folder older than this (seconds) was left by a killed writer, since writing one takes less than a second."""


PRIVATE = ".parquet"
"""A file with this ending holds rows about users: only its owner may read it."""
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe must not hold the reader
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_PASSING = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""Read errors that may be temporary. All others are about what the file is or who may read it."""
_REMEDY = "restore the files of this version as they were registered, or promote another version"


class FolderStore(ModelStore):
    """Versions in a folder, which need not exist yet.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = FolderStore(Path(folder))
    ...     store.write("2", {"model_spec.yaml": b"kind: model"})
    ...     store.change("current.json", 100, lambda found: b"1" if found is None else found + b"1")
    ...     store.change("current.json", 100, lambda found: b"1" if found is None else found + b"1")
    ...     with store.files("2") as files:
    ...         files.read("model_spec.yaml", limit=100), store.read("current.json", 100)
    (b'kind: model', b'11')
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, *names: str) -> str:
        return str(self.folder.joinpath(*names))

    def names(self) -> list[str]:
        with outages(self.folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return [path.name for path in self.folder.iterdir()]
        return []

    def files(self, name: str) -> Folder:
        return Folder(self.folder / name)

    def written(self, name: str, file: str) -> datetime:
        path = self.folder / name / file
        with outages(path):
            return datetime.fromtimestamp(path.stat().st_mtime, UTC)

    def write(self, name: str, content: Mapping[str, bytes]) -> None:
        check_names(content)
        write_folder(self.folder, name, content)

    def check_writable(self) -> None:
        with outages(self.folder):
            there = next(path for path in (self.folder, *self.folder.parents) if path.exists())
            with tempfile.TemporaryDirectory(prefix=WRITING, dir=there):
                pass

    def read(self, name: str, limit: int) -> bytes | None:
        path = self.folder / name
        return _read(str(path), path, limit, None)

    def change(self, name: str, limit: int, change: Callable[[bytes | None], bytes]) -> None:
        with locked(self.folder):
            replace_file(self.folder / name, change(self.read(name, limit)))

    def stamp(self, *names: str) -> Stamp:
        try:
            found = self.folder.joinpath(*names).stat(follow_symlinks=False)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Folder:
    """An open folder to read files from, even if it is renamed meanwhile.

    `FolderStore` has an example.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path)

    def __enter__(self) -> Folder:
        """Open it. Raises ConfigurationError when there is none, or a link to one."""
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise _refusal(error, self._path) from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of a file of at most `limit` bytes.

        Raises ConfigurationError when it is missing, larger, a link or something else than a file, and
        UnavailableError when it can't be read just now.
        """
        content = _read(name, self._path / name, limit, self._descriptor)
        if content is None:
            raise ConfigurationError(f"{self._path / name}: No such file", remedy=_REMEDY)
        return content


def _read(name: str, path: Path, limit: int, folder: int | None) -> bytes | None:
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refusal(error, path) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"{path} is not a file", remedy=_REMEDY)
        if found.st_size > limit:
            raise ConfigurationError(
                f"{path} has more than {limit:,} bytes, which is too large for this kind of file", remedy=_REMEDY
            )
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(limit)  # no more, should it be growing
    except OSError as error:
        raise _refusal(error, path) from None
    finally:
        os.close(descriptor)


def _refusal(error: OSError, path: Path) -> ConfigurationError | UnavailableError:
    if error.errno in _PASSING:
        return UnavailableError(
            f"{path}: {error.strerror}", remedy="fix the storage; the file is then read again by itself"
        )
    with contextlib.suppress(PermissionError):  # to look into the folder that it is in
        if path.is_symlink():
            return ConfigurationError(f"{path} is a symbolic link; links are not followed", remedy=_REMEDY)
    return ConfigurationError(f"{path}: {error.strerror}", remedy=_REMEDY)


def write_folder(parent: Path, name: str, content: Mapping[str, bytes]) -> None:
    """Make a folder with these files.

    It is durable when this returns; at every moment before, it is complete or absent.

    Raises TakenError if the name is taken, UnavailableError if it can't be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_folder(Path(folder), "2", {"a.txt": b"one"})
    ...     write_folder(Path(folder), "2", {"a.txt": b"two"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    modelstream.registry.store.TakenError: .../2 is there already
    """
    with outages(parent):
        make_folder(parent)
        _remove_left(parent)
        hidden = parent / f"{WRITING}{name}-{secrets.token_hex(8)}"
        try:
            hidden.mkdir()
            for file, data in content.items():
                _write(hidden / file, data, os.O_EXCL, 0o600 if file.endswith(PRIVATE) else 0o666)
            sync_folder(hidden)
            _name(hidden, parent / name)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        sync_folder(parent)


def _name(hidden: Path, path: Path) -> None:
    """Rename a folder that is not empty: fails if there is something of that name, unless it is an empty folder."""
    try:
        hidden.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise TakenError(f"{path} is there already", remedy="take another name") from None
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file's content.

    The new content is durable when this returns; at every moment before, the file has the old content or the new.

    Call it inside of `locked`. Raises UnavailableError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
    ...     replace_file(Path(folder, "a.txt"), b"one")
    ...     replace_file(Path(folder, "a.txt"), b"two")
    ...     Path(folder, "a.txt").read_bytes()
    b'two'
    """
    with outages(path):
        hidden = path.with_name(f".{path.name}.writing")
        _write(hidden, content, os.O_TRUNC)
        hidden.replace(path)
        sync_folder(path.parent)


def _write(path: Path, content: bytes, flag: int, mode: int = 0o666) -> None:
    descriptor = os.open(path, _WRITE | flag, mode)
    try:
        write_at(descriptor, content, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably. Raises OSError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_folder(Path(folder, "models", "mine"))
    ...     Path(folder, "models", "mine").is_dir()
    True
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other writers. The lock ends with its process, however that ends.

    Raises UnavailableError when another has it for 10 s.

    `replace_file` has an example.
    """
    with outages(folder):
        make_folder(folder)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{folder}: another process has held its lock for {WAIT_SECONDS:.0f} s",
                    remedy="end that process, or try again later",
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_left(parent: Path) -> None:
    """Remove what killed writers left."""
    for path in parent.glob(f"{WRITING}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_AFTER:
                shutil.rmtree(path, ignore_errors=True)
