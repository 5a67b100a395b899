"""Streams of V3IO keep the contract, against the stand-in (servers/v3io), also when it fails or is killed."""

from __future__ import annotations

import random
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from modelstream.clients.v3io import Container, V3ioAddress
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.streams import Streams, open_streams, v3io_records
from modelstream.streams.v3io import IDLE_ASKS, IDLE_SECONDS
from servers.v3io.process import V3ioServer
from tests.contract.streams_contract import SHARDS, StreamsContract, read_all
from tests.contract.v3io_places import new_url, no_faults, server

__all__ = ["no_faults", "server"]


@pytest.mark.usefixtures("server")
class TestV3ioStreams(StreamsContract):
    @pytest.fixture
    def url(self) -> str:
        return self.url_in("")

    def url_in(self, folder: str) -> str:
        return new_url("streams")

    @pytest.fixture(autouse=True)
    def running(self, server: V3ioServer) -> None:
        self.server = server

    def test_records_that_fail_are_sent_again_before_what_follows_them(self, streams: Streams) -> None:
        self.server.fail(refuse_records=0.3)
        records = [(number % SHARDS, b"%d" % number) for number in range(300)]
        for start in range(0, 300, 50):
            streams.append("events", records[start : start + 50])
        assert self.server.seen().refused_records > 50
        for shard in range(SHARDS):
            assert [int(m.body) for m in read_all(streams, shard)] == list(range(shard, 300, SHARDS))

    def test_records_that_go_on_failing_are_an_outage_without_gaps(self, streams: Streams, quick: None) -> None:
        records = [(number % SHARDS, b"%d" % number) for number in range(60)]
        for seed in range(20):
            self.server.fail(refuse_records=0.6, seed=seed)
            with pytest.raises(UnavailableError, match="does not take records"):
                streams.append("events", records)
        self.server.fail()
        streams.append("events", records)
        for shard in range(SHARDS):
            seen = -1
            for message in read_all(streams, shard):
                assert int(message.body) <= max(seen + SHARDS, shard), "a record overtook one that failed"
                seen = max(seen, int(message.body))
            assert seen >= 60 - SHARDS

    def test_records_of_different_shards_share_a_request(self, streams: Streams) -> None:
        self.server.fail()
        streams.append("events", [(shard, b"x") for shard in range(SHARDS)])
        assert self.server.seen().calls == {"PutRecords": 1}

    def test_large_records_are_spread_over_requests(self, url: str) -> None:
        with open_streams(url) as streams:
            streams.create("large", 20)
            sizes = (1 << 20, 500_000, 7_000)
            for number, size in enumerate(sizes, 1):
                assert streams.append("large", [(shard, bytes(size)) for shard in range(20)]) == [number] * 20
            assert [len(m.body) for m in streams.read("large", 19, 1, 5, 1 << 22)] == list(sizes)

    def test_record_that_is_too_large_is_named_before_anything_is_sent(self, streams: Streams) -> None:
        with pytest.raises(ConfigurationError, match="1048577 bytes") as caught:
            streams.append("events", [(0, b"a"), (1, bytes((1 << 20) + 1))])
        assert caught.value.remedy
        assert read_all(streams, 0) == []

    def test_lost_answers_repeat_records_in_order(self, streams: Streams) -> None:
        self.server.fail(drop_answers=0.15)
        outages = 0
        for number in range(200):
            while True:
                try:
                    streams.append("events", [(0, b"%d" % number)])
                    break
                except UnavailableError as error:
                    assert error.remedy
                    outages += 1
        self.server.fail()
        assert outages, "the client hid every lost answer"
        first_seen = list(dict.fromkeys(int(m.body) for m in read_all(streams, 0)))
        assert first_seen == list(range(200))

    def test_overload_is_an_outage_that_ends(self, streams: Streams) -> None:
        self.server.fail(unavailable=1.0)
        for action in (
            lambda: streams.append("events", [(0, b"a")]),
            lambda: streams.read("events", 0, 1, 1, 1),
            lambda: streams.range("events", 0),
            lambda: streams.version("events"),
            lambda: streams.ack("group", "events", {0: 1}),
            lambda: streams.create("events", SHARDS),
            lambda: streams.names(),
        ):
            with pytest.raises(UnavailableError, match="503"):
                action()
        self.server.fail()
        assert streams.append("events", [(0, b"a")]) == [1]

    def test_restart_of_the_server_is_an_outage_that_ends(self, streams: Streams, url: str) -> None:
        streams.append("events", [(0, b"before")])
        streams.ack("group", "events", {0: 1})
        self.server.kill()
        with pytest.raises(UnavailableError, match="V3IO at http"):
            streams.append("events", [(0, b"meanwhile")])
        self.server.start()
        assert streams.append("events", [(0, b"after")]) == [2]
        assert [m.body for m in read_all(streams, 0)] == [b"before", b"after"]
        assert streams.acked("group", "events")[0] == 1

    def test_messages_beyond_retention_are_gone_and_reading_goes_on_after_them(self, url: str) -> None:
        with open_streams(f"{url}?retention_hours=2") as streams, open_streams(url) as others:
            streams.create("events", 1)
            streams.append("events", [(0, b"%d" % number) for number in range(5)])
            assert [m.offset for m in streams.read("events", 0, 1, 2, 1 << 20)] == [1, 2]
            self.server.fail(clock_ahead_seconds=3 * 3600)
            streams.append("events", [(0, b"young")])
            assert others.range("events", 0) == (6, 7)
            for reader in (streams, others):
                assert [(m.offset, m.body) for m in reader.read("events", 0, 3, 9, 1 << 20)][-1] == (6, b"young")

    def test_stream_made_by_others_is_taken_over(self, url: str) -> None:
        """MLRun makes the streams of triggers itself."""
        container = Container(V3ioAddress.of(url))
        container.call("stream", "create", stream_path=container.path("events"), shard_count=4)
        with open_streams(url) as streams:
            assert streams.names() == ["events"]
            assert streams.describe("events").shards == 4
            assert streams.create("events", 4, epoch=3).epoch == 3
        container.close()

    def test_what_nuclio_committed_counts_as_acknowledged(self, streams: Streams, url: str) -> None:
        streams.append("events", [(0, b"a"), (0, b"b")])
        container = Container(V3ioAddress.of(url))
        container.call(
            "kv",
            "update",
            table_path=container.path("events"),
            key="0",
            attributes={"__event_handler_committed_sequence_number": 2},
            condition="__obj_type == 3",
        )
        assert streams.acked("event-handler", "events") == {0: 2, 1: 0, 2: 0}
        assert streams.acked("inference-logger", "events") == {0: 0, 1: 0, 2: 0}
        container.close()

    def test_reader_that_waits_asks_less_often_and_still_sees_what_comes(self, streams: Streams, url: str) -> None:
        for _ in range(IDLE_ASKS + 2):
            streams.version("events")
        self.server.fail()
        asked = 0
        deadline = time.monotonic() + 10 * IDLE_SECONDS
        while time.monotonic() < deadline:
            streams.version("events")
            asked += 1
        assert self.server.seen().calls["GetItem"] <= 11 * SHARDS < asked
        with open_streams(url) as others:
            before = streams.version("events")
            others.append("events", [(0, b"theirs")])
        deadline = time.monotonic() + 30
        while streams.version("events") == before:
            assert time.monotonic() < deadline
        for _ in range(IDLE_ASKS + 2):
            before = streams.version("events")
        streams.append("events", [(0, b"ours")])
        assert streams.version("events") != before

    def test_killed_writer_leaves_all_it_confirmed(self, streams: Streams, url: str) -> None:
        choice = random.Random(1)
        last = 0
        for _ in range(8):
            parent, child = get_context("fork").Pipe(duplex=False)
            writer = get_context("fork").Process(target=append_until_killed, args=(url, child))
            writer.start()
            child.close()
            assert parent.poll(30)
            time.sleep(choice.random() * 0.05)
            writer.kill()
            writer.join()
            while True:
                try:
                    last = parent.recv()
                except EOFError:
                    break
            for shard in (0, 1):
                assert streams.range("events", shard)[1] - 1 in (last, last + 1)
        assert last > 20
        for shard in (0, 1):
            assert [m.body for m in read_all(streams, shard)] == [
                b"%d" % m.offset + b"x" * (m.offset % 7 * 20_000) for m in read_all(streams, shard)
            ]

    @pytest.fixture
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(v3io_records, "PAUSES", (0.0, 0.0))


@pytest.mark.usefixtures("server")
class TestAddress:
    @pytest.mark.parametrize(
        "url",
        ["v3io://", "v3io://bigdata", "v3io://bigdata/", "v3io://bigdata/a b", "v3io://bigdata/../x", "v3io:///a/b"]
        + [f"v3io://bigdata/x?{option}" for option in ("connections=0", "connections=x", "speed=1", "retention_hours")],
    )
    def test_url_that_can_not_be_read_is_named(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="URL") as caught:
            open_streams(url)
        assert "v3io://container/path" in caught.value.remedy

    @pytest.mark.parametrize("variable", ["V3IO_API", "V3IO_ACCESS_KEY"])
    def test_missing_environment_is_named(self, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(variable)
        with open_streams(new_url("streams")) as streams, pytest.raises(ConfigurationError, match=variable) as caught:
            streams.names()
        assert "set it to" in caught.value.remedy

    def test_address_that_nobody_answers_is_an_outage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("V3IO_API", "http://127.0.0.1:9")
        with open_streams(new_url("streams")) as streams, pytest.raises(UnavailableError, match="refused") as caught:
            streams.names()
        assert "V3IO_API" in caught.value.remedy

    @pytest.mark.parametrize("api", ["http://127.0.0.1:x", "http://a b"])
    def test_address_that_is_none_is_named(self, api: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("V3IO_API", api)
        with open_streams(new_url("streams")) as streams, pytest.raises(ConfigurationError, match="V3IO_API"):
            streams.names()

    def test_container_that_is_not_there_is_named(self) -> None:
        with open_streams("v3io://elsewhere/x") as streams:
            for action in (lambda: streams.create("events", 1), lambda: streams.names()):
                with pytest.raises(ConfigurationError, match="ontainer not found") as caught:
                    action()
                assert "URL" in caught.value.remedy

    def test_wrong_access_key_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with V3ioServer(access_key="secret") as guarded:
            monkeypatch.setenv("V3IO_API", guarded.endpoint)
            with open_streams(new_url("streams")) as streams, pytest.raises(ConfigurationError, match="403") as caught:
                streams.create("events", 1)
        assert "V3IO_ACCESS_KEY" in caught.value.remedy


def append_until_killed(url: str, confirmed: Any) -> None:
    with open_streams(url) as streams:
        number = max(streams.range("events", shard)[1] for shard in (0, 1))
        if streams.range("events", 0) != streams.range("events", 1):  # the kill came between two requests
            short = 0 if streams.range("events", 0)[1] < number else 1
            streams.append("events", [(short, b"%d" % (number - 1) + b"x" * ((number - 1) % 7 * 20_000))])
        while True:
            body = b"%d" % number + b"x" * (number % 7 * 20_000)
            assert streams.append("events", [(0, body), (1, body)]) == [number, number]
            confirmed.send(number)
            number += 1
