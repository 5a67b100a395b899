"""Streams in Kafka: each is a topic, each shard a partition, and acknowledgements are committed offsets of consumer
groups.

The topic of a stream is `PREFIX.NAME`, in epoch N > 0 `PREFIX.NAME.epoch-N`; a group of readers is `PREFIX.GROUP`.
Offsets of a topic rise by one as long as nobody appends to it in transactions and it is not compacted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from modelstream.base.names import PLAIN_NAME
from modelstream.errors import ConfigurationError
from modelstream.messages.identity import BUCKETS, MAX_EPOCH
from modelstream.streams.contract import Message, StreamInfo, Streams
from modelstream.streams.kafka_address import KafkaAddress
from modelstream.streams.kafka_admin import Admin
from modelstream.streams.kafka_client import Clients
from modelstream.streams.kafka_reader import KafkaReader
from modelstream.streams.kafka_writer import KafkaWriter


class KafkaStreams(Streams):
    """The streams behind a URL `kafka://host:port[,host:port]/prefix?option=…` (see `kafka_address`).

    No broker is contacted before it is needed; `tests/contract/test_kafka_streams.py` has one.

    >>> str(KafkaStreams("kafka://broker:9092/demo").address)
    'kafka://broker:9092/demo'
    """

    all_or_none = False

    def __init__(self, url: str | KafkaAddress) -> None:
        self.address = url if isinstance(url, KafkaAddress) else KafkaAddress.of(url)
        self._own = Clients(self.address)
        self._kept_writer: KafkaWriter | None = None
        self._readers: dict[str, KafkaReader] = {}
        self._infos: dict[str, StreamInfo] = {}

    @property
    def _clients(self) -> Clients:
        if not self._own.of_this_process():
            self._own = Clients(self.address)
            self._readers = {}
            self._kept_writer = None
        return self._own

    @property
    def _writer(self) -> KafkaWriter:
        clients = self._clients
        if self._kept_writer is None:
            self._kept_writer = KafkaWriter(clients)
        return self._kept_writer

    @property
    def _admin(self) -> Admin:
        return Admin(self._clients)

    def create(self, name: str, shards: int, epoch: int = 0) -> StreamInfo:
        if not PLAIN_NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} can't be the name of a stream", remedy="use letters, digits, - and _")
        if not 1 <= shards <= BUCKETS:
            raise ConfigurationError(f"a stream can't have {shards} shards", remedy=f"give 1 to {BUCKETS}")
        if not 0 <= epoch <= MAX_EPOCH:
            raise ConfigurationError(f"a stream can't have the epoch {epoch}", remedy=f"give 0 to {MAX_EPOCH}")
        found = self._all()
        if name not in found:
            self._admin.make(self.address.topic(name, epoch), shards)
            found = self._all()
        info = self._infos[name] = found[name]
        if (info.shards, info.epoch) != (shards, epoch):
            raise ConfigurationError(
                f"stream {name!r} at {self.address} has {info.shards} shards and epoch {info.epoch}, "
                f"not {shards} and {epoch}",
                remedy="give the same number of shards as before, or start over with another prefix",
            )
        return info

    def describe(self, name: str) -> StreamInfo:
        info = self._infos.get(name)
        if info is None:
            found = self._all()
            if name not in found:
                raise ConfigurationError(
                    f"no stream {name!r} at {self.address}; there are: {', '.join(sorted(found)) or 'none'}",
                    remedy="run `python pipeline.py run` first, or give the right prefix "
                    f"(it looks for the topic {self.address.topic(name, 0)})",
                )
            info = self._infos[name] = found[name]
        return info

    def names(self) -> list[str]:
        return sorted(self._all())

    def expect_appends(self) -> None:
        # The library asks for an idempotent producer's number half a second after it was made, and every half second
        # until it has a connection: the first append took 1.0 to 1.6 s.
        with suppress(ConfigurationError):  # the append says it
            self._clients.producer  # noqa: B018

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
        info = self.describe(name)
        for shard, _ in records:
            info.check(shard)
        offsets = self._writer.append(self._topic(info), records, f"can't append to {info.name}")
        reader = self._readers.get(name)
        if reader is not None and self._own.of_this_process():
            for (shard, _), offset in zip(records, offsets, strict=True):
                reader.note_end(shard, offset + 1)
        return offsets

    def read(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        self.describe(name).check(shard)
        return self._reader(name).read(shard, offset, limit_messages, limit_bytes)

    def read_once(self, name: str, shard: int, offset: int, limit_messages: int, limit_bytes: int) -> list[Message]:
        found = self.read(name, shard, offset, limit_messages, limit_bytes)
        self._reader(name).forget(shard)  # or the library would fetch what follows, which nobody reads
        return found

    def range(self, name: str, shard: int) -> tuple[int, int]:
        info = self.describe(name)
        info.check(shard)
        return self._admin.ranges(self._topic(info), [shard])[shard]

    def ranges(self, name: str) -> dict[int, tuple[int, int]]:
        info = self.describe(name)
        return self._admin.ranges(self._topic(info), range(info.shards))

    def ack(self, group: str, name: str, offsets: Mapping[int, int]) -> None:
        info = self.describe(name)
        for shard in offsets:
            info.check(shard)
        admin, topic, group = self._admin, self._topic(info), self.address.group(group)
        # Kafka itself would go back. Between these two an owner that is late could still lower what another has just
        # committed: messages then come again, and are dropped as seen.
        committed = admin.committed(group, topic, offsets) if offsets else {}
        risen = {shard: offset + 1 for shard, offset in offsets.items() if offset >= committed[shard]}
        if risen:
            admin.commit(group, topic, risen)

    def acked(self, group: str, name: str) -> dict[int, int]:
        info = self.describe(name)
        committed = self._admin.committed(self.address.group(group), self._topic(info), range(info.shards))
        return {shard: offset - 1 for shard, offset in committed.items()}

    def version(self, name: str) -> int:
        info = self.describe(name)
        reader = self._reader(name)
        if reader.reads:  # what we read is fetched without our asking
            reader.collect()
            return -1 - reader.received
        return sum(list(self._admin.ends(self._topic(info), range(info.shards)).values()))

    def trim(self, name: str, groups: Sequence[str], older_than_us: int) -> int:
        info = self.describe(name)
        if not groups:
            return 0
        admin, topic, shards = self._admin, self._topic(info), range(info.shards)
        acked = [admin.committed(self.address.group(group), topic, shards) for group in groups]
        # Kafka counts milliseconds: what is younger than the time by less than one stays.
        young = admin.since(topic, shards, -(-older_than_us // 1000))
        keep: dict[int, int] = {}
        trimmed = 0
        for shard, (first, end) in admin.ranges(topic, shards).items():
            upto = min(end, *(offsets[shard] for offsets in acked))
            upto = min(upto, young[shard]) if young[shard] >= 0 else upto
            if upto > first:
                keep[shard] = upto
                trimmed += upto - first
        admin.delete_before(topic, keep)
        return trimmed

    def remove(self, name: str) -> None:
        topics = [topic for topic in self._admin.topics() if self.address.stream_of(topic)[0] == name]
        self._infos.pop(name, None)
        if self._own.of_this_process() and name in self._readers:
            self._readers.pop(name).close()
        self._admin.delete(topics, self.address.group(""))

    def close(self) -> None:
        if self._own.of_this_process():
            for reader in self._readers.values():
                reader.close()
            self._own.close()
        self._kept_writer = None
        self._readers = {}
        self._infos = {}

    def _topic(self, info: StreamInfo) -> str:
        return self.address.topic(info.name, info.epoch)

    def _all(self) -> dict[str, StreamInfo]:
        """Return all streams, each in its highest epoch."""
        found: dict[str, StreamInfo] = {}
        for topic, shards in self._admin.topics().items():
            name, epoch = self.address.stream_of(topic)
            if name and (name not in found or epoch > found[name].epoch):
                found[name] = StreamInfo(name, shards, epoch)
        return found

    def _reader(self, name: str) -> KafkaReader:
        clients = self._clients
        reader = self._readers.get(name)
        if reader is None:
            topic = self._topic(self.describe(name))
            reader = KafkaReader(clients, topic, lambda shard: Admin(clients).ranges(topic, [shard])[shard])
            self._readers[name] = reader
        return reader
