"""SQLite files of streams and tables: made in one step, checked when opened, with SQLite's errors turned into ours."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelstream.base.durable import (
    MORE_FILES,
    NOT_WRITABLE,
    TOO_MANY_FILES,
    Identity,
    check_there,
    identity,
    link,
    outages,
    sync_folder,
)
from modelstream.errors import ConfigurationError, GoneError, UnavailableError

LOCK_WAIT_SECONDS = 10.0
"""How long to wait for a file's lock. A writer holds it for milliseconds, or 100 ms on a slow disk. Only a writer that
was stopped (a debugger, a suspended machine) holds it longer; the shard is then held, with the reason."""

LOCK_POLL_SECONDS = 0.001
"""SQLite's own busy handler sleeps up to 100 ms between tries, which alone uses up the delay allowed at p99."""

WAL_SIZE_LIMIT = 32 << 20
"""A write-ahead log that grew beyond this size (because a reader was slow) is cut back to it."""

PAGE_BYTES = 4096
"""SQLite's default, which all files have."""

_OUTAGES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


@dataclass(frozen=True)
class Format:
    """The format of a file: what errors call it, four bytes as its application id, and the version of its layout."""

    name: str
    code: bytes
    version: int = 1

    @property
    def application_id(self) -> int:
        """The application id as a number, as in the file's header."""
        return int.from_bytes(self.code, "big")


class Connection(sqlite3.Connection):
    """A connection that knows which files it has open."""

    opened: dict[Path, Identity]
    """The file and, beside it, its write-ahead log and its index, which is in memory that processes share."""

    def check_there(self) -> None:
        """Raise GoneError if one of the files was deleted or replaced since: SQLite would write to it all the same."""
        for path, opened in self.opened.items():
            check_there(path, opened)


def folder_of(url: str) -> Path:
    """Return the folder of a URL `sqlite://folder` (relative) or `sqlite:///folder` (absolute).

    >>> str(folder_of("sqlite:///data/streams")), str(folder_of("sqlite://data/streams"))
    ('/data/streams', 'data/streams')
    """
    scheme, separator, path = url.partition("://")
    if scheme != "sqlite" or not separator or not path:
        raise ConfigurationError(f"the URL {url!r} names no folder", remedy="write sqlite:///absolute/folder")
    return Path(path)


def create(path: Path, form: Format, statements: Sequence[str]) -> bool:
    """Make a file in one step, so that it is complete or absent at every moment. Return False if it was already there.

    It is built in a hidden folder and then linked to its name. So a kill leaves no half-made file, and of several
    processes that start together, exactly one makes it.
    """
    if path.exists():
        return False
    with guarded(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as temporary:
            built = Path(temporary) / path.name
            connection = sqlite3.connect(built, isolation_level=None)
            try:
                # Nothing is there to lose before the link, so one sync at the end will do: a run makes 8 files.
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN")
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={form.application_id}")
                connection.execute(f"PRAGMA user_version={form.version}")
                connection.execute("COMMIT")
            finally:
                connection.close()
            with built.open("rb+") as file:
                os.fsync(file.fileno())
            try:
                link(built, path)
            except FileExistsError:
                return False
        sync_folder(path.parent)
    return True


def connect(path: Path, form: Format, *, durable: bool = True, cache_bytes: int = 0) -> Connection:
    """Open a file that exists. With `durable`, a commit is safe against power loss, else only against a kill.

    `cache_bytes` of its pages at most stay in memory, and as many wait in its write-ahead log; 0: as SQLite sees fit
    (2 and 4 MB).

    Raises ConfigurationError when the file is missing, is something else, or of a newer version.
    """
    if not path.exists():
        raise ConfigurationError(
            f"there is no {form.name} {path}", remedy="run `python pipeline.py run` first, or give the right folder"
        )
    with guarded(path, opening=True):
        connection = sqlite3.connect(
            _address(path), isolation_level=None, timeout=LOCK_WAIT_SECONDS, factory=Connection, uri=True
        )
        try:
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            _check(path, form, found, version)
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute(f"PRAGMA journal_size_limit={max(WAL_SIZE_LIMIT, cache_bytes)}")
            if cache_bytes:
                connection.execute(f"PRAGMA cache_size={-cache_bytes // 1024}")
                connection.execute(f"PRAGMA wal_autocheckpoint={cache_bytes // PAGE_BYTES}")
            # Debian's SQLite overwrites what is deleted with zeros unless told otherwise.
            connection.execute("PRAGMA secure_delete=OFF")
            files = {file: identity(file) for file in (path, *(Path(f"{path}-{end}") for end in ("wal", "shm")))}
            connection.opened = {file: found for file, found in files.items() if found}
        except BaseException:
            connection.close()
            raise
    return connection


def is_of(path: Path, forms: Sequence[Format]) -> bool:
    """Return whether a file has one of these formats, by its header; False if it can't be read."""
    try:
        with path.open("rb") as file:
            header = file.read(72)
    except OSError:
        return False
    return header.startswith(b"SQLite format 3\0") and header[68:] in [form.code for form in forms]


def _address(path: Path) -> str:
    """Return the address to open a file by: as it is, or only for reading where this process may not write.

    To read a file, SQLite needs its write-ahead log and a file of shared memory beside it, `-wal` and `-shm`. Where it
    can't make them, it has to be told that nobody writes (`immutable`). It then overlooks the write-ahead log.
    """
    address = path.absolute().as_uri()
    log, memory = (path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))
    if all(os.access(each, os.W_OK) for each in (path.parent, path, log, memory) if each.exists()):
        return address
    if log.exists() and memory.exists():  # somebody may be writing
        return f"{address}?mode=ro"
    if log.exists() and log.stat().st_size:
        raise ConfigurationError(
            f"{path.parent} is read-only, and a part of {path.name} is still in {path.name}-wal, which can't be read "
            "without the right to write",
            remedy="copy the data folder to a place where you may write, and name that",
        )
    return f"{address}?mode=ro&immutable=1"


def _check(path: Path, form: Format, found: int, version: int) -> None:
    if found != form.application_id:
        raise ConfigurationError(
            f"{path} is not a {form.name} of this pipeline",
            remedy="give another folder, or move this file away if nothing in it is needed",
        )
    if version > form.version:
        raise ConfigurationError(
            f"{path} is a {form.name} of version {version}; this program reads up to {form.version}",
            remedy="update modelstream, or give another folder",
        )


class File:
    """One connection to a file, opened when it is first used in a process.

    With `statements`, the file is made if it isn't there. See `create` and `connect` for what is raised.
    """

    def __init__(
        self,
        path: Path,
        form: Format,
        statements: Sequence[str] = (),
        *,
        durable: bool = True,
        cache_bytes: int = 0,
    ) -> None:
        self.path = path
        self._form = form
        self._statements = statements
        self._durable = durable
        self._cache_bytes = cache_bytes
        self._connection: Connection | None = None
        self._process = os.getpid()
        self._of_parents: list[Connection | None] = []

    @property
    def connection(self) -> Connection:
        """The connection of this process. Raises GoneError if the file was deleted or replaced since it was opened."""
        if self._process != os.getpid():
            # Opened before a fork: in the child it may be neither used nor closed.
            self._of_parents.append(self._connection)
            self._connection, self._process = None, os.getpid()
        if self._connection is None:
            if self._statements:
                create(self.path, self._form, self._statements)
            self._connection = connect(self.path, self._form, durable=self._durable, cache_bytes=self._cache_bytes)
        self._connection.check_there()
        return self._connection

    def close(self) -> None:
        """Give the connection back; the next use opens another."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
            self._connection = None


@contextmanager
def guarded(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into ours, with the path.

    Locked, full, read-only or unreadable just now: UnavailableError. Corrupt, not a database, or (when
    opening) not permitted: ConfigurationError. Errors of the program itself pass through.
    """
    try:
        with outages(path):
            yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            raise
        raise _translated(path, error, code, opening) from error


def _translated(path: Path, error: sqlite3.Error, code: int, opening: bool) -> Exception:
    primary = code & 0xFF
    if primary in _BROKEN:
        return ConfigurationError(
            f"{path} is broken: {error}", remedy="restore it from a copy, or start over in another folder"
        )
    if code == sqlite3.SQLITE_READONLY_DBMOVED:
        return GoneError(path)
    if primary == sqlite3.SQLITE_CANTOPEN and _has_no_file_left(path):
        return UnavailableError(f"{path}: too many open files", remedy=MORE_FILES)
    if primary == sqlite3.SQLITE_READONLY and not os.access(path.parent, os.W_OK):
        return UnavailableError(f"{path.parent} is read-only", remedy=NOT_WRITABLE)
    if opening and primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        return ConfigurationError(
            f"{path} can't be opened: {error}", remedy="give this user the right to read and write it"
        )
    if primary in _OUTAGES:
        return UnavailableError(
            f"{path}: {error}",
            remedy="free space, or end the process that holds the file; the pipeline then continues by itself",
        )
    return error


def _has_no_file_left(path: Path) -> bool:
    """Tell whether this process may open no more files, which SQLite doesn't say."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in TOO_MANY_FILES
    return False


@contextmanager
def writing(connection: Connection) -> Iterator[None]:
    """Run the block in one transaction: when this returns, either all of it is stored or nothing.

    Raises GoneError if the file was deleted or replaced.
    """
    _begin(connection)
    try:
        yield
        connection.check_there()  # before, so that a file that was only moved doesn't get what is told to have failed
        connection.execute("COMMIT")
        connection.check_there()
    except BaseException:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def _begin(connection: sqlite3.Connection) -> None:
    """Take the write lock, trying once a millisecond, for at most LOCK_WAIT_SECONDS."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    connection.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(LOCK_POLL_SECONDS)
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(LOCK_WAIT_SECONDS * 1000)}")


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """Give several statements the same state of the file.

    Keep it short: until it ends, the write-ahead log can't be cut.
    """
    connection.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("COMMIT")


def quoted(name: str) -> str:
    """Return a name as SQL writes it.

    >>> quoted('a "b"')
    '"a ""b\"""'
    """
    return '"' + name.replace('"', '""') + '"'
