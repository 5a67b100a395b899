"""Reads a Kafka topic by offset: one consumer, which fetches ahead for all partitions, and a buffer for each partition.

The library returns messages of all partitions in the order in which they arrived. A message of a partition that is not
being read waits in that partition's buffer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as Fetched

from modelstream.errors import ConfigurationError
from modelstream.streams.contract import Message
from modelstream.streams.kafka_client import Clients

AHEAD_BYTES = 16 << 20
"""When the buffers hold this many bytes, no more messages are taken from the library, unless the requested partition
has none yet. The library holds up to as much again."""
MOST_AHEAD_BYTES = 4 * AHEAD_BYTES
AT_ONCE = 500
LOOK_AGAIN = 0.5
"""If expected messages don't arrive for this many seconds, the partition's offsets are asked for again: others may have
trimmed them."""

Ranges = Callable[[int], tuple[int, int]]
"""Asks the broker for the first offset of a partition and the next one."""


@dataclass
class _Place:
    """The position of the reader in a partition."""

    next: int
    """The offset that the caller asks for next."""
    start: int
    """The first offset that is there at or after `next`."""
    fetched: int
    """The offset after the last that is in the buffer."""
    buffer: deque[Message] = field(default_factory=deque)


class KafkaReader:
    """Reads the partitions of a topic.

    An example would need a broker: `tests/contract/test_kafka_streams.py` has one.
    """

    def __init__(self, clients: Clients, topic: str, ask: Ranges) -> None:
        self.received = 0
        """The number of messages received, over all partitions that are read."""
        self._clients = clients
        self._topic = topic
        self._ask = ask
        self._consumer: Consumer = clients.consumer()
        self._places: dict[int, _Place] = {}
        self._ends: dict[int, int] = {}
        self._bytes = 0

    @property
    def reads(self) -> bool:
        """Whether any partition has been read: `received` tells of those."""
        return bool(self._places)

    def note_end(self, shard: int, end: int) -> None:
        """Note that messages up to an offset exist, so that a read waits for them."""
        self._ends[shard] = max(end, self._ends.get(shard, 0))

    def read(self, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        """Return messages from an offset on; none at the known end. Raises UnavailableError."""
        place = self._places.get(shard)
        if place is None or place.next != offset:
            place = self._go_to(shard, offset)
        if place is None:
            return []
        if not place.buffer:
            self._wait_for(shard, place)
        return self._take(place, limit_messages, limit_bytes)

    def collect(self) -> None:
        """Take what the library has fetched, without waiting."""
        while self._bytes < AHEAD_BYTES and (fetched := self._consumer.consume(AT_ONCE, 0)):
            self._keep(fetched)

    def close(self) -> None:
        """End the consumer."""
        self._consumer.close()

    def _go_to(self, shard: int, offset: int) -> _Place | None:
        """Fetch from an offset on; None where it is beyond the end."""
        self.forget(shard)
        first, end = self._ask(shard)
        self._ends[shard] = end
        if offset > end:
            return None
        place = self._places[shard] = _Place(offset, max(offset, first), max(offset, first))
        self._consumer.incremental_assign([TopicPartition(self._topic, shard, place.start)])
        return place

    def forget(self, shard: int) -> None:
        """Fetch no more of a partition, until it is read again."""
        place = self._places.pop(shard, None)
        if place is not None:
            self._bytes -= sum(len(message.body) for message in place.buffer)
            self._consumer.incremental_unassign([TopicPartition(self._topic, shard)])

    def _wait_for(self, shard: int, place: _Place) -> None:
        """Wait for messages that are known to be there."""
        self.collect()
        if not place.buffer and self._clients.trouble:
            self._look_again(shard, place)
        begun = looked = time.monotonic()
        while not place.buffer and place.start < self._ends.get(shard, 0):
            message = self._consumer.poll(0.1)
            if message is not None:
                # Those behind it are here as well: one at a time, each would cost a call of the library.
                self._keep([message, *self._consumer.consume(AT_ONCE, 0)])
                self._make_room(shard)
                continue
            now = time.monotonic()
            if now - looked > LOOK_AGAIN:
                looked = now
                self._look_again(shard, place)
            if now - begun > self._clients.address.timeout:
                raise self._clients.outage(f"can't read {self._topic}")
        if self._bytes < AHEAD_BYTES:  # neighbours of the first are here as well
            self.collect()

    def _look_again(self, shard: int, place: _Place) -> None:
        """Ask what is there. Raises UnavailableError if nobody answers."""
        first, end = self._ask(shard)
        self._clients.trouble = ""
        self._ends[shard] = end
        place.start = max(place.next, first)

    def _make_room(self, shard: int) -> None:
        """Drop the buffers of other partitions, if their messages keep one partition's from arriving."""
        while self._bytes > MOST_AHEAD_BYTES:
            sizes = {
                one: sum(len(message.body) for message in place.buffer)
                for one, place in self._places.items()
                if one != shard and place.buffer
            }
            if not sizes:
                return
            self.forget(max(sizes, key=lambda one: sizes[one]))

    def _keep(self, fetched: list[Fetched]) -> None:
        """Put messages into their partitions' buffers. Single events come by the hundred thousand: each counts."""
        places, ends = self._places, self._ends
        size = kept = 0
        for message in fetched:
            if (error := message.error()) is not None:
                self._on_error(error)
                continue
            shard, offset = message.partition(), message.offset()
            place = places.get(shard) if shard is not None else None
            if place is None or shard is None or offset is None or offset < place.fetched:
                continue  # fetched before we went elsewhere, or once more after a broken connection
            place.fetched = offset + 1
            body = message.value() or b""
            place.buffer.append(Message(shard, offset, body, message.timestamp()[1] * 1000))
            size += len(body)
            kept += 1
            if offset >= ends[shard]:
                ends[shard] = offset + 1
        self._bytes += size
        self.received += kept

    def _on_error(self, error: KafkaError) -> None:
        problem = self._clients.error(error, f"can't read {self._topic}")
        self._clients.trouble = self._clients.trouble or error.str()
        if isinstance(problem, ConfigurationError):
            raise problem

    def _take(self, place: _Place, limit_messages: int, limit_bytes: int) -> list[Message]:
        taken: list[Message] = []
        total = 0
        while place.buffer and len(taken) < limit_messages:
            size = len(place.buffer[0].body)
            if taken and total + size > limit_bytes:
                break
            total += size
            taken.append(place.buffer.popleft())
        if taken:
            place.next = place.start = taken[-1].offset + 1
            self._bytes -= total
        return taken
