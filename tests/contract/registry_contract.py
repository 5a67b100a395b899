"""What the registry promises, wherever it lies. A test class inherits this and gives places."""

from __future__ import annotations

import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.registry import registry as module
from modelstream.registry.current import ALIAS, ALIAS_BYTES, FORMAT, Promotion
from modelstream.registry.registry import Registry
from modelstream.registry.store import TakenError
from tests.model_files import CHURN, SHIPPED, directory

PATIENCE = 60.0
FORKS = get_context("forkserver")
"""For processes that write: a bucket's client has threads, which a fork of this process would not have."""
FORKS.set_forkserver_preload(["tests.contract.registry_contract", "modelstream.model.onnx", "obstore.store"])


def promotion(version: str) -> Promotion:
    """Return what a registry notes of a version, without having loaded it."""
    return Promotion(version, f"hash of {version}")


def opened(place: str, shipped: Path | None = SHIPPED) -> Registry:
    return Registry(place, CHURN.model_name, CHURN.features, shipped=shipped)


def register_until_killed(environment: dict[str, str], place: str, done: Connection) -> None:
    os.environ.update(environment)
    registry = opened(place)
    while True:
        done.send(registry.register(directory))


def promote_until_killed(environment: dict[str, str], place: str, versions: list[str], done: Connection) -> None:
    os.environ.update(environment)
    for version in versions:
        opened(place).promote(version)
        done.send(version)


class Writer:
    """A process that tells what it has done, until it is killed."""

    def __init__(self, target: Any, *arguments: Any) -> None:
        self._told, told = FORKS.Pipe(duplex=False)
        arguments = (dict(os.environ), *arguments, told)
        self._process = FORKS.Process(target=target, args=arguments, daemon=True)
        self._process.start()
        told.close()
        self.done: list[str] = []

    def wait_for(self, count: int) -> None:
        while len(self.done) < count:
            assert self._told.poll(PATIENCE)
            self.done.append(self._told.recv())

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        try:
            while True:
                self.done.append(self._told.recv())
        except EOFError:
            pass


class RegistryContract:
    """Inherit it, and give places, and ways to damage what is there."""

    def new_place(self, folders: pytest.TempPathFactory) -> str:
        """Return a place where nothing is yet."""
        raise NotImplementedError

    def content(self, registry: Registry, *names: str) -> bytes:
        """Return the content of a file."""
        raise NotImplementedError

    def everything(self, place: str) -> list[str]:
        """Return the names of all that is at a place."""
        raise NotImplementedError

    def overwrite(self, registry: Registry, content: bytes, *names: str) -> None:
        """Give a file another content."""
        raise NotImplementedError

    def open(self, place: str, shipped: Path | None = SHIPPED) -> Registry:
        return opened(place, shipped)

    @pytest.fixture
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        return self.new_place(tmp_path_factory)

    @pytest.fixture
    def registry(self, place: str) -> Registry:
        return self.open(place)

    # Versions.

    def test_looking_whether_it_can_be_written_leaves_nothing_behind(self, registry: Registry, place: str) -> None:
        registry.check_writable()
        assert self.everything(place) == []
        registry.register(directory)
        before = self.everything(place)
        registry.check_writable()
        assert self.everything(place) == before

    def test_versions_count_on_from_the_shipped_one(self, registry: Registry, place: str) -> None:
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
        assert self.open(f"{place}-2", shipped=None).next_version() == "1"

    def test_version_is_listed_with_what_its_spec_says(self, registry: Registry) -> None:
        registry.register(directory)
        shipped, found = registry.versions()
        assert (found.algorithm, found.metrics, found.problem) == ("Constant", {"auc": 0.5}, "")
        assert found.sha256 == registry.load("2").spec.sha256
        assert found.created.startswith("20")
        assert (shipped.current, found.current) == (True, False)
        assert shipped.metrics["auc"] > 0.99

    def test_version_that_cannot_be_read_does_not_hide_the_others(self, registry: Registry) -> None:
        registry.register(directory)
        registry.register(directory)
        self.overwrite(registry, b"{", "2", "model_spec.yaml")
        assert [(one.version, bool(one.problem)) for one in registry.versions()] == [
            ("1", False),
            ("2", True),
            ("3", False),
        ]

    def test_version_is_taken_once(self, registry: Registry) -> None:
        registry.register(directory)
        before = self.content(registry, "2", "model.onnx")
        for version in ("2", "1"):
            with pytest.raises(TakenError):
                registry.add(directory(version), version=version)
        assert self.content(registry, "2", "model.onnx") == before

    @pytest.mark.parametrize(
        ("content", "version", "expected"),
        [
            ({}, "2", "no file model_spec.yaml"),
            ({"model_spec.yaml": directory("2")["model_spec.yaml"]}, "2", r"no file model\.onnx"),
            (directory("3"), "2", "describes churn 3, not churn 2"),
            (directory("2", b"no model"), "2", "not an ONNX file|can't load"),
            (directory("2", features=CHURN.features[::-1]), "2", "the order differs"),
            (directory("2") | {"../x": b""}, "2", "not the name of a file"),
            (directory("2") | {"/tmp/x": b""}, "2", "not the name of a file"),
            (directory("2") | {".hidden": b""}, "2", "not the name of a file"),
            (directory("02"), "02", "not a version"),
            (directory("2"), "../2", "not a version"),
            (directory("2"), "", "not a version"),
        ],
    )
    def test_nothing_is_registered_that_could_not_serve(
        self, registry: Registry, content: dict[str, bytes], version: str, expected: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=expected):
            registry.add(content, version=version)
        assert [one.version for one in registry.versions()] == ["1"]

    # Which one serves.

    def test_nothing_is_promoted_at_first(self, registry: Registry) -> None:
        assert (registry.current(), registry.stamp(), registry.alias()) == (None, None, None)
        with pytest.raises(ConfigurationError, match="no version served before"):
            registry.rollback()

    def test_promotion_notes_the_file_that_was_promoted(self, registry: Registry) -> None:
        registry.register(directory)
        before = registry.stamp()
        registry.promote("2")
        alias = registry.alias()
        assert alias is not None
        assert (alias.current.version, alias.current.sha256) == ("2", registry.load("2").spec.sha256)
        assert registry.stamp() != before
        assert json.loads(self.content(registry, ALIAS))["format"] == FORMAT
        assert [one.current for one in registry.versions()] == [False, True]

    def test_promoting_again_changes_the_stamp_and_not_the_history(self, registry: Registry) -> None:
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
    # The same test for two places, which is what a contract is.
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def test_rollback_goes_back_through_what_served(
        self, tmp_path_factory: pytest.TempPathFactory, steps: list[str]
    ) -> None:
        registry = self.open(self.new_place(tmp_path_factory))
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

    def test_without_a_shipped_model_there_is_nothing_to_go_back_to(self, place: str) -> None:
        registry = self.open(place, shipped=None)
        assert registry.register(directory) == "1"
        registry.promote("1")
        with pytest.raises(ConfigurationError, match="no version served before"):
            registry.rollback()

    def test_history_is_bounded(self, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "KEPT", 3)
        registry.register(directory)
        registry.register(directory)
        for _ in range(4):
            registry.promote("2")
            registry.promote("3")
        alias = registry.alias()
        assert alias is not None
        assert [one.version for one in alias.before] == ["2", "3", "2"]

    def test_version_that_must_not_serve_is_neither_promoted_nor_gone_back_to(self, registry: Registry) -> None:
        for _ in range(2):
            registry.register(directory)
        registry.promote("2")
        registry.promote("3")
        before = self.content(registry, ALIAS)
        self.overwrite(registry, b"something else", "2", "model.onnx")
        for attempt in (lambda: registry.promote("2"), registry.rollback, lambda: registry.promote("9")):
            with pytest.raises(ConfigurationError):
                attempt()
        assert self.content(registry, ALIAS) == before

    def test_other_file_than_the_promoted_one_is_refused_even_with_its_own_spec(self, registry: Registry) -> None:
        registry.register(directory)
        registry.promote("2")
        alias = registry.alias()
        assert alias is not None
        for name, content in directory("2", directory("77")["model.onnx"]).items():
            self.overwrite(registry, content, "2", name)
        registry.load("2")
        with pytest.raises(ConfigurationError, match="was promoted"):
            registry.open(alias.current)

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
            (b" " * (ALIAS_BYTES + 1), "too large"),
        ],
    )
    def test_broken_alias_is_named(self, registry: Registry, content: bytes, expected: str) -> None:
        registry.register(directory)
        self.overwrite(registry, content, ALIAS)
        for attempt in (registry.current, registry.rollback, lambda: registry.promote("2")):
            with pytest.raises(ConfigurationError, match=expected) as raised:
                attempt()
            assert registry.place(ALIAS) in str(raised.value)
            assert raised.value.remedy

    # Writers at the same time.

    def test_writers_at_the_same_time_get_versions_of_their_own(self, place: str) -> None:
        def write(_: int) -> str:
            return self.open(place).register(directory)

        with ThreadPoolExecutor(8) as pool:
            versions = list(pool.map(write, range(24)))
        assert sorted(versions, key=int) == [str(number) for number in range(2, 26)]
        for version in versions:
            assert self.open(place).load(version).spec.version == version

    def test_promotions_at_the_same_time_are_all_in_the_history(self, place: str) -> None:
        registry = self.open(place)
        for _ in range(8):
            registry.register(directory)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: self.open(place).promote(str(number)), range(2, 10)))
        alias = registry.alias()
        assert alias is not None
        served = [one.version for one in (*alias.before, alias.current)]
        assert (served[0], sorted(served[1:])) == ("", [str(number) for number in range(2, 10)])

    def test_processes_killed_at_random_moments_lose_and_break_nothing(self, place: str) -> None:
        choice, registry = random.Random(7), self.open(place)
        mine = {"2", *(registry.register(directory) for _ in range(16))}
        lists = [sorted(mine, key=int)[part::2] for part in range(2)]
        registered = set(mine)
        promoted: list[list[str]] = [[], []]
        for _ in range(3):
            registrars = [Writer(register_until_killed, place) for _ in range(2)]
            lefts = [
                [version for version in part if version not in done] for part, done in zip(lists, promoted, strict=True)
            ]
            promoters = [Writer(promote_until_killed, place, left) for left in lefts]
            for writer in (*registrars, *(one for one, left in zip(promoters, lefts, strict=True) if left)):
                writer.wait_for(1)
            time.sleep(choice.random() * 0.05)
            for writer in (*registrars, *promoters):
                writer.kill()
            for writer in registrars:
                assert not registered & set(writer.done), "a number was given twice"
                registered |= set(writer.done)
            # One that was killed may have been through without having said so: it is promoted again.
            for done, writer in zip(promoted, promoters, strict=True):
                done += writer.done
            found = registry.versions()
            assert registered <= {one.version for one in found}
            for one in found[1:]:
                assert not one.problem
                content = directory(one.version)
                assert {name: self.content(registry, one.version, name) for name in content} == content
            alias = registry.alias()
            assert alias is not None
            registry.open(alias.current)
            history = [one.version for one in (*alias.before, alias.current)]
            for done in promoted:
                at = [history.index(version) for version in done]
                assert at == sorted(at), "a promotion was lost, or came before its time"
        assert registry.register(directory) not in registered
