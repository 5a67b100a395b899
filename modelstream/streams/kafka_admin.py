"""Requests to Kafka's brokers other than reading and appending: topics, offsets, and the offsets that groups committed.

Every method raises ConfigurationError or UnavailableError, see `kafka_client`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from modelstream.errors import ModelstreamError, UnavailableError
from modelstream.messages.identity import BUCKETS
from modelstream.streams.kafka_client import MAX_MESSAGE, Clients

T = TypeVar("T")
Offsets = dict[int, int]
"""Offsets by partition."""

TOPIC = {
    "cleanup.policy": "delete",
    # Messages are kept until every group has acknowledged them: `trim` deletes them.
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "max.message.bytes": str(MAX_MESSAGE),
    # When a message was appended, whatever the clock of its sender says.
    "message.timestamp.type": "LogAppendTime",
}
"""The settings of topics that are made. A topic that exists is not changed."""


class _ExistsError(ModelstreamError):
    """A topic is there already."""


class _MovedError(UnavailableError):
    """A partition has a new leader: another broker, or the same one after a restart."""


_MOVED = {
    *(KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION),
    *(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART),
}


class Admin:
    """Makes these requests, with the clients of this process.

    An example would need a broker: `tests/contract/test_kafka_streams.py` has one.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._seconds = clients.address.timeout

    # Topics.

    def topics(self) -> dict[str, int]:
        """Return the number of partitions of every usable topic.

        It asks for all topics, since asking for one by name may create it.
        """
        what = "can't list topics"
        try:
            found = self._clients.listening(what).list_topics(timeout=self._seconds).topics
        except KafkaException as error:
            raise self._problem(error.args[0], what) from None
        self._clients.answered()
        return {
            name: len(topic.partitions)
            for name, topic in found.items()
            if topic.error is None and all(partition.leader >= 0 for partition in topic.partitions.values())
        }

    def make(self, topic: str, shards: int) -> None:
        """Make a topic if it does not exist, and wait until it can be used."""
        new = NewTopic(topic, shards, self._clients.address.replication, config=TOPIC)
        with contextlib.suppress(_ExistsError):  # another process was faster
            self._done(AdminClient.create_topics, [new], f"can't make the topic {topic}")
        self.until(self.topics, lambda found: topic in found, f"topic {topic} is not there")
        self.ranges(topic, range(shards))  # answers when every leader knows that it leads, some milliseconds later

    def delete(self, topics: list[str], groups_prefix: str) -> None:
        """Delete topics, and the offsets that groups with this prefix committed for them; wait until they are gone."""
        if topics:
            self._done(AdminClient.delete_topics, topics, f"can't delete the topics {', '.join(topics)}")
        self.until(self.topics, lambda found: not found.keys() & set(topics), "the deleted topics are still there")
        for topic in topics:
            for group in self._groups(groups_prefix):
                self.until(
                    lambda group=group, topic=topic: self.committed(group, topic, range(BUCKETS)),  # type: ignore[misc]
                    lambda found: not any(found.values()),
                    f"offsets of the deleted {topic} are still kept for {group}",
                )

    def _groups(self, prefix: str) -> list[str]:
        what = "can't list groups"
        try:
            found = self._clients.listening(what).list_consumer_groups(request_timeout=self._seconds).result()
        except KafkaException as error:
            raise self._problem(error.args[0], what) from None
        return [one.group_id for one in found.valid if one.group_id.startswith(prefix)]

    def until(self, ask: Callable[[], T], good: Callable[[T], bool], what: str) -> T:
        """Repeat a check, since changes of topics take some milliseconds to be visible everywhere."""
        deadline = time.monotonic() + 2 * self._seconds
        while not good(found := ask()):
            if time.monotonic() > deadline:
                raise self._clients.outage(what)
            time.sleep(0.01)
        return found

    # Offsets of a topic, asked by a consumer: `AdminClient.list_offsets` calls an outage an offset of -1001, and a
    # late answer to it, or to its questions about groups, ends the process (librdkafka 2.16: an assertion fails).

    def ranges(self, topic: str, shards: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Return the first offset of partitions and the next one to be given."""
        shards = list(shards)
        end = self._offsets(topic, shards, OFFSET_END)
        first = self._offsets(topic, shards, OFFSET_BEGINNING)
        return {shard: (first[shard], max(first[shard], end[shard])) for shard in shards}

    def ends(self, topic: str, shards: Iterable[int]) -> Offsets:
        """Return the next offset to be given of partitions."""
        return self._offsets(topic, shards, OFFSET_END)

    def since(self, topic: str, shards: Iterable[int], milliseconds: int) -> Offsets:
        """Return the first offset of partitions that is not older than a time (ms since 1970); -1 for none."""
        return self._offsets(topic, shards, milliseconds)

    def delete_before(self, topic: str, offsets: Offsets) -> None:
        """Delete the messages before offsets."""
        if offsets:
            asked = [TopicPartition(topic, shard, offset) for shard, offset in offsets.items()]
            self._done(AdminClient.delete_records, asked, f"can't trim {topic}")

    def _offsets(self, topic: str, shards: Iterable[int], time_or_end: int) -> Offsets:
        """Ask for offsets (`offsets_for_times` takes times), and again for partitions whose leader has changed."""
        what = f"can't ask for offsets of {topic}"
        asked = [TopicPartition(topic, shard, time_or_end) for shard in shards]
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                found = self._told(what, Consumer.offsets_for_times, self._clients.group(""), asked)
                break
            except _MovedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
                self.topics()  # what the client knows of leaders is only renewed by asking for all
        if any(place.offset == OFFSET_INVALID for place in found):
            raise self._clients.outage(what)
        return {place.partition: place.offset for place in found}

    # Offsets that groups committed.

    def committed(self, group: str, topic: str, shards: Iterable[int]) -> Offsets:
        """Return the next offset that a group would read of partitions, 0 for none."""
        asked = [TopicPartition(topic, shard) for shard in shards]
        what = f"can't ask for what {group} has acknowledged"
        found = self._told(what, Consumer.committed, self._clients.group(group), asked)
        return {place.partition: max(0, place.offset) for place in found}

    def commit(self, group: str, topic: str, offsets: Offsets) -> None:
        """Note the next offset of each partition that a group would read."""
        what = f"can't acknowledge for {group}"
        self._clients.listening(what)
        places = [TopicPartition(topic, shard, offset) for shard, offset in offsets.items()]
        try:
            found = self._clients.group(group).commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            raise self._problem(error.args[0], what) from None
        self._sound(found or [], what)

    def _told(
        self, what: str, question: Callable[..., list[TopicPartition]], consumer: Consumer, asked: list[TopicPartition]
    ) -> list[TopicPartition]:
        self._clients.listening(what)
        try:
            found = question(consumer, asked, timeout=self._seconds)
        except KafkaException as error:
            raise self._problem(error.args[0], what) from None
        self._clients.answered()
        return self._sound(found, what)

    def _sound(self, places: list[TopicPartition], what: str) -> list[TopicPartition]:
        for place in places:
            if place.error is not None:
                raise self._problem(place.error, what)
        return places

    def _problem(self, error: KafkaError, what: str) -> ModelstreamError:
        self._clients.answered(error)
        found = self._clients.error(error, what)
        return _MovedError(str(found), remedy=found.remedy) if error.code() in _MOVED else found

    # How it is done.

    def _done(self, call: Callable[..., Mapping[Any, Any]], asked: Any, what: str) -> None:
        """Make a request about several topics or partitions, and wait for all results."""
        times = {"request_timeout": self._seconds, "operation_timeout": self._seconds}
        for future in call(self._clients.listening(what), asked, **times).values():
            self._result(future, what)

    def _result(self, future: Future[Any], what: str) -> None:
        try:
            future.result(2 * self._seconds)
        except KafkaException as error:
            problem: KafkaError = error.args[0]
            if problem.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                raise _ExistsError(what) from None
            raise self._problem(problem, what) from None
        except TimeoutError:
            raise self._clients.outage(what) from None
        self._clients.answered()
