"""The data folder: what a pipeline on one machine keeps, and the lock that stops two pipelines from sharing it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from modelstream.base.durable import check_there, identity
from modelstream.base.words import counted
from modelstream.errors import ConfigurationError, GoneError, UnavailableError
from modelstream.project import Project, load_project
from modelstream.runner import definition, entries
from modelstream.runner.definition import Definition, definition_of
from modelstream.runner.entries import LOCK, MARKER
from modelstream.runner.store_urls import check_own, checked, clear, differing
from modelstream.settings import KINDS_OF_STORES, Settings, StoreUrls
from modelstream.stores import Stores

VERSION = 2
"""Version of the marker file: 2 if a store is at a URL outside of the folder (which a reader of version 1 would miss),
otherwise 1."""
WAIT_FOR_ORPHANS = 3.0
"""Seconds to wait for the lock; workers of a killed supervisor end within one second."""


NOWHERE_ELSE = StoreUrls()


class Marker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The marker file of a data folder."""

    version: int
    shards: int
    use_case: str
    """Name of the use case whose columns the tables and logs have."""
    use_case_file: str = ""
    """Its file, where that was chosen for the folder; empty: the one that `project.yaml` names."""
    urls: StoreUrls = msgspec.field(default=StoreUrls(), name="places")
    """URLs of the streams, tables and logs that are outside of the folder."""
    definition: Definition | None = None
    """What the data mean; None in a folder of an earlier version, until a pipeline takes it over."""
    emptying: bool = False
    """A fresh start began to delete the data, and has not ended: the next start goes on with it."""


@dataclass
class DataFolder:
    """An open data folder. Its lock is held until the process and all workers that inherited it have ended."""

    path: Path
    marker: Marker
    lock: int
    """File descriptor of the lock, for workers to inherit."""
    note: str = ""
    """What a person should know of how it was opened, if anything."""

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
    if marker.emptying:
        raise ConfigurationError(
            f"{path} is half empty: a run --fresh was ended while it deleted the data",
            remedy="run it again: it goes on with that",
        )
    check_definition(path, marker, project)
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
    settings = project.settings(
        function,
        marker.urls.within(path),
        folder=project.folder.resolve(),
        registry=project.registry(),
        shards=marker.shards,
    )
    return msgspec.structs.replace(settings, meaning=marker.definition.meaning if marker.definition else "")


def check_definition(path: Path, marker: Marker, project: Project) -> None:
    """Raise ConfigurationError if a data folder holds data of another use case, or definition, than the project's."""
    if marker.use_case != project.use_case_file.stem:
        raise ConfigurationError(
            f"{path} holds data of the use case {marker.use_case!r}, not {project.use_case_file.stem!r}",
            remedy="give another --data, or start over with --fresh, which deletes the data",
        )
    if marker.definition is not None:
        definition.check(path, marker.definition, project)


def _nothing() -> None:
    pass


def open_folder(
    path: Path,
    project: Project,
    *,
    shards: int | None = None,
    urls: StoreUrls = NOWHERE_ELSE,
    fresh: bool = False,
    preflight: Callable[[], None] = _nothing,
) -> DataFolder:
    """Lock a data folder, make it if need be, and return it.

    `urls` are those on the command line; the folder remembers them. With `fresh`, stored data are deleted first: what
    is behind URLs, if the folder was made with them, then the folder's own; `preflight` is called before, and may raise
    what would refuse the run afterwards. Raises ConfigurationError when another run has it, when it holds something
    else, or when it was made with other shards or URLs, or another use case or definition.
    """
    made = definition_of(project)
    with Stores.of_project(project, NOWHERE_ELSE) as stores:
        stores.check_names(project)
    note = ""
    with _told(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
    try:
        with _told(path):
            if fresh or _is_emptying(path):
                urls = _empty(path, project, urls, preflight)
                marker = None
            else:
                marker = read_marker(path)
            if marker is None:
                marker = _begin(path, shards or project.params.shards, project, urls, made)
        if shards is not None and shards != marker.shards:
            raise ConfigurationError(
                f"{path} was made with {counted(marker.shards, 'shard')}, not {shards}: users would move to other "
                "shards, and their events lose their order",
                remedy=f"leave out --shards, or delete the data and start over with --fresh --shards {shards}",
            )
        check_definition(path, marker, project)
        differing(urls, marker.urls, path)
        if marker.urls != urls:
            checked(NOWHERE_ELSE, project, (path, marker.urls))
        if marker.definition is None:
            note = (
                f"{path} was made by an earlier version, which did not keep what its data mean: "
                "they are taken for data of the use case as it is now"
            )
            marker = msgspec.structs.replace(marker, definition=made)
            with _told(path):
                _write(path, marker)
    except BaseException:
        os.close(lock)
        raise
    return DataFolder(path, marker, lock, note)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ours."""
    try:
        yield
    except FileExistsError:
        raise ConfigurationError(f"{path} is a file", remedy="give a folder with --data") from None
    except (PermissionError, NotADirectoryError) as error:
        raise _not_writable(path, error) from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise _not_writable(path, error) from None
        raise UnavailableError(
            f"{path}: {error.strerror}", remedy="free space, then run the same command again"
        ) from None


def _not_writable(path: Path, error: OSError) -> ConfigurationError:
    read_only = path.is_dir() and not os.access(path, os.W_OK)
    what = f"{path} is read-only" if read_only else f"{path}: {error.strerror}"
    return ConfigurationError(what, remedy="give a folder that you may write to")


def _empty(path: Path, project: Project, urls: StoreUrls, preflight: Callable[[], None]) -> StoreUrls:
    """Delete what a folder and its URLs hold; return the URLs to begin anew with.

    All that could refuse the new beginning is looked at before anything is deleted.
    """
    ours = (path / MARKER).exists()
    if not ours:  # whatever its entries are called
        _check_empty(path)
    marker = _remembered(path)
    made_with = marker.urls if marker else NOWHERE_ELSE
    urls = checked(urls, project, (path, made_with))
    check_own(urls, made_with, project)
    if ours or urls != NOWHERE_ELSE:
        preflight()
    if marker is not None:
        _write(path, msgspec.structs.replace(marker, emptying=True))
    made = _as_made(project, marker)
    clear(urls, made)
    if ours:
        entries.remove(path, {kind: getattr(made.params, kind) for kind in KINDS_OF_STORES})
    return urls


def _as_made(project: Project, marker: Marker | None) -> Project:
    """Return a project with the names of stores that it has, and those that a folder was made with."""
    if marker is None or marker.definition is None:
        return project
    names = {
        kind: tuple(sorted({*getattr(project.params, kind), *made})) for kind, made in marker.definition.names.items()
    }
    return msgspec.structs.replace(project, params=msgspec.structs.replace(project.params, **names))


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


def _remembered(path: Path) -> Marker | None:
    """Return the marker of a folder, None where it can't be read."""
    try:
        return read_marker(path)
    except ConfigurationError:
        return None


def _is_emptying(path: Path) -> bool:
    marker = _remembered(path)
    return marker is not None and marker.emptying


def _check_empty(path: Path) -> None:
    if strangers := entries.strangers(path):
        raise ConfigurationError(
            f"{path} is not empty, and not the data folder of a pipeline ({', '.join(strangers[:3])}, …)",
            remedy="give an empty or a new folder with --data",
        )


def _begin(path: Path, shards: int, project: Project, urls: StoreUrls, made: Definition) -> Marker:
    if not (path / MARKER).exists():
        _check_empty(path)
    version = 1 if urls == NOWHERE_ELSE else VERSION
    use_case = project.use_case_file
    chosen = "" if use_case == load_project(project.file).use_case_file else str(use_case)
    marker = Marker(
        version=version,
        shards=shards,
        use_case=use_case.stem,
        use_case_file=chosen,
        urls=urls,
        definition=made,
    )
    _write(path, marker)
    return marker


def _write(path: Path, marker: Marker) -> None:
    written = path / f".{MARKER}.tmp"
    written.write_bytes(msgspec.json.format(msgspec.json.encode(marker)))
    written.replace(path / MARKER)
