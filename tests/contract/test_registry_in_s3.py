"""A registry in a bucket keeps the contract, with several writers, kills, and whatever the store answers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import obstore
import pytest
from obstore import exceptions

from modelstream.clients import s3
from modelstream.clients.s3 import Bucket
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.model.onnx import load_model
from modelstream.registry import registry as module
from modelstream.registry import watch as model_watch
from modelstream.registry.registry import Registry
from modelstream.registry.store import TakenError
from modelstream.registry.watch import ModelWatch
from servers.s3 import S3Server
from tests.contract.registry_contract import FORKS, RegistryContract, opened
from tests.contract.s3_places import environment, new_url, server
from tests.model_files import CHURN, SHIPPED, directory

__all__ = ["environment", "server"]

CALLS = ("put", "get", "head", "list")
SHIPPED_MODEL = load_model(SHIPPED)


def bucket_of(registry: Registry) -> Bucket:
    return Bucket(registry.place())


def objects(registry: Registry) -> list[str]:
    return sorted(found["path"] for found in bucket_of(registry).objects())


def put(registry: Registry, content: bytes, *names: str) -> None:
    bucket = bucket_of(registry)
    obstore.put(bucket.store, bucket.key(*names), content, use_multipart=False)


# Kills. A process does the writing and ends at once before or after its n-th call to the store.


def killed_at(values: dict[str, str], place: str, action: str, at: int, after: bool) -> None:
    os.environ.update(values)
    registry, left = opened(place), [at]

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **kwargs)
            finally:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in CALLS:
        setattr(obstore, name, counted(getattr(obstore, name)))
    registry.register(directory) if action == "register" else registry.promote(action)


def survives(place: str, action: str, at: int, after: bool) -> bool:
    """Do something in a process that is killed at a call; tell whether it came to its end."""
    child = FORKS.Process(target=killed_at, args=(dict(os.environ), place, action, at, after))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode == 0


class Watched:
    """A watch of a server, and what it said."""

    def __init__(self, place: str) -> None:
        self.said: list[str] = []
        server = Registry(place, CHURN.model_name, CHURN.features)
        self.watch = ModelWatch(server, SHIPPED_MODEL, lambda what, why: self.said.append(what))

    @property
    def version(self) -> str:
        return self.watch.version


class TestRegistryInS3(RegistryContract):
    def new_place(self, folders: pytest.TempPathFactory) -> str:
        return new_url("models")

    def content(self, registry: Registry, *names: str) -> bytes:
        bucket = bucket_of(registry)
        return bytes(obstore.get(bucket.store, bucket.key(*names)).bytes())

    def everything(self, place: str) -> list[str]:
        return objects(self.open(place))

    def overwrite(self, registry: Registry, content: bytes, *names: str) -> None:
        put(registry, content, *names)

    def test_bucket_has_what_a_folder_would_and_the_claim(self, registry: Registry) -> None:
        registry.register(directory)
        registry.promote("2")
        version = sorted(f"2/{name}" for name in [".claim", *directory("2")])
        assert objects(registry) == sorted([".conditions", "current.json", *version])
        assert registry.place_of("2") == registry.place("2") == f"{registry.place()}/2"

    def test_names_that_are_no_versions_are_left_alone(self, registry: Registry) -> None:
        registry.register(directory)
        for name in ("notes", "03", "-4", "5.0", "1" * 12, "2/6", "8.bak"):
            put(registry, directory("2")["model_spec.yaml"], name, "model_spec.yaml")
        put(registry, b"", "9")
        assert [one.version for one in registry.versions()] == ["1", "2"]
        assert registry.next_version() == "3"

    def test_registries_beside_and_within_are_apart(self, registry: Registry, place: str) -> None:
        registry.register(directory)
        for other in (f"{place}-2", f"{place}/more", f"{place}/{registry.name}"):
            assert self.open(other).next_version() == "2"
            self.open(other).register(directory)
        assert [one.version for one in registry.versions()] == ["1", "2"]

    @pytest.mark.parametrize("name", ["", "..", "a/../b", "a b", "a?"])
    def test_model_whose_name_would_lead_elsewhere_is_refused(self, place: str, name: str) -> None:
        with pytest.raises(ConfigurationError, match="not a place in a bucket"):
            Registry(place, name, CHURN.features)

    # Kills and other writers.

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_version_is_there_whole_or_not_at_all_wherever_its_writer_is_killed(self, after: bool) -> None:
        content = directory("2")
        for at in range(1, 100):
            place = new_url("models")
            registry = self.open(place)
            ended = survives(place, "register", at, after)
            there = [one.version for one in registry.versions()]
            assert there in (["1"], ["1", "2"])
            if "2" in there:
                assert {name: self.content(registry, "2", name) for name in content} == content
                registry.load("2")
            else:
                with pytest.raises(ConfigurationError):
                    registry.promote("2")
            begun = any(name.startswith("2/") for name in objects(registry))
            assert registry.register(directory) == ("3" if begun else "2")
            if ended:
                assert "2" in there
                assert at > 8, "every step was tried"
                return
        raise AssertionError("it never came to its end")

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_alias_is_the_old_or_the_new_wherever_its_writer_is_killed(self, registry: Registry, after: bool) -> None:
        place = registry.place().removesuffix(f"/{registry.name}")
        for _ in range(2):
            registry.register(directory)
        for at in range(1, 100):
            before = registry.current()
            wanted = "3" if before == "2" else "2"
            ended = survives(place, wanted, at, after)
            assert registry.current() in (before, wanted)
            if ended:
                assert registry.current() == wanted
                assert at > 8, "every step was tried"
                return
        raise AssertionError("it never came to its end")

    def test_number_that_a_killed_writer_claimed_is_nobodys(self, registry: Registry) -> None:
        put(registry, b"somebody", "2", ".claim")
        put(registry, b"half of it", "2", "model.onnx")
        assert [one.version for one in registry.versions()] == ["1"]
        with pytest.raises(ConfigurationError, match="has no version 2"):
            registry.promote("2")
        with pytest.raises(TakenError):
            registry.add(directory("2"), version="2")
        assert registry.register(directory) == "3"
        assert self.content(registry, "2", "model.onnx") == b"half of it"

    def test_writer_who_finds_a_number_claimed_between_looking_and_claiming_takes_the_next(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Bucket.create

        def late(self: Bucket, content: bytes, *names: str) -> bool:
            if names == ("2", ".claim"):
                real(self, b"another", *names)
            return real(self, content, *names)

        monkeypatch.setattr(Bucket, "create", late)
        assert registry.register(directory) == "3"

    # What the store answers.

    def test_lost_answers_neither_take_two_numbers_nor_go_back_twice(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client repeats a PUT that was answered by an error, and finds its own object in the way."""
        real = obstore.put

        def repeated(*args: Any, **kwargs: Any) -> Any:
            real(*args, **kwargs)
            return real(*args, **kwargs)

        registry.register(directory)  # and the conditions are tried
        monkeypatch.setattr(obstore, "put", repeated)
        assert registry.register(directory) == "3"
        for version in ("2", "3"):
            registry.promote(version)
        assert registry.rollback() == "2"
        assert registry.current() == "2"

    @pytest.mark.parametrize("done", [False, True])
    def test_promotion_with_unknown_outcome_may_be_repeated(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch, done: bool
    ) -> None:
        for _ in range(2):
            registry.register(directory)
        registry.promote("2")
        real = obstore.put

        def failing(*args: Any, **kwargs: Any) -> Any:
            if done:
                real(*args, **kwargs)
            raise exceptions.GenericError("HTTP error: operation timed out")

        with monkeypatch.context() as patch:
            patch.setattr(obstore, "put", failing)
            with pytest.raises(UnavailableError, match="timed out") as caught:
                registry.promote("3")
        assert caught.value.remedy
        assert registry.current() == ("3" if done else "2")
        registry.promote("3")
        assert registry.rollback() == "2"

    @pytest.mark.parametrize(("condition", "header"), [("if-none-match", "If-None-Match"), ("if-match", "If-Match")])
    def test_store_that_ignores_a_condition_is_refused(
        self, place: str, monkeypatch: pytest.MonkeyPatch, condition: str, header: str
    ) -> None:
        with S3Server(careless=condition) as careless:
            monkeypatch.setenv("AWS_ENDPOINT_URL", careless.endpoint)
            registry = self.open(place)
            for action in (lambda: registry.register(directory), lambda: registry.promote("1"), registry.rollback):
                with pytest.raises(ConfigurationError, match=rf"ignores {header}") as caught:
                    action()
                assert "conditional" in caught.value.remedy
            assert objects(registry) == [".conditions"]

    def test_looking_whether_it_can_be_written_tells_what_writing_would(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigurationError, match="no-such-bucket"):
            self.open("s3://no-such-bucket/models").check_writable()

        def forbidden(*_: Any, **__: Any) -> None:
            raise obstore.exceptions.PermissionDeniedError("403 Forbidden")

        registry = self.open(new_url("models"))
        monkeypatch.setattr(obstore, "put", forbidden)
        with pytest.raises(ConfigurationError, match="403 Forbidden"):
            registry.check_writable()

    def test_store_that_is_away_is_an_outage(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3, "RETRY", timedelta(milliseconds=200))
        registry = self.open(place)
        with S3Server() as store:
            monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
            registry.register(directory)
            registry.promote("2")
        actions = (
            *(registry.stamp, registry.alias, registry.versions, registry.next_version, registry.rollback),
            *(lambda: registry.load("2"), lambda: registry.promote("2"), lambda: registry.register(directory)),
        )
        for action in actions:
            with pytest.raises(UnavailableError, match=registry.place()) as caught:
                action()
            assert "MODELSTREAM_REGISTRY" in str(caught.value)
            assert "AWS_ENDPOINT_URL" in caught.value.remedy

    def test_bucket_that_is_not_there_is_named(self) -> None:
        registry = self.open("s3://no-such-bucket/models")
        for action in (registry.alias, registry.versions, lambda: registry.register(directory)):
            with pytest.raises(ConfigurationError, match="no-such-bucket") as caught:
                action()
            assert "bucket" in caught.value.remedy

    @pytest.mark.parametrize("place", ["s3://", "s3://b", "s3:///p", "s3://bucket/a b", "s3://bucket/../p"])
    def test_url_that_is_wrong_is_refused(self, place: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            self.open(place)
        assert caught.value.remedy

    # What is read.

    def test_object_that_is_too_large_is_not_read(self, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        registry.register(directory)
        for name, limit in (("model_spec.yaml", "SPEC_BYTES"), ("model.onnx", "MODEL_BYTES")):
            size = len(directory("2")[name])
            with monkeypatch.context() as patch:
                patch.setattr(module, limit, size)
                registry.load("2")
                patch.setattr(module, limit, size - 1)
                with pytest.raises(ConfigurationError, match=rf"2/{name} has more than {size - 1:,} bytes") as caught:
                    registry.load("2")
                assert caught.value.remedy

    def test_missing_object_is_named(self, registry: Registry) -> None:
        registry.register(directory)
        bucket = bucket_of(registry)
        obstore.delete(bucket.store, bucket.key("2", "model.onnx"))
        with pytest.raises(ConfigurationError, match=r"2/model\.onnx: No such file") as caught:
            registry.load("2")
        assert caught.value.remedy

    # The server that watches.

    def test_running_server_takes_what_is_promoted_and_refuses_what_must_not_serve(
        self, registry: Registry, place: str
    ) -> None:
        watched = Watched(place)
        assert watched.watch.begin() is SHIPPED_MODEL
        assert not watched.watch.look()
        for _ in range(2):
            registry.register(directory)
        registry.promote("2")
        assert watched.watch.look()
        assert (watched.version, watched.said) == ("2", ["serving version 2 from now on"])
        # Changed after it was promoted: what served goes on, and it is said once.
        registry.promote("3")
        good = self.content(registry, "3", "model.onnx")
        self.overwrite(registry, good[:-1] + b"?", "3", "model.onnx")
        assert watched.watch.look()
        assert not watched.watch.look()
        assert watched.watch.refused.startswith("version 3 is refused")
        assert "sha256 is" in watched.watch.refused
        assert (watched.version, len(watched.said)) == ("2", 2)
        restarted = Watched(place).watch
        restarted.begin()
        assert restarted.version == "2"
        self.overwrite(registry, good, "3", "model.onnx")
        assert watched.watch.look()
        assert (watched.version, watched.watch.refused) == ("3", "")

    def test_looking_is_one_request(self, registry: Registry, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        registry.register(directory)
        registry.promote("2")
        watched = Watched(place)
        watched.watch.begin()
        asked: list[str] = []

        def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                asked.append(name)
                return real(*args)

            return call

        for name in CALLS:
            monkeypatch.setattr(obstore, name, noted(name, getattr(obstore, name)))
        assert not watched.watch.look()
        assert asked == ["head"]

    def test_outage_is_said_as_one_and_what_served_goes_on(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3, "RETRY", timedelta(milliseconds=200))
        watched, registry = Watched(place), self.open(place)
        with S3Server() as store:
            monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
            registry.register(directory)
            registry.promote("2")
            watched.watch.begin()
        assert watched.watch.look()
        assert watched.watch.refused.startswith("the promoted version can't be read at the moment: s3://")
        assert "is refused" not in watched.watch.refused
        assert not watched.watch.look()
        assert (watched.version, len(watched.said)) == ("2", 2)
        with pytest.raises(UnavailableError):
            Watched(place).watch.begin()
        with store:  # in memory: what it had is gone
            for _ in range(2):
                registry.register(directory)
            registry.promote("3")
            assert watched.watch.look()
        assert (watched.version, watched.watch.refused) == ("3", "")

    def test_outage_that_ends_leaves_no_trace(
        self, registry: Registry, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry.register(directory)
        registry.promote("2")
        watched = Watched(place)
        watched.watch.begin()

        def away(*_: Any) -> Any:
            raise exceptions.GenericError("Server returned non-2xx status code: 503")

        with monkeypatch.context() as patch:
            patch.setattr(obstore, "head", away)
            assert watched.watch.look()
            assert "503" in watched.watch.refused
        assert watched.watch.look()
        assert (watched.version, watched.watch.refused) == ("2", "")
        assert not watched.watch.look()

    def test_thread_takes_what_is_promoted(
        self, registry: Registry, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_watch, "LOOK_EVERY", 0.02)
        registry.register(directory)
        watched, changed = Watched(place), threading.Event()
        watched.watch.begin()
        watched.watch.start(changed.set)
        registry.promote("2")
        assert changed.wait(20)
        assert watched.version == "2"
