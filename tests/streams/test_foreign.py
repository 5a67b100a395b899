"""Streams that others have made, by their own names."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from modelstream.clients.v3io import Container, V3ioAddress
from modelstream.errors import ConfigurationError
from modelstream.streams import open_streams
from modelstream.streams.foreign import open_foreign
from servers.kafka import KafkaServer
from tests.contract.v3io_places import new_url, no_faults, server

__all__ = ["no_faults", "server"]


def test_records_go_to_a_topic_that_another_has_made(broker: KafkaServer) -> None:
    topic = f"monitoring_stream_{time.time_ns()}_it_v1"
    place = broker.url("x").partition("://")[2].rpartition("/")[0]
    admin = AdminClient({"bootstrap.servers": place})
    for made in admin.create_topics([NewTopic(topic, 3, 1)]).values():
        made.result(30)
    streams, name = open_foreign(f"kafka://{place}/{topic}", {})
    with streams:
        assert (name, streams.describe(name).shards) == (topic, 3)
        streams.append(name, [(2, b"one"), (2, b"two"), (0, b"three")])
        found = [[message.body for message in streams.read(name, shard, 0, 10, 10**6)] for shard in range(3)]
    assert found == [[b"three"], [], [b"one", b"two"]]


def test_topic_that_is_not_there_is_named(broker: KafkaServer) -> None:
    place = broker.url("x").partition("://")[2].rpartition("/")[0]
    streams, name = open_foreign(f"kafka://{place}/missing_v1", {})
    with streams, pytest.raises(ConfigurationError, match="no stream 'missing_v1'"):
        streams.append(name, [(0, b"one")])


@pytest.mark.usefixtures("server")
def test_records_go_to_a_stream_of_v3io() -> None:
    url = new_url("model-endpoints")
    address = V3ioAddress.of(url)
    described: dict[str, Any] = {
        "stream_path": f"{address.path}/stream-v1",
        "shard_count": 2,
        "retention_period_hours": 24,
    }
    container = Container(address)
    container.call("stream", "create", **described)
    container.close()
    with open_streams(url) as made:
        streams, name = open_foreign(f"{url}/stream-v1")
        with streams:
            streams.append(name, [(1, b"one"), (1, b"two")])
        first, _ = made.range("stream-v1", 1)
        assert [message.body for message in made.read("stream-v1", 1, first, 10, 10**6)] == [b"one", b"two"]
