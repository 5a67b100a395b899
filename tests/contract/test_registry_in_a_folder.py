"""A registry in a folder keeps the contract, also where a writer is killed between any two calls to the system."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelstream.errors import UnavailableError
from modelstream.registry import folder as files
from modelstream.registry import registry as module
from modelstream.registry.registry import Registry
from modelstream.registry.store import TakenError
from tests.contract.registry_contract import RegistryContract, promotion
from tests.model_files import directory, folder_of

ROOT = Path(__file__).parents[2]

# Kills. A child does the writing and ends at once, without cleaning up, before or after its n-th call to the system.

CALLS = ("open", "fsync", "mkdir", "rename", "replace", "pwrite", "close")


class Killed:
    """`os` for a child that is killed at a call."""

    def __init__(self, at: int, *, after: bool) -> None:
        self._left = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def survives(action: Callable[[], None], at: int, *, after: bool, patch: pytest.MonkeyPatch) -> bool:
    """Do something in a child that is killed at a call; tell whether it came to its end."""
    child = os.fork()
    if child == 0:
        killer = Killed(at, after=after)
        for each in (files, module_of_files(), pathlib_os()):
            patch.setattr(each, "os", killer)
        action()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


def module_of_files() -> Any:
    from modelstream.base import durable as synced

    return synced


def pathlib_os() -> Any:
    import pathlib

    return pathlib


class TestRegistryInAFolder(RegistryContract):
    def new_place(self, folders: pytest.TempPathFactory) -> str:
        return str(folders.mktemp("registry") / "models")

    def content(self, registry: Registry, *names: str) -> bytes:
        return folder_of(registry).joinpath(*names).read_bytes()

    def everything(self, place: str) -> list[str]:
        return sorted(str(path) for path in Path(place).parent.rglob("*"))

    def overwrite(self, registry: Registry, content: bytes, *names: str) -> None:
        folder_of(registry).joinpath(*names).write_bytes(content)

    def test_looking_whether_it_can_be_written_tells_what_is_in_the_way(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UnavailableError, match="Not a directory") as caught:
            self.open(str(tmp_path / "file" / "models")).check_writable()
        assert "name another folder" in caught.value.remedy

        def read_only(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(os, "mkdir", read_only)
        with pytest.raises(UnavailableError, match="Read-only"):
            self.open(str(tmp_path / "models")).check_writable()

    def test_refused_version_leaves_nothing_behind(self, registry: Registry) -> None:
        registry.register(directory)
        with pytest.raises(TakenError):
            registry.add(directory("2"), version="2")
        assert not list(folder_of(registry).glob(".writing-*"))

    def test_names_that_are_no_versions_are_left_alone(self, registry: Registry) -> None:
        registry.register(directory)
        for name in ("notes", "03", "-4", "5.0", "٣", ".writing-9-x", "1" * 12):
            (folder_of(registry) / name).mkdir()
        assert [one.version for one in registry.versions()] == ["1", "2"]

    def test_stopped_writer_is_an_outage_and_not_a_wait_without_end(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry.register(directory)
        monkeypatch.setattr(files, "WAIT_SECONDS", 0.05)
        with files.locked(folder_of(registry)), pytest.raises(UnavailableError, match="another process"):
            registry.promote("2")
        registry.promote("2")

    def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(self, registry: Registry) -> None:
        registry.register(directory)
        old, new = folder_of(registry) / ".writing-3-old", folder_of(registry) / ".writing-3-new"
        for folder in (old, new):
            folder.mkdir()
            (folder / "model.onnx").write_bytes(b"half of it")
        os.utime(old, (0, time.time() - 2 * files.LEFT_AFTER))
        registry.register(directory)
        assert (old.exists(), new.exists()) == (False, True)

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_version_is_there_whole_or_not_at_all_wherever_its_writer_is_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
    ) -> None:
        content = directory("2")
        for at in range(1, 100):
            registry = self.open(str(tmp_path / str(at)))
            ended = survives(
                lambda: files.write_folder(folder_of(registry), "2", content),  # noqa: B023
                at,
                after=after,
                patch=monkeypatch,
            )
            there = [one.version for one in registry.versions()]
            assert there in (["1"], ["1", "2"])
            if "2" in there:
                assert {path.name: path.read_bytes() for path in (folder_of(registry) / "2").iterdir()} == content
                registry.load("2")
            assert registry.register(directory) == ("3" if "2" in there else "2")
            if ended:
                assert "2" in there
                assert at > 15, "every step was tried"
                return
        raise AssertionError("it never came to its end")

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_alias_is_the_old_or_the_new_wherever_its_writer_is_killed(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch, after: bool
    ) -> None:
        registry._change(lambda _: module._now(promotion("2"), ()))
        for at in range(1, 100):
            wanted = str(2 + at)
            before = registry.current()

            def promote(version: str = wanted) -> None:
                registry._change(lambda alias: module._now(promotion(version), (*alias.before, alias.current)))  # type: ignore[union-attr]

            ended = survives(promote, at, after=after, patch=monkeypatch)
            assert registry.current() in (before, wanted)
            if ended:
                assert registry.current() == wanted
                assert at > 5, "every step was tried"
                return
        raise AssertionError("it never came to its end")


def test_client_of_s3_is_imported_only_for_its_urls() -> None:
    code = (
        "import sys; from modelstream.registry.registry import Registry; import modelstream.cluster.jobs; "
        "Registry(sys.argv[1], 'm', []); print('obstore' in sys.modules)"
    )
    for place, expected in (("models", "False"), ("s3://bucket/models", "True")):
        command = [sys.executable, "-c", code, place]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() == expected
