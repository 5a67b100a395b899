"""A Kafka reader takes what the library has fetched in lists; the contract is tested with a broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modelstream.streams.kafka_reader import KafkaReader

BEHIND = 2_000


class FakeConsumer:
    """The library's consumer, which has fetched the messages of partition 0 before those of partition 1."""

    def __init__(self) -> None:
        self.calls = 0
        self.fetched = [fetched(0, offset) for offset in range(BEHIND)] + [fetched(1, offset) for offset in range(3)]
        self.awaited = False

    def incremental_assign(self, partitions: Any) -> None: ...

    def consume(self, count: int, timeout: float) -> list[Any]:
        self.calls += 1
        if not self.awaited:
            return []
        found, self.fetched = self.fetched[:count], self.fetched[count:]
        return found

    def poll(self, timeout: float) -> Any:
        self.awaited = True
        return next(iter(self.consume(1, timeout)), None)


def fetched(shard: int, offset: int) -> Any:
    told = {"error": None, "partition": shard, "offset": offset, "value": b"%d" % offset, "timestamp": (1, offset)}
    return SimpleNamespace(**{name: lambda value=value: value for name, value in told.items()})


@pytest.fixture
def consumer() -> FakeConsumer:
    return FakeConsumer()


def test_messages_behind_those_of_another_partition_take_few_calls(consumer: FakeConsumer) -> None:
    clients: Any = SimpleNamespace(consumer=lambda: consumer, trouble="", address=SimpleNamespace(timeout=5.0))
    reader = KafkaReader(clients, "topic", lambda shard: (0, BEHIND if shard == 0 else 3))
    reader._go_to(0, 0)
    found = reader.read(1, 0, 100, 1 << 20)
    assert [(message.offset, message.body, message.appended_at) for message in found] == [
        (offset, b"%d" % offset, 1000 * offset) for offset in range(3)
    ]
    assert consumer.calls < 20
    assert len(reader.read(0, 0, BEHIND, 1 << 20)) == BEHIND
    assert reader.received == BEHIND + 3
