"""The data folder: what a pipeline on one machine keeps, and the lock that stops two pipelines from sharing it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from modelstream.base.durable import check_there, identity
from modelstream.errors import ConfigurationError, GoneError, UnavailableError
from modelstream.project import Project
from modelstream.runner.store_urls import check_own, clear, differing
from modelstream.settings import KINDS_OF_STORES, Settings, StoreUrls

VERSION = 2
"""Version of the marker file: 2 if a store is at a URL outside of the folder (which a reader of version 1 would miss),
otherwise 1."""
MARKER = "modelstream.json"
LOCK = ".lock"
OURS = (*KINDS_OF_STORES, "served.json")
"""What a fresh start removes, besides the project's Parquet logs and, at last, the marker."""
WAIT_FOR_ORPHANS = 3.0
"""Seconds to wait for the lock; workers of a killed supervisor end within one second."""


NOWHERE_ELSE = StoreUrls()


class Marker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The marker file of a data folder."""

    version: int
    shards: int
    use_case: str
    """Name of the use case whose columns the tables and logs have."""
    urls: StoreUrls = msgspec.field(default=StoreUrls(), name="places")
    """URLs of the streams, tables and logs that are outside of the folder."""


@dataclass
class DataFolder:
    """An open data folder. Its lock is held until the process and all workers that inherited it have ended."""

    path: Path
    marker: Marker
    lock: int
    """File descriptor of the lock, for workers to inherit."""

    @property
    def urls(self) -> StoreUrls:
        """URLs of streams, tables and logs."""
        return self.marker.urls.within(self.path)

    def check_there(self) -> None:
        """Raise GoneError if the folder was deleted, moved or replaced since it was opened."""
        if not (self.path / MARKER).exists():
            raise GoneError(self.path / MARKER if self.path.is_dir() else self.path)
        check_there(self.path / LOCK, identity(self.lock))


def read_marker(path: Path) -> Marker | None:
    """Return the marker of a data folder, None where there is none. Raises ConfigurationError."""
    try:
        text = (path / MARKER).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", remedy="give a folder that you have permission to read"
        ) from None
    try:
        marker = msgspec.json.decode(text, type=Marker)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path / MARKER} is broken: {error}",
            remedy="restore it from a copy, or start over with --fresh, which deletes the data",
        ) from None
    if marker.version > VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer version of modelstream (format {marker.version}; this version "
            f"reads up to {VERSION})",
            remedy="update modelstream, or give another --data",
        )
    return marker


def require(path: Path, project: Project) -> Marker:
    """Return the marker of a data folder that must exist, and hold data of the project's use case.

    Raises ConfigurationError.
    """
    marker = read_marker(path)
    if marker is None:
        raise ConfigurationError(
            f"{path} is not the data folder of a pipeline",
            remedy="run `python pipeline.py run` first, or give the folder of a run with --data",
        )
    check_use_case(path, marker, project)
    return marker


def holder_of(path: Path) -> int | None:
    """Return the process that runs on a data folder (0 if it didn't say which), None if none does."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdecimal() else 0
    finally:
        os.close(descriptor)
    return None


def settings_in(path: Path, marker: Marker, project: Project, function: str) -> Settings:
    """Return the settings of a function that works on a data folder."""
    return project.settings(
        function,
        marker.urls.within(path),
        folder=project.folder.resolve(),
        registry=project.registry(),
        shards=marker.shards,
    )


def check_use_case(path: Path, marker: Marker, project: Project) -> None:
    """Raise ConfigurationError if a data folder holds data of another use case than the project's."""
    if marker.use_case != project.use_case_file.stem:
        raise ConfigurationError(
            f"{path} holds data of the use case {marker.use_case!r}, not {project.use_case_file.stem!r}",
            remedy="give another --data, or start over with --fresh, which deletes the data",
        )


def open_folder(
    path: Path,
    project: Project,
    *,
    shards: int | None = None,
    urls: StoreUrls = NOWHERE_ELSE,
    fresh: bool = False,
) -> DataFolder:
    """Lock a data folder, make it if need be, and return it.

    `urls` are those on the command line; the folder remembers them. With `fresh`, stored data are deleted first: what
    is behind URLs, if the folder was made with them, then the folder's own. Raises ConfigurationError when another run
    has it, when it holds something else, or when it was made with other shards or URLs, or another use case.
    """
    with _told(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
    try:
        with _told(path):
            if fresh:
                urls = _begin_anew(path, project, urls)
            marker = read_marker(path)
            if marker is None:
                marker = _begin(path, shards or project.params.shards, project.use_case_file.stem, urls)
        if shards is not None and shards != marker.shards:
            raise ConfigurationError(
                f"{path} was made with {marker.shards} shards, not {shards}: users would move to other shards, "
                "and their events lose their order",
                remedy=f"leave out --shards, or delete the data and start over with --fresh --shards {shards}",
            )
        check_use_case(path, marker, project)
        differing(urls, marker.urls, path)
    except BaseException:
        os.close(lock)
        raise
    return DataFolder(path, marker, lock)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ours."""
    try:
        yield
    except FileExistsError:
        raise ConfigurationError(f"{path} is a file", remedy="give a folder with --data") from None
    except (PermissionError, NotADirectoryError) as error:
        raise ConfigurationError(f"{path}: {error.strerror}", remedy="give a folder that you may write to") from None
    except OSError as error:
        raise UnavailableError(
            f"{path}: {error.strerror}", remedy="free space, then run the same command again"
        ) from None


def _begin_anew(path: Path, project: Project, urls: StoreUrls) -> StoreUrls:
    """Delete what a folder and its URLs hold; return the URLs to begin anew with."""
    made_with = _remembered(path)
    urls = urls.or_else(made_with)
    check_own(urls, made_with, project)
    clear(urls, project)
    if (path / MARKER).exists():  # else the folder is not ours, whatever its entries are called
        _remove(path, project)
    return urls


def _lock(path: Path) -> int:
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + WAIT_FOR_ORPHANS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                os.close(descriptor)
                raise ConfigurationError(
                    f"{path} is in use by another run (process {holder or 'unknown'})",
                    remedy="wait for it, stop it, or give another --data",
                ) from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _remove(path: Path, project: Project) -> None:
    logs = project.params.logs
    for name in (*OURS, *logs, *(f".{log}.writing" for log in logs), MARKER):
        entry = path / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _remembered(path: Path) -> StoreUrls:
    """Return the URLs that a folder was made with; none of a folder whose marker can't be read."""
    try:
        marker = read_marker(path)
    except ConfigurationError:
        marker = None
    return marker.urls if marker else NOWHERE_ELSE


def _begin(path: Path, shards: int, use_case: str, urls: StoreUrls) -> Marker:
    strangers = [entry.name for entry in path.iterdir() if entry.name != LOCK]
    if strangers:
        raise ConfigurationError(
            f"{path} is not empty, and not the data folder of a pipeline ({', '.join(sorted(strangers)[:3])}, …)",
            remedy="give an empty or a new folder with --data",
        )
    version = 1 if urls == NOWHERE_ELSE else VERSION
    marker = Marker(version=version, shards=shards, use_case=use_case, urls=urls)
    written = path / f".{MARKER}.tmp"
    written.write_bytes(msgspec.json.format(msgspec.json.encode(marker)))
    written.replace(path / MARKER)
    return marker
