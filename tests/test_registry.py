"""The registry: versions that never change, one that serves, many writers, and kills between any two steps."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream import registry as module
from modelstream import registry_files as files
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.registry import Registry
from modelstream.registry_alias import ALIAS, ALIAS_BYTES, FORMAT, Alias, Promotion
from modelstream.registry_files import TakenError
from tests.model_files import CHURN, SHIPPED, directory


def open_registry(folder: Path, *, shipped: Path | None = SHIPPED) -> Registry:
    return Registry(folder / "models", CHURN.model_name, CHURN.features, shipped=shipped)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(tmp_path)


def promotion(version: str) -> Promotion:
    """Return what a registry notes of a version, without having loaded it."""
    return Promotion(version, f"hash of {version}")


# Versions.


def test_versions_count_on_from_the_shipped_one(registry: Registry, tmp_path: Path) -> None:
    assert [one.version for one in registry.versions()] == ["1"]
    assert [registry.register(directory) for _ in range(2)] == ["2", "3"]
    registry.add(directory("12"), version="12")
    assert registry.next_version() == "13"
    assert [(one.version, one.shipped) for one in registry.versions()] == [
        ("1", True),
        ("2", False),
        ("3", False),
        ("12", False),
    ]
    assert open_registry(tmp_path / "other", shipped=None).next_version() == "1"


def test_version_is_listed_with_what_its_spec_says(registry: Registry) -> None:
    registry.register(directory)
    shipped, found = registry.versions()
    assert (found.algorithm, found.metrics, found.problem) == ("Constant", {"auc": 0.5}, "")
    assert found.sha256 == registry.load("2").spec.sha256
    assert found.created.startswith("20")
    assert (shipped.current, found.current) == (True, False)
    assert shipped.metrics["auc"] > 0.99


def test_version_that_cannot_be_read_does_not_hide_the_others(registry: Registry) -> None:
    registry.register(directory)
    registry.register(directory)
    (registry.folder / "2" / "model_spec.yaml").write_text("{")
    assert [(one.version, bool(one.problem)) for one in registry.versions()] == [
        ("1", False),
        ("2", True),
        ("3", False),
    ]


def test_names_that_are_no_versions_are_left_alone(registry: Registry) -> None:
    registry.register(directory)
    for name in ("notes", "03", "-4", "5.0", "٣", ".writing-9-x", "1" * 12):
        (registry.folder / name).mkdir()
    assert [one.version for one in registry.versions()] == ["1", "2"]


def test_version_is_taken_once(registry: Registry) -> None:
    registry.register(directory)
    before = (registry.folder / "2" / "model.onnx").read_bytes()
    for version in ("2", "1"):
        with pytest.raises(TakenError):
            registry.add(directory(version), version=version)
    assert (registry.folder / "2" / "model.onnx").read_bytes() == before
    assert not list(registry.folder.glob(".writing-*"))


@pytest.mark.parametrize(
    ("content", "version", "expected"),
    [
        ({}, "2", "no file model_spec.yaml"),
        ({"model_spec.yaml": directory("2")["model_spec.yaml"]}, "2", r"no file model\.onnx"),
        (directory("3"), "2", "is of churn 3, not of churn 2"),
        (directory("2", b"no model"), "2", "not an ONNX file|can't load"),
        (directory("2", features=CHURN.features[::-1]), "2", "the order differs"),
        (directory("2") | {"../x": b""}, "2", "no name of a file"),
        (directory("2") | {"/tmp/x": b""}, "2", "no name of a file"),
        (directory("2") | {".hidden": b""}, "2", "no name of a file"),
        (directory("02"), "02", "no version"),
        (directory("2"), "../2", "no version"),
        (directory("2"), "", "no version"),
    ],
)
def test_nothing_is_registered_that_could_not_serve(
    registry: Registry, content: dict[str, bytes], version: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        registry.add(content, version=version)
    assert [one.version for one in registry.versions()] == ["1"]


# Which one serves.


def test_nothing_is_promoted_at_first(registry: Registry) -> None:
    assert (registry.current(), registry.stamp(), registry.alias()) == (None, None, None)
    with pytest.raises(ConfigurationError, match="no version served before"):
        registry.rollback()


def test_promotion_notes_the_file_that_was_promoted(registry: Registry) -> None:
    registry.register(directory)
    before = registry.stamp()
    registry.promote("2")
    alias = registry.alias()
    assert alias is not None
    assert (alias.current.version, alias.current.sha256) == ("2", registry.load("2").spec.sha256)
    assert registry.stamp() != before
    assert json.loads((registry.folder / ALIAS).read_text())["format"] == FORMAT
    assert [one.current for one in registry.versions()] == [False, True]


def test_promoting_again_changes_the_stamp_and_not_the_history(registry: Registry) -> None:
    registry.register(directory)
    registry.promote("2")
    before, alias = registry.stamp(), registry.alias()
    registry.promote("2")
    assert registry.stamp() != before
    again = registry.alias()
    assert again is not None
    assert alias is not None
    assert again.before == alias.before


@given(st.lists(st.sampled_from(["1", "2", "3", "4", "back"]), max_size=12))
@settings(max_examples=40, deadline=None)
def test_rollback_goes_back_through_what_served(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    registry = open_registry(tmp_path_factory.mktemp("registry"))
    for _ in range(3):
        registry.register(directory)
    served = ["1"]
    for step in steps:
        if step == "back":
            if len(served) == 1:
                with pytest.raises(ConfigurationError):
                    registry.rollback()
                continue
            served.pop()
            assert registry.rollback() == served[-1]
        else:
            registry.promote(step)
            served += [step] * (step != served[-1])
        assert (registry.current() or "1") == served[-1]
        assert [one.version for one in registry.versions() if one.current] == [served[-1]]


def test_without_a_shipped_model_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    registry = open_registry(tmp_path, shipped=None)
    assert registry.register(directory) == "1"
    registry.promote("1")
    with pytest.raises(ConfigurationError, match="no version served before"):
        registry.rollback()


def test_history_is_bounded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    registry.register(directory)
    registry.register(directory)
    for _ in range(4):
        registry.promote("2")
        registry.promote("3")
    alias = registry.alias()
    assert alias is not None
    assert [one.version for one in alias.before] == ["2", "3", "2"]


def test_version_that_must_not_serve_is_neither_promoted_nor_gone_back_to(registry: Registry) -> None:
    for _ in range(2):
        registry.register(directory)
    registry.promote("2")
    registry.promote("3")
    before = (registry.folder / ALIAS).read_bytes()
    (registry.folder / "2" / "model.onnx").write_bytes(b"something else")
    for attempt in (lambda: registry.promote("2"), registry.rollback, lambda: registry.promote("9")):
        with pytest.raises(ConfigurationError):
            attempt()
    assert (registry.folder / ALIAS).read_bytes() == before


def test_other_file_than_the_promoted_one_is_refused_even_with_its_own_spec(registry: Registry) -> None:
    registry.register(directory)
    registry.promote("2")
    alias = registry.alias()
    assert alias is not None
    for name, content in directory("2", module_content()).items():
        (registry.folder / "2" / name).write_bytes(content)
    registry.load("2")
    with pytest.raises(ConfigurationError, match="was promoted"):
        registry.open(alias.current)


def module_content() -> bytes:
    return directory("77")["model.onnx"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is broken"),
        (b"[]", "is broken"),
        (b'{"format": 1}', "is broken"),
        (b'{"format": 1, "current": {"version": 2}}', "is broken"),
        (b"\xff", "is broken"),
        (b"[" * 100_000, "is broken"),
        (b'{"format": 2, "current": 5}', "written by a newer version"),
        (b" " * (ALIAS_BYTES + 1), "too many"),
    ],
)
def test_broken_alias_is_named(registry: Registry, content: bytes, expected: str) -> None:
    registry.register(directory)
    (registry.folder / ALIAS).write_bytes(content)
    for attempt in (registry.current, registry.rollback, lambda: registry.promote("2")):
        with pytest.raises(ConfigurationError, match=expected) as raised:
            attempt()
        assert str(registry.folder / ALIAS) in str(raised.value)
        assert raised.value.remedy


# Writers at the same time.


def test_writers_at_the_same_time_get_versions_of_their_own(tmp_path: Path) -> None:
    def write(_: int) -> str:
        return open_registry(tmp_path).register(directory)

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(write, range(24)))
    assert sorted(versions, key=int) == [str(number) for number in range(2, 26)]
    for version in versions:
        assert open_registry(tmp_path).load(version).spec.version == version


def test_promotions_at_the_same_time_are_all_in_the_history(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)
    for _ in range(8):
        registry.register(directory)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: open_registry(tmp_path).promote(str(number)), range(2, 10)))
    alias = registry.alias()
    assert alias is not None
    served = [one.version for one in (*alias.before, alias.current)]
    assert (served[0], sorted(served[1:])) == ("", [str(number) for number in range(2, 10)])


def test_stopped_writer_is_an_outage_and_not_a_wait_without_end(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(directory)
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    with files.locked(registry.folder), pytest.raises(UnavailableError, match="another process"):
        registry.promote("2")
    registry.promote("2")


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(registry: Registry) -> None:
    registry.register(directory)
    old, new = registry.folder / ".writing-3-old", registry.folder / ".writing-3-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"half of it")
    os.utime(old, (0, time.time() - 2 * files.LEFT_AFTER))
    registry.register(directory)
    assert (old.exists(), new.exists()) == (False, True)


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
    from modelstream import files as synced

    return synced


def pathlib_os() -> Any:
    import pathlib

    return pathlib


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_version_is_there_whole_or_not_at_all_wherever_its_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    content = directory("2")
    for at in range(1, 100):
        registry = open_registry(tmp_path / str(at))
        ended = survives(
            lambda: files.write_folder(registry.folder, "2", content),  # noqa: B023
            at,
            after=after,
            patch=monkeypatch,
        )
        there = [one.version for one in registry.versions()]
        assert there in (["1"], ["1", "2"])
        if "2" in there:
            assert {path.name: path.read_bytes() for path in (registry.folder / "2").iterdir()} == content
            registry.load("2")
        assert registry.register(directory) == ("3" if "2" in there else "2")
        if ended:
            assert "2" in there
            assert at > 15, "every step was tried"
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_alias_is_the_old_or_the_new_wherever_its_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    registry = open_registry(tmp_path)
    with files.locked(registry.folder):
        registry._replace(promotion("2"), ())
    for at in range(1, 100):
        wanted = str(2 + at)
        before = registry.current()

        def promote(version: str = wanted) -> None:
            with files.locked(registry.folder):
                alias = registry.alias()
                assert isinstance(alias, Alias)
                registry._replace(promotion(version), (*alias.before, alias.current))

        ended = survives(promote, at, after=after, patch=monkeypatch)
        assert registry.current() in (before, wanted)
        if ended:
            assert registry.current() == wanted
            assert at > 5, "every step was tried"
            return
    raise AssertionError("it never came to its end")
