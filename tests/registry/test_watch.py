"""The watch: what is promoted serves soon, what can't serve is said once, and looking costs one stat."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.model.onnx import load_model
from modelstream.registry import folder as files
from modelstream.registry import watch as module
from modelstream.registry.current import ALIAS, Promotion
from modelstream.registry.folder import FolderStore
from modelstream.registry.registry import Registry
from modelstream.registry.store import Stamp
from modelstream.registry.watch import ModelWatch
from tests.model_files import CHURN, SHIPPED, directory, folder_of

SHIPPED_MODEL = load_model(SHIPPED)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path, CHURN.model_name, CHURN.features, shipped=SHIPPED)
    for _ in range(3):
        made.register(directory)
    return made


class Watched:
    """A watch of a server, and what it said."""

    def __init__(self, registry: Registry) -> None:
        self.said: list[str] = []
        server = Registry(folder_of(registry).parent, registry.name, registry.features)
        self.watch = ModelWatch(server, SHIPPED_MODEL, lambda what, why: self.said.append(what))

    @property
    def version(self) -> str:
        return self.watch.version


def test_shipped_model_serves_until_something_is_promoted(registry: Registry) -> None:
    watched = Watched(registry)
    assert watched.watch.begin() is SHIPPED_MODEL
    assert not watched.watch.look()
    registry.promote("3")
    assert watched.watch.look()
    assert (watched.version, watched.said) == ("3", ["serving version 3 from now on"])
    assert not watched.watch.look()
    assert registry.rollback() == "1"
    assert watched.watch.look()
    assert watched.watch.model is SHIPPED_MODEL


def test_registry_that_is_made_later_is_found(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "not" / "yet", CHURN.model_name, CHURN.features, shipped=SHIPPED)
    watched = Watched(registry)
    watched.watch.begin()
    assert not watched.watch.look()
    registry.register(directory)
    registry.promote("2")
    assert watched.watch.look()
    assert watched.version == "2"


def test_server_begins_with_what_is_promoted(registry: Registry) -> None:
    registry.promote("2")
    registry.promote("4")
    watched = Watched(registry)
    watched.watch.begin()
    assert watched.watch.version == "4"
    assert not watched.watch.look()


def test_looking_reads_nothing_while_nothing_changes(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.promote("2")
    watched = Watched(registry)
    watched.watch.begin()
    stats: list[tuple[str, ...]] = []
    stamp = FolderStore.stamp

    def counted(store: FolderStore, *names: str) -> Stamp:
        stats.append(names)
        return stamp(store, *names)

    def forbidden(*_: Any) -> Any:
        raise AssertionError("it read something")

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "stamp", counted)
        patch.setattr(files, "_read", forbidden)
        for _ in range(5):
            assert not watched.watch.look()
    assert stats == [(ALIAS,)] * 5
    # Nor is a refused file read again and again.
    registry.promote("3")
    (folder_of(registry) / "3" / "model.onnx").write_bytes(b"")
    assert watched.watch.look()
    with monkeypatch.context() as patch:
        patch.setattr(files, "_read", forbidden)
        for _ in range(5):
            assert not watched.watch.look()
    assert "sha256 is" in watched.watch.refused


def test_looks_are_a_second_apart() -> None:
    """At most one stat a second, and a promotion serves well within five."""
    assert module.LOOK_EVERY == 1.0


def test_server_begins_with_the_last_version_that_may_serve(registry: Registry) -> None:
    for version in ("2", "3", "4"):
        registry.promote(version)
    for version in ("3", "4"):
        (folder_of(registry) / version / "model.onnx").write_bytes(b"")
    watched = Watched(registry)
    watched.watch.begin()
    assert watched.watch.version == "2"
    assert watched.watch.refused.startswith("version 4 is refused")
    assert not watched.watch.look()
    for name, content in directory("4").items():
        (folder_of(registry) / "4" / name).write_bytes(content)
    assert watched.watch.look(), "its file has changed"
    assert (watched.version, watched.watch.refused) == ("4", "")


def test_version_that_is_not_there_yet_serves_once_it_is(registry: Registry) -> None:
    """Storage that several machines share may show the alias before the version."""
    watched = Watched(registry)
    watched.watch.begin()
    registry.promote("3")
    (folder_of(registry) / "3").rename(folder_of(registry) / "away")
    assert watched.watch.look()
    assert watched.watch.refused
    assert not watched.watch.look()
    (folder_of(registry) / "away").rename(folder_of(registry) / "3")
    assert watched.watch.look()
    assert (watched.version, watched.watch.refused) == ("3", "")


@pytest.mark.parametrize("what", ["alias", "open"])
def test_outage_of_the_storage_is_said_once_and_tried_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    watched = Watched(registry)
    watched.watch.begin()
    registry.promote("3")
    with monkeypatch.context() as patch:

        def away(*_: Any) -> Any:
            raise UnavailableError("Input/output error")

        patch.setattr(Registry, what, away)
        assert watched.watch.look()
        assert not watched.watch.look()
        assert watched.said == [watched.watch.refused]
    assert watched.watch.look()
    assert (watched.version, watched.watch.refused) == ("3", "")


def test_alias_that_is_gone_changes_nothing(registry: Registry) -> None:
    registry.promote("3")
    watched = Watched(registry)
    watched.watch.begin()
    (folder_of(registry) / ALIAS).unlink()
    assert watched.watch.look()
    assert not watched.watch.look()
    assert watched.version == "3"
    assert "is gone" in watched.watch.refused


def test_registry_that_cannot_say_what_serves_ends_the_start(registry: Registry) -> None:
    (folder_of(registry) / ALIAS).write_bytes(b"{")
    with pytest.raises(ConfigurationError, match="is broken"):
        Watched(registry).watch.begin()


def test_whatever_a_file_makes_a_library_raise_is_a_refusal(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(registry)
    watched.watch.begin()
    registry.promote("3")

    def surprise(_: Registry, promotion: Promotion) -> Any:
        raise MemoryError("a model of 2**40 weights")

    monkeypatch.setattr(Registry, "open", surprise)
    assert watched.watch.look()
    assert (watched.version, watched.watch.refused) == (
        "1",
        "version 3 is refused: MemoryError: a model of 2**40 weights",
    )


def test_thread_tells_of_changes(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    watched = Watched(registry)
    watched.watch.begin()
    changed = threading.Event()
    watched.watch.start(changed.set)
    registry.promote("2")
    assert changed.wait(10)
    assert watched.version == "2"


# Without a model that comes with the project.


class Unshipped(Watched):
    """A watch of a server that begins without a model."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.watch = ModelWatch(registry, None, lambda what, why: self.said.append(what))


@pytest.fixture
def bare(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", CHURN.model_name, CHURN.features)


def test_nothing_serves_until_the_first_version_is_promoted(bare: Registry) -> None:
    watched = Unshipped(bare)
    assert watched.watch.begin() is None
    assert not watched.watch.look()
    bare.register(directory)
    assert not watched.watch.look(), "registered is not promoted"
    bare.promote("1")
    assert watched.watch.look()
    assert (watched.version, watched.said) == ("1", ["serving version 1 from now on"])


def test_first_version_that_is_refused_changes_nothing_and_the_next_one_serves(bare: Registry) -> None:
    for _ in range(2):
        bare.register(directory)
    watched = Unshipped(bare)
    watched.watch.begin()
    bare.promote("1")
    (folder_of(bare) / "1" / "model.onnx").write_bytes(b"damaged")
    assert watched.watch.look()
    assert watched.version == ""
    assert "version 1 is refused" in watched.watch.refused
    bare.promote("2")
    watched.watch.look()
    assert (watched.version, watched.watch.refused) == ("2", "")


def test_server_whose_promoted_versions_are_all_damaged_does_not_begin_without_answers(bare: Registry) -> None:
    for version in ("1", "2"):
        bare.register(directory)
        bare.promote(version)
        (folder_of(bare) / version / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match=r"version 2 is refused: .*sha256") as told:
        Unshipped(bare).watch.begin()
    assert told.value.remedy
    (folder_of(bare) / "1" / "model.onnx").write_bytes(directory("1")["model.onnx"])
    watched = Unshipped(bare)
    watched.watch.begin()
    assert watched.version == "1", "the one before it may"


def test_server_goes_on_when_what_it_goes_back_to_is_no_longer_there(registry: Registry) -> None:
    registry.promote("2")
    watched = Unshipped(bare_of(registry))
    watched.watch.begin()
    assert registry.rollback() == "1", "the one of the project, as another checkout knows it"
    assert watched.watch.look()
    assert watched.version == "2"
    assert "no model of churn comes with the project" in watched.watch.refused
    restarted = Unshipped(bare_of(registry))
    assert restarted.watch.begin() is None


def bare_of(registry: Registry) -> Registry:
    return Registry(folder_of(registry).parent, registry.name, registry.features)
