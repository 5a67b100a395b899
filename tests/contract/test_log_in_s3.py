"""A log in a bucket keeps the contract, with several writers, and whatever the store answers."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from datetime import timedelta
from multiprocessing import get_context
from typing import Any

import obstore
import pyarrow as pa
import pytest
from obstore import exceptions

from modelstream.clients import s3
from modelstream.errors import ConfigurationError, NumberTakenError, UnavailableError
from modelstream.logs import bucket, open_log
from modelstream.logs.bucket import S3Log
from servers.s3 import S3Server
from tests.contract.log_contract import SCHEMA, LogContract, checkpoint, deliver, positions, state, table
from tests.contract.s3_places import environment, new_url, server

__all__ = ["environment", "server"]

PATIENCE = 60.0


def deliver_until_killed(place: str, started: Any) -> None:
    log = S3Log(place, SCHEMA, 0)
    first = max(0, log.checkpoint(0).offset - 3)  # some messages come again
    started.set()
    deliver(log, 0, ((offset, [2 * offset, 2 * offset + 1]) for offset in itertools.count(first)))


class TestLogInS3(LogContract):
    start = "spawn"  # the client's threads don't survive a fork

    @pytest.fixture
    def place(self) -> str:
        return new_url("events")

    def open(self, place: Any, schema: pa.Schema = SCHEMA, epoch: int = 0, definition: str = "") -> S3Log:
        return S3Log(place, schema, epoch, definition)

    def objects(self, place: str) -> list[str]:
        log = S3Log(place, SCHEMA, 0)
        return sorted(
            found["path"]
            for page in obstore.list(log.bucket.store)
            for found in page
            if log.bucket.prefix in found["path"]
        )

    def test_url_of_the_logs_opens_it(self, place: str) -> None:
        log = open_log(place.removesuffix("/events"), "events", SCHEMA, 0)
        log.append(0, table(0, 1), checkpoint(0))
        assert self.open(place).count() == 2
        assert log.place() == place

    def test_nothing_but_whole_files_is_in_the_bucket(self, log: S3Log, place: str) -> None:
        for offset in range(2):
            log.append(3, table(offset, shard=3), checkpoint(offset))
        names = ["00-03-00000000.parquet", "00-03-00000001.parquet", "schema.parquet"]
        assert self.objects(place) == [f"{log.bucket.prefix}/{name}" for name in names]

    def test_any_reader_reads_the_bucket(self, log: S3Log, server: S3Server) -> None:
        import pyarrow.dataset as ds
        from pyarrow import fs

        log.append(1, table(3, shard=1), checkpoint(0))
        log.append(0, table(0, 1, 2), checkpoint(0))
        bucket = fs.S3FileSystem(
            endpoint_override=server.address, scheme="http", access_key="tester", secret_key="secret"
        )
        found = ds.dataset(f"{log.bucket.name}/{log.bucket.prefix}", filesystem=bucket, format="parquet").to_table()
        assert found.equals(pa.Table.from_batches(log.scan()))

    def test_logs_beside_and_within_are_apart(self, log: S3Log, place: str) -> None:
        log.append(0, table(0), checkpoint(0))
        for other in (f"{place}-2", f"{place}/more"):
            assert self.open(other).count() == 0
            self.open(other).append(0, table(7), checkpoint(0))
        assert positions(log) == [0]
        assert log.files() == 1
        log.remove()
        assert f"{log.bucket.prefix}/schema.parquet" not in self.objects(place)
        assert log.count() == log.files() == 0
        assert state(log.checkpoint(0)) == (-1, {}, {})
        assert self.open(f"{place}-2").count() == self.open(f"{place}/more").count() == 1

    def test_footer_longer_than_the_first_read_is_read(self, log: S3Log, monkeypatch: pytest.MonkeyPatch) -> None:
        after = checkpoint(0, {(f"file {number}", bucket): number for number in range(200) for bucket in range(64)})
        log.append(0, table(0), after)
        assert state(log.checkpoint(0)) == state(after)
        monkeypatch.setattr(bucket, "END", 100)
        log.append(0, table(1), checkpoint(1))
        assert state(log.checkpoint(0)) == (1, {}, {})

    def test_killed_at_random_moments_every_row_is_there_once(self, place: str) -> None:
        choice, spawn = random.Random(3), get_context("spawn")
        log = S3Log(place, SCHEMA, 0)
        for _ in range(4):
            flags = [spawn.Event() for _ in range(2)]
            workers = [spawn.Process(target=deliver_until_killed, args=(place, flag), daemon=True) for flag in flags]
            for worker in workers:
                worker.start()
            assert all(flag.wait(PATIENCE) for flag in flags)
            before, deadline = log.count(), time.monotonic() + PATIENCE
            while log.count() < before + 6:
                assert time.monotonic() < deadline
            time.sleep(choice.random() * 0.05)
            for worker in workers:
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
                worker.join()
            deadline = time.monotonic() + PATIENCE
            # A request of one that was killed may be under way.
            while not log.checkpoint(0).offset * 2 + 2 == log.count() == len(found := positions(log)):
                assert time.monotonic() < deadline
            assert found == list(range(len(found)))

    # What the store answers.

    @pytest.mark.parametrize("done", [False, True])
    def test_append_with_unknown_outcome_may_be_repeated(
        self, log: S3Log, monkeypatch: pytest.MonkeyPatch, done: bool
    ) -> None:
        log.append(0, table(0), checkpoint(0, {("f", 0): 0}))
        put = obstore.put

        def failing(*arguments: Any, **options: Any) -> Any:
            if done:
                put(*arguments, **options)
            raise exceptions.GenericError("HTTP error: request or response body error: operation timed out")

        with monkeypatch.context() as patch:
            patch.setattr(obstore, "put", failing)
            with pytest.raises(UnavailableError, match="timed out") as caught:
                log.append(0, table(1), checkpoint(1, {("f", 0): 1}))
        assert caught.value.remedy
        if done:
            with pytest.raises(NumberTakenError):
                log.append(0, table(1), checkpoint(1, {("f", 0): 1}))
        deliver(log, 0, [(1, [1]), (2, [2])])
        assert positions(log) == [0, 1, 2]

    def test_store_that_ignores_the_condition_is_refused(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with S3Server(careless="if-none-match") as careless:
            monkeypatch.setenv("AWS_ENDPOINT_URL", careless.endpoint)
            log = self.open(place)
            for action in (lambda: log.checkpoint(0), lambda: log.append(0, table(0), checkpoint(0))):
                with pytest.raises(ConfigurationError, match="If-None-Match") as caught:
                    action()
                assert "conditional" in caught.value.remedy
            assert positions(log) == []

    def test_store_that_is_away_is_an_outage_that_ends(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3, "RETRY", timedelta(milliseconds=200))
        with S3Server() as store:
            monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
            log = self.open(place)
            log.append(0, table(0), checkpoint(0))
        for action in (lambda: log.checkpoint(0), log.count, lambda: log.append(0, table(1), checkpoint(1))):
            with pytest.raises(UnavailableError, match=place) as caught:
                action()
            assert "AWS_ENDPOINT_URL" in caught.value.remedy
        with store:  # in memory: what it had is gone
            assert state(log.checkpoint(0)) == (-1, {}, {})
            log.append(0, table(0), checkpoint(0))

    def test_bucket_that_is_not_there_is_named(self) -> None:
        log = self.open("s3://no-such-bucket/p/events")
        with pytest.raises(ConfigurationError, match="no-such-bucket") as caught:
            log.checkpoint(0)
        assert "bucket" in caught.value.remedy

    @pytest.mark.parametrize(
        "url", ["s3://", "s3://b/p", "s3://bucket", "s3:///p", "s3://bucket/a b", "s3://bucket/../p"]
    )
    def test_url_that_is_wrong_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            S3Log(url, SCHEMA, 0)
        assert caught.value.remedy

    # Damage.

    def test_missing_number_is_named(self, log: S3Log) -> None:
        for offset in range(3):
            log.append(0, table(offset), checkpoint(offset))
        obstore.delete(log.bucket.store, log.bucket.key("00-00-00000001.parquet"))
        for action in (lambda: log.checkpoint(1), lambda: list(log.scan()), log.count):
            with pytest.raises(ConfigurationError, match=r"00-00-00000001.parquet is missing"):
                action()

    @pytest.mark.parametrize("body", [b"", b"PAR1", b"x" * 1000, b"x" * 100_000 + b"\xff\xff\xff\x7fPAR1"])
    def test_file_that_can_not_be_read_is_named(self, log: S3Log, place: str, body: bytes) -> None:
        log.checkpoint(0)
        obstore.put(log.bucket.store, log.bucket.key("00-00-00000000.parquet"), body)
        for action in (lambda: self.open(place).checkpoint(0), lambda: list(log.scan())):
            with pytest.raises(ConfigurationError, match=r"00-00-00000000.parquet can't be read") as caught:
                action()
            assert caught.value.remedy
