"""Streams in Kafka keep the contract on a real broker, whatever becomes of the broker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from multiprocessing import get_context
from typing import Any
from urllib.parse import quote

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.streams import Streams, kafka_reader, open_streams
from modelstream.streams.kafka import KafkaStreams
from modelstream.streams.kafka_address import KafkaAddress, variable_of
from modelstream.streams.kafka_client import MAX_MESSAGE, Clients
from servers.base import free_port
from servers.kafka import PASSWORD, USER, KafkaServer
from tests.contract.streams_contract import FOREVER, MEGABYTE, SHARDS, StreamsContract, read_all


def append_until_killed(url: str, confirmed: Any) -> None:
    with open_streams(url) as streams:
        for number in range(1_000_000):
            streams.append("events", [(0, b"%d" % number), (1, b"%d" % number), (0, b"%d+" % number)])
            confirmed.send(number)


def without_repeats(bodies: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(bodies))


class TestKafkaStreams(StreamsContract):
    @pytest.fixture(autouse=True)
    def running(self, broker: KafkaServer) -> Iterator[None]:
        self.broker = broker
        yield
        if broker.process is None:
            broker.start()

    @pytest.fixture
    def url(self) -> str:
        return self.url_in("")

    def url_in(self, folder: str) -> str:
        return self.broker.url(f"test-{uuid.uuid4().hex}?timeout=15")

    @pytest.fixture
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.broker.address})

    # Topics.

    def test_topic_keeps_its_messages_and_takes_large_ones(self, streams: Streams, admin: AdminClient) -> None:
        assert isinstance(streams, KafkaStreams)
        resource = ConfigResource(ConfigResource.Type.TOPIC, streams.address.topic("events", 0))
        (future,) = admin.describe_configs([resource]).values()
        found = {name: entry.value for name, entry in future.result(10).items()}
        assert found["retention.ms"] == "-1"
        assert found["message.timestamp.type"] == "LogAppendTime"
        assert found["max.message.bytes"] == str(MAX_MESSAGE)

    def test_topic_with_other_partitions_is_refused_and_kept(self, url: str, admin: AdminClient) -> None:
        name = f"{KafkaAddress.of(url).prefix}.events"
        admin.create_topics([NewTopic(name, 5, 1)])[name].result(10)
        with (
            open_streams(url) as streams,
            pytest.raises(ConfigurationError, match="has 5 shards and epoch 0") as caught,
        ):
            streams.create("events", SHARDS)
        assert caught.value.remedy
        assert len(admin.list_topics(timeout=10).topics[name].partitions) == 5

    def test_epoch_is_part_of_the_topic_and_the_highest_holds(self, url: str) -> None:
        with open_streams(url) as streams:
            streams.create("events", SHARDS, epoch=2)
        with closing(KafkaStreams(url)) as streams:
            assert streams.describe("events").epoch == 2
            assert streams.address.topic("events", 2).endswith(".events.epoch-2")
            streams.append("events", [(0, b"second")])
            streams._admin.make(streams.address.topic("events", 0), SHARDS)
        with open_streams(url) as streams:
            assert streams.names() == ["events"]
            assert [m.body for m in read_all(streams, 0)] == [b"second"]

    def test_prefixes_and_their_groups_are_apart(self, streams: Streams, url: str) -> None:
        prefix = KafkaAddress.of(url).prefix
        with open_streams(url.replace(prefix, f"{prefix}.more")) as others:
            others.create("events", 1)
            streams.ack("handler", "events", {0: 7})
            assert others.acked("handler", "events") == {0: -1}
            assert streams.names() == others.names() == ["events"]
            streams.remove("events")
            assert others.names() == ["events"]

    def test_naming_a_stream_that_is_not_there_makes_none(self, streams: Streams, url: str) -> None:
        with pytest.raises(ConfigurationError):
            streams.read("evnets", 0, 0, 1, 1)
        with open_streams(url) as others:
            assert others.names() == ["events"]

    # Sending.

    def test_first_record_of_a_shard_goes_alone_and_the_others_together(self, streams: Streams) -> None:
        assert isinstance(streams, KafkaStreams)
        under_way: Counter[int] = Counter()
        seen: list[tuple[int, int]] = []
        real = streams._clients.producer

        class Watched:
            def produce(self, topic: str, body: bytes, partition: int, on_delivery: Any) -> None:
                under_way[partition] += 1
                seen.append((partition, under_way[partition]))

                def delivered(error: Any, message: Any) -> None:
                    under_way[partition] -= 1
                    on_delivery(error, message)

                real.produce(topic, body, partition=partition, on_delivery=delivered)

            def poll(self, seconds: float) -> int:
                return real.poll(seconds)

        streams._clients._producer = Watched()  # type: ignore[assignment]
        streams.append("events", [(number % 2, b"%d" % number) for number in range(6)])
        assert seen == [(0, 1), (1, 1), (0, 1), (1, 1), (0, 2), (1, 2)]
        seen.clear()
        streams.append("events", [(number % 3, b"%d" % number) for number in range(6, 12)])
        assert seen == [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 1)]
        assert [int(m.body) for m in read_all(streams, 1)] == [1, 3, 5, 7, 10]

    def test_expected_append_has_its_producer_before_it_is_called(self, streams: Streams, url: str) -> None:
        assert isinstance(streams, KafkaStreams)
        with closing(KafkaStreams(url)) as other:
            producers = [other._clients._producer]
            other.expect_appends()
            producers.append(other._clients._producer)
            other.append("events", [(0, b"a")])
            producers.append(other._clients._producer)
            assert producers == [None, producers[1], producers[1]]
            assert producers[1] is not None
        with open_streams("kafka://h:1/churn?security.protocol=NONE") as wrong:
            wrong.expect_appends()  # that the address is wrong is for the append to say

    @pytest.fixture
    def records_by_themselves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let each record be a request of its own, as those that don't fit together are."""
        made = Clients._made

        def single(clients: Clients, kind: Any, properties: dict[str, Any]) -> Any:
            return made(clients, kind, properties | ({"batch.num.messages": 1} if kind is Producer else {}))

        monkeypatch.setattr(Clients, "_made", single)

    @pytest.mark.usefixtures("records_by_themselves")
    @pytest.mark.parametrize("before", [[], [(0, b"before")]])
    def test_no_record_overtakes_one_that_the_broker_refuses(
        self, url: str, admin: AdminClient, before: list[tuple[int, bytes]]
    ) -> None:
        """Where the producer is new in the partition a broker would take the second, and with a new number always."""
        name = f"{KafkaAddress.of(url).prefix}.events"
        topic = NewTopic(name, SHARDS, 1, config={"max.message.bytes": "1000"})
        admin.create_topics([topic])[name].result(10)
        with open_streams(url) as streams:
            streams.create("events", SHARDS)
            streams.append("events", before)
            for _ in range(3):
                with pytest.raises(ConfigurationError):
                    streams.append("events", [(0, bytes(5000)), *((0, b"after %d" % number) for number in range(20))])
                streams.append("events", [(1, b"beside")])
            assert [(0, m.body) for m in read_all(streams, 0)] == before

    def test_records_that_fit_one_by_one_only_are_appended_when_tried_again(self, url: str, admin: AdminClient) -> None:
        name = f"{KafkaAddress.of(url).prefix}.events"
        topic = NewTopic(name, SHARDS, 1, config={"max.message.bytes": "1000"})
        admin.create_topics([topic])[name].result(10)
        records = [(0, bytes([number]) * 400) for number in range(9)]
        with open_streams(url) as streams:
            streams.create("events", SHARDS)
            with suppress(ConfigurationError):
                streams.append("events", records)
            streams.append("events", records)
            assert without_repeats([m.body for m in read_all(streams, 0)]) == [body for _, body in records]

    def test_nothing_of_a_shard_is_appended_after_a_record_that_was_refused(self, url: str, admin: AdminClient) -> None:
        name = f"{KafkaAddress.of(url).prefix}.events"
        topic = NewTopic(name, SHARDS, 1, config={"max.message.bytes": "1000"})
        admin.create_topics([topic])[name].result(10)
        with open_streams(url) as streams:
            streams.create("events", SHARDS)
            for size in (5000, MAX_MESSAGE + 1):  # refused by the broker, and by the library
                records = [(0, b"before"), (0, bytes(size)), (0, b"after"), (1, b"beside")]
                with pytest.raises(ConfigurationError, match="events") as caught:
                    streams.append("events", records)
                assert str(MAX_MESSAGE) in caught.value.remedy
            assert {m.body for m in read_all(streams, 0)} == {b"before"}

    def test_killed_writer_leaves_all_it_confirmed_and_in_order(self, streams: Streams, url: str) -> None:
        rng = random.Random(1)
        for _ in range(3):
            ours, theirs = get_context("fork").Pipe(duplex=False)
            writer = get_context("fork").Process(target=append_until_killed, args=(url, theirs))
            writer.start()
            theirs.close()
            last = ours.recv()
            time.sleep(rng.random() * 0.3)
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join(30)
            while ours.poll():
                try:
                    last = ours.recv()
                except EOFError:
                    break
            for shard, per_number in ((0, 2), (1, 1)):
                bodies = [m.body for m in read_all(streams, shard)]
                begun = len(bodies) - 1 - bodies[::-1].index(b"0")
                numbers = [
                    body for number in range(last + 2) for body in (b"%d" % number, b"%d+" % number)[:per_number]
                ]
                found = bodies[begun:]
                assert found == numbers[: len(found)]
                assert len(found) >= per_number * (last + 1)

    # Outages.

    def test_broker_that_stands_still_is_an_outage_and_the_same_append_goes_on(self, url: str) -> None:
        with open_streams(url.replace("timeout=15", "timeout=2")) as streams:
            streams.create("events", SHARDS)
            streams.append("events", [(0, b"before"), (1, b"before")])
            records = [(0, b"first"), (1, b"first"), (0, b"second")]
            with self.broker.suspended():
                for _ in range(2):
                    with pytest.raises(UnavailableError, match=self.broker.address) as caught:
                        streams.append("events", records)
                    assert caught.value.remedy
                for action in (
                    lambda: streams.range("events", 0),
                    lambda: streams.ack("handler", "events", {0: 1}),
                    lambda: streams.acked("handler", "events"),
                    lambda: streams.create("others", 1),
                    lambda: streams.names(),
                ):
                    with pytest.raises(UnavailableError, match=self.broker.address):
                        action()
            self._when_it_answers(lambda: streams.append("events", records))
            found = [[m.body for m in self._when_it_answers(lambda n=n: read_all(streams, n))] for n in (0, 1)]
            assert without_repeats(found[0]) == [b"before", b"first", b"second"]
            assert without_repeats(found[1]) == [b"before", b"first"]

    @pytest.mark.parametrize("how", ["kill", "stop"])
    def test_everything_goes_on_after_a_restart_of_the_broker(self, streams: Streams, url: str, how: str) -> None:
        with open_streams(url) as reader:
            streams.append("events", [(0, b"%d" % number) for number in range(5)])
            streams.ack("handler", "events", {0: 3})
            assert len(read_all(reader, 0)) == 5
            getattr(self.broker, how)()
            self.broker.start()
            assert self._when_it_answers(lambda: streams.append("events", [(0, b"after"), (2, b"after")]))[1] == 0
            deadline = time.monotonic() + 180
            found: list[bytes] = []
            while len(found) < 1:
                assert time.monotonic() < deadline
                try:
                    reader.version("events")
                    found = [m.body for m in reader.read("events", 0, 5, 10, MEGABYTE)]
                except UnavailableError:
                    pass
            assert found == [b"after"]
            assert self._when_it_answers(lambda: reader.acked("handler", "events")) == {0: 3, 1: -1, 2: -1}
            assert [m.body for m in read_all(reader, 2)] == [b"after"]

    @pytest.mark.usefixtures("records_by_themselves")
    def test_records_of_a_shard_have_no_gap_when_the_broker_stands_still_at_any_moment(self, url: str) -> None:
        """It does for less than the time limit, and for more: then the same records are appended again."""
        rng = random.Random(3)
        count = 40
        with open_streams(url.replace("timeout=15", "timeout=0.5")) as streams:
            streams.create("events", SHARDS)

            def disturb() -> None:
                for _ in range(8):
                    time.sleep(rng.random())  # at any moment of an append
                    with self.broker.suspended():
                        time.sleep(rng.choice((0.1, 0.6, 1.0)))

            disturber = threading.Thread(target=disturb)
            disturber.start()
            rounds = 0
            while disturber.is_alive():
                records = [(number % 2, b"%d %d" % (rounds, number)) for number in range(count)]
                self._when_it_answers(lambda records=records: streams.append("events", records))
                rounds += 1
            for shard in (0, 1):
                found = without_repeats([m.body for m in self._when_it_answers(lambda n=shard: read_all(streams, n))])
                sent = [b"%d %d" % (n, number) for n in range(rounds) for number in range(shard, count, 2)]
                assert found == sent

    def _when_it_answers(self, action: Any) -> Any:
        deadline = time.monotonic() + 60
        while True:
            try:
                return action()
            except UnavailableError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def test_address_where_nobody_answers_is_named(self) -> None:
        port = free_port()
        with open_streams(f"kafka://127.0.0.1:{port}/churn?timeout=1") as streams:
            for action in (streams.names, lambda: streams.create("events", 1), lambda: streams.range("events", 0)):
                with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}") as caught:
                    action()
                assert f"127.0.0.1:{port}" in caught.value.remedy

    # Reading.

    def test_messages_of_others_in_between_are_kept_or_fetched_again(
        self, streams: Streams, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kafka_reader, "AHEAD_BYTES", 20_000)
        monkeypatch.setattr(kafka_reader, "MOST_AHEAD_BYTES", 60_000)
        for number in range(60):
            streams.append("events", [(shard, b"%d " % number + bytes(5000)) for shard in range(SHARDS)])
        rng = random.Random(2)
        with open_streams(url) as reader:
            found: dict[int, list[int]] = {shard: [] for shard in range(SHARDS)}
            while any(len(numbers) < 60 for numbers in found.values()):
                shard = rng.choice((0, 0, 0, 0, 0, 0, 0, 1, 2))
                if len(found[shard]) < 60:
                    reader.range("events", shard)
                    messages = reader.read("events", shard, len(found[shard]), rng.randint(1, 9), 1 << 30)
                    found[shard] += [int(m.body.split()[0]) for m in messages]
            assert all(numbers == list(range(60)) for numbers in found.values())

    def test_reader_that_a_trim_overtakes_goes_on_with_what_is_left(self, streams: Streams, url: str) -> None:
        streams.append("events", [(0, b"%d" % number) for number in range(10)])
        with open_streams(url) as reader:
            assert len(reader.read("events", 0, 0, 2, MEGABYTE)) == 2
            streams.ack("handler", "events", {0: 9})
            assert streams.trim("events", ["handler"], FOREVER) == 10
            streams.append("events", [(0, b"next")])
            reader.close()
            assert [m.body for m in reader.read("events", 0, 2, 10, MEGABYTE)] == [b"next"]

    # Addresses.

    def test_tls_and_password_come_by_url_and_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        server, certificate = self.broker.secured_address, quote(str(self.broker.certificate))
        prefix = f"test-{uuid.uuid4().hex}"
        options = f"security.protocol=SASL_SSL&sasl.mechanism=PLAIN&ssl.ca.location={certificate}&timeout=20"
        url = f"kafka://{server}/{prefix}?{options}"
        monkeypatch.setenv("MODELSTREAM_KAFKA_SASL_USERNAME", USER)
        monkeypatch.setenv("MODELSTREAM_KAFKA_SASL_PASSWORD", PASSWORD)
        with open_streams(url) as streams:
            streams.create("events", SHARDS)
            streams.append("events", [(0, b"secured")])
            assert [m.body for m in read_all(streams, 0)] == [b"secured"]
        monkeypatch.setenv("MODELSTREAM_KAFKA_SASL_PASSWORD", "wrong")
        with open_streams(url) as streams:
            with pytest.raises((ConfigurationError, UnavailableError), match="uthentication") as caught:
                streams.names()
            assert "MODELSTREAM_KAFKA_SASL_PASSWORD" in caught.value.remedy

    @pytest.mark.parametrize("name", ["sasl.password", "ssl.key.password"])
    def test_secret_in_a_url_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match=name) as caught:
            open_streams(f"kafka://h:1/churn?{name}=hush")
        assert variable_of(name) in caught.value.remedy
        assert "hush" not in str(caught.value) + caught.value.remedy

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("kafka://", "no server"),
            ("kafka:///churn", "no server"),
            ("kafka://h:9092,/churn", "no server"),
            ("kafka://h:99999/churn", "65535"),
            ("kafka://h:x/churn", "65535"),
            ("kafka://h:9092", "prefix"),
            ("kafka://h:9092/", "prefix"),
            ("kafka://h:9092/a/b", "prefix"),
            ("kafka://h:9092/churn?akcs=0", "akcs"),
            ("kafka://h:9092/churn?acks=0", "acks"),
            ("kafka://h:9092/churn?timeout=soon", "timeout"),
            ("kafka://h:9092/churn?replication=0", "replication"),
        ],
    )
    def test_malformed_url_is_refused(self, url: str, said: str) -> None:
        with pytest.raises(ConfigurationError, match=said) as caught:
            open_streams(url)
        assert caught.value.remedy

    def test_property_with_a_value_that_can_not_be_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"security\.protocol") as caught:
            open_streams("kafka://h:9092/churn?security.protocol=NONE").names()
        assert caught.value.remedy


def test_client_is_imported_only_for_its_url() -> None:
    program = (
        "import sys; from modelstream.streams import open_streams; open_streams('sqlite:///tmp/x').close(); "
        "assert not [name for name in sys.modules if name.startswith('confluent_kafka')]"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
