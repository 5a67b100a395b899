"""Appends records to Kafka topics: many of a shard at once, and none of a shard without all before it.

What keeps that promise is the broker. It numbers what an idempotent producer sends to a partition, and refuses a batch
that doesn't follow the one before. Three things could still open a gap, and are kept from happening:

- a broker takes any batch from a producer that it doesn't know in a partition (KAFKA-14359), so the second where the
  first was refused: the first record of a shard goes alone, and also the first after a pause;
- the library goes on with new numbers after a record that it gave up: `enable.gapless.guarantee` makes it stop, and it
  is never told to give up by itself (`message.timeout.ms` is 0);
- a producer that goes on after an append has failed: it is dropped, with all it holds.

After a failure the same records are appended again, one of a shard at a time until they are confirmed: a batch may be
too large for a topic where each of its records isn't.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Delivered

from modelstream.errors import ConfigurationError
from modelstream.streams.kafka_client import Clients

KNOWN_SECONDS = 600.0
"""For so long after a confirmed record a broker surely knows the producer: it forgets after `producer.id.expiration.ms`
without one, a day by default."""
START_SECONDS = 2.0
"""What a new producer may need besides the time limit: the library asks for its number twice a second."""


class KafkaWriter:
    """Appends by the producer of this process's clients.

    An example would need a broker: `tests/contract/test_kafka_streams.py` has one.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._confirmed: dict[tuple[str, int], float] = {}
        """By topic and shard, when the broker last confirmed a record of the producer."""
        self._failed = False

    def append(self, topic: str, records: Sequence[tuple[int, bytes]], what: str) -> list[int]:
        """Append (shard, body) records; return their offsets. `what` is what errors say can't be done.

        Raises ConfigurationError and UnavailableError; some records may then be appended, but none of a shard without
        all before it.
        """
        offsets = [-1] * len(records)
        now = time.monotonic()
        known = {shard for (name, shard), at in self._confirmed.items() if name == topic and now - at < KNOWN_SECONDS}
        for turn in turns([shard for shard, _ in records], known, singly=self._failed):
            self._append_turn(topic, records, turn, offsets, what)
        self._failed = False
        return offsets

    def _append_turn(
        self, topic: str, records: Sequence[tuple[int, bytes]], turn: Sequence[int], offsets: list[int], what: str
    ) -> None:
        """Append records, and wait until all are confirmed."""
        clients = self._clients
        producer = clients.producer
        waiting = set(turn)
        errors: list[KafkaError] = []
        why = KafkaError(KafkaError._MSG_TIMED_OUT)

        def confirm(index: int, error: KafkaError | None, message: Delivered) -> None:
            waiting.discard(index)
            if error is not None:
                errors.append(error)
            else:
                offset = message.offset()
                offsets[index] = -1 if offset is None else offset

        for place, index in enumerate(turn):
            shard, body = records[index]
            try:
                producer.produce(topic, body, partition=shard, on_delivery=_of(confirm, index))
            except (KafkaException, BufferError) as error:
                waiting.difference_update(turn[place:])  # nothing of a shard after one that was refused
                found = _error_of(error)
                if found.code() == KafkaError._FATAL and waiting:
                    why = found  # the report of an earlier record says more
                else:
                    errors.append(found)
                break
        deadline = time.monotonic() + clients.address.timeout + START_SECONDS * (not self._confirmed)
        while waiting and not errors and (left := deadline - time.monotonic()) > 0:
            with suppress(KafkaException):  # the library stops for good; why is said where it reports the record
                producer.poll(min(left, 0.1))
        if waiting or errors or why.code() == KafkaError._FATAL:
            self._failed = True
            self._confirmed.clear()
            clients.drop_producer()
            problems = [clients.error(error, what) for error in errors or [why]]
            raise next((one for one in problems if isinstance(one, ConfigurationError)), problems[0])
        now = time.monotonic()
        self._confirmed.update({(topic, records[index][0]): now for index in turn})
        clients.answered()


def turns(shards: Sequence[int], known: set[int], *, singly: bool = False) -> Iterator[list[int]]:
    """Yield places of records, given the shard of each: those of a turn may be unconfirmed together.

    The first record of a shard that is not `known` goes before its others; `singly`, each goes by itself.

    >>> list(turns([0, 0, 3, 0, 3], known={0}))
    [[0, 1, 2, 3], [4]]
    >>> list(turns([0, 0, 3, 0, 3], known={0}, singly=True))
    [[0, 2], [1, 4], [3]]
    """
    of_shard: dict[int, list[int]] = {}
    for index, shard in enumerate(shards):
        of_shard.setdefault(shard, []).append(index)
    if singly:
        for turn in itertools.zip_longest(*of_shard.values()):
            yield [index for index in turn if index is not None]
        return
    first = sorted(index for shard, places in of_shard.items() for index in (places if shard in known else places[:1]))
    rest = sorted(index for shard, places in of_shard.items() if shard not in known for index in places[1:])
    yield from (turn for turn in (first, rest) if turn)


def _of(confirm: Callable[[int, Any, Any], None], index: int) -> Callable[[Any, Any], None]:
    return lambda error, message: confirm(index, error, message)


def _error_of(error: Exception) -> KafkaError:
    if isinstance(error, KafkaException):
        found: KafkaError = error.args[0]
        return found
    return KafkaError(KafkaError._QUEUE_FULL, str(error))
