"""What is written is all there, and an error of the file system is an outage that names the file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import tempfile
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.base.durable import check_there, identity, link, outages, sync_folder, write_at
from modelstream.errors import ConfigurationError, GoneError, UnavailableError


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 50), st.lists(st.integers(1, 7), max_size=5))
def test_all_of_it_is_written_at_its_place_however_little_the_disk_takes_at_once(
    before: bytes, content: bytes, position: int, taken: list[int]
) -> None:
    expected = bytearray(before.ljust(position, b"\0") if content else before)
    expected[position : position + len(content)] = content
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile(buffering=0) as file:
        file.write(before)
        limits = iter(taken)
        whole = os.pwrite

        def short(descriptor: int, data: memoryview, at: int) -> int:
            return whole(descriptor, data[: next(limits, None)], at)

        patch.setattr(os, "pwrite", short)
        write_at(file.fileno(), content, position)
        assert os.pread(file.fileno(), 1000, 0) == expected


def test_a_disk_that_fills_up_in_the_middle_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        sizes = iter([3])

        def full(descriptor: int, data: memoryview, at: int) -> int:
            for size in sizes:
                return size
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(UnavailableError, match="the-log: No space left on device"), outages(Path("the-log")):
            write_at(file.fileno(), b"content", 0)


def test_outage_names_the_file_that_the_system_names() -> None:
    with pytest.raises(UnavailableError, match=r"^/nowhere/file: No such file") as raised, outages(Path("the-log")):
        Path("/nowhere/file").read_bytes()
    assert isinstance(raised.value.__cause__, FileNotFoundError)
    assert raised.value.remedy.startswith("free space")


def test_outage_without_a_text_of_the_system_is_told_all_the_same() -> None:
    with pytest.raises(UnavailableError, match=r"^the-log: it broke$"), outages(Path("the-log")):
        raise OSError("it broke")


def test_other_errors_are_no_outages() -> None:
    with pytest.raises(ValueError, match="a defect"), outages(Path("the-log")):
        raise ValueError("a defect")


def test_names_in_a_folder_are_synced_and_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        assert stat.S_ISDIR(found.st_mode)
        synced.append((found.st_ino, descriptor))
        if len(synced) == 2:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    sync_folder(tmp_path)
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)
    assert [inode for inode, _ in synced] == [tmp_path.stat().st_ino] * 2
    for _, descriptor in synced:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_only_a_folder_is_synced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")


def replaced(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.touch()


@pytest.mark.parametrize(
    "change", [Path.unlink, replaced, lambda path: shutil.rmtree(path.parent), lambda path: path.parent.rename("moved")]
)
def test_a_file_that_is_open_is_missed_when_it_was_deleted_moved_or_replaced(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    with path.open("w") as file:
        opened = identity(file.fileno())
        check_there(path, opened)
        change(path)
        with pytest.raises(GoneError, match="file was deleted, moved or replaced while it was in use"):
            check_there(path, opened)


def test_a_path_that_can_not_be_looked_at_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="File name too long"):
        check_there(tmp_path / ("x" * 300), (1, 1))


@pytest.mark.parametrize("code", [None, errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_gets_its_name_once_with_and_without_hard_links(
    code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*names: Path) -> None:
        raise OSError(code, "no links here")

    if code is not None:
        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "näme"
    for content, taken in ((b"first", False), (b"second", True)):
        hidden = tmp_path / f".{content.decode()}"
        hidden.write_bytes(content)
        with pytest.raises(FileExistsError) if taken else contextlib.nullcontext():
            link(hidden, path)
    assert path.read_bytes() == b"first"


def test_other_errors_of_a_link_are_no_reason_to_rename(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link(tmp_path / "missing", tmp_path / "name")
    (tmp_path / "hidden").touch()
    with pytest.raises(FileNotFoundError):
        link(tmp_path / "hidden", tmp_path / "nowhere" / "name")


def test_a_file_system_without_any_exclusive_step_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    def refused(*names: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    library = types.SimpleNamespace(renameat2=unknown, renamex_np=unknown)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(ConfigurationError, match="can neither link") as raised, outages(tmp_path):
        link(tmp_path / "hidden", tmp_path / "name")
    assert "--data" in raised.value.remedy
