"""Writes files that survive a power loss, and turns errors of the file system into ours."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelstream.errors import ConfigurationError, GoneError, UnavailableError

TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
MORE_FILES = "let a process have more files open, such as with `ulimit -n 1024`, and run the same command again"

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


def link(hidden: Path, path: Path) -> None:
    """Give a complete file its name, in one step that fails with FileExistsError if that name is taken.

    The hidden name may stay. Raises ConfigurationError on a file system that has no such step.
    """
    try:
        os.link(hidden, path)
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        _rename(hidden, path)


_WITHOUT_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
"""What a file system without hard links, such as exFAT, says to a link."""


def _rename(hidden: Path, path: Path) -> None:
    """Rename a file unless the new name is taken: Linux's `renameat2`, macOS's `renamex_np`."""
    library = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(hidden), os.fsencode(path)
    if sys.platform == "darwin":
        failed = library.renamex_np(old, new, _RENAME_EXCL)
    else:
        failed = library.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE)
    if not failed:
        return
    code = ctypes.get_errno()
    if code in _WITHOUT_LINKS:
        raise ConfigurationError(
            f"{path.parent}: this file system can neither link a file nor rename one without replacing another",
            remedy="put the folder on another file system (--data), such as the disk of this machine",
        )
    raise OSError(code, os.strerror(code), str(path))


_AT_FDCWD, _RENAME_NOREPLACE, _RENAME_EXCL = -100, 1, 4


def shared(folder: Path) -> bool:
    """Return whether other machines may write to a folder too, by the kind of its file system, as Linux names it.

    Elsewhere the folder counts as one of this machine.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return _kind_of_mount(folder.resolve(), mounts) not in _OF_ONE_MACHINE


_OF_ONE_MACHINE = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs"),
    *("tmpfs", "ramfs", "overlay", "aufs", "vfat", "exfat", "ntfs3", "hfsplus"),
}


def _kind_of_mount(folder: Path, mounts: list[str]) -> str:
    """Return the kind of the file system that a folder is in.

    >>> mounts = ["21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw", r"36 21 0:31 /a /my\\040data rw - nfs4 host:/b rw"]
    >>> _kind_of_mount(Path("/my data/events"), mounts), _kind_of_mount(Path("/my database"), mounts)
    ('nfs4', 'ext4')
    """
    kind, longest = "", -1
    for line in mounts:
        mount, _, rest = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), mount.split(" ")[4]))
        if len(point.parts) >= longest and folder.is_relative_to(point):  # of several in a place, the last counts
            kind, longest = rest.split(" ")[0], len(point.parts)
    return kind


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
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
        return NOT_WRITABLE
    if error.errno in TOO_MANY_FILES:
        return MORE_FILES
    return "free space or fix the disk; the pipeline then continues by itself"
