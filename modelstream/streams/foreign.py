"""A stream that others have made and read, by its own name: one topic of Kafka, or one stream of V3IO.

Only for appending: such a stream has no epoch, and no groups of readers of ours.
"""

from __future__ import annotations

from modelstream.errors import ConfigurationError
from modelstream.streams.contract import StreamInfo, Streams


def open_foreign(url: str, environment: dict[str, str] | None = None) -> tuple[Streams, str]:
    """Return the streams at a URL whose last part is a stream's name, and that name. Raises ConfigurationError.

    `kafka://host:port[,host:port]/TOPIC`, `v3io://container/path/NAME` or `sqlite:///folder/NAME`. `environment` has
    Kafka's login, under the names of `streams.kafka_address`; by default it is the process's own.

    >>> open_foreign("sqlite:///tmp/watched/monitoring")[1]
    'monitoring'
    >>> open_foreign("kafka://broker:9092")
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: 'kafka://broker:9092' names no stream
    """
    scheme, _, rest = url.partition("://")
    place, _, name = rest.rpartition("/")
    if not place or not name:
        raise ConfigurationError(f"{url!r} names no stream", remedy="write kafka://host:port/TOPIC")
    if scheme == "kafka":
        return _topics(url, environment), name
    from modelstream.streams import open_streams

    return open_streams(f"{scheme}://{place}"), name


def _topics(url: str, environment: dict[str, str] | None) -> Streams:
    """Return all topics of some brokers, as streams of their own names."""
    from modelstream.streams.kafka import KafkaStreams
    from modelstream.streams.kafka_address import KafkaAddress

    class Topics(KafkaStreams):
        def _topic(self, info: StreamInfo) -> str:
            return info.name

        def _all(self) -> dict[str, StreamInfo]:
            return {topic: StreamInfo(topic, shards, 0) for topic, shards in self._admin.topics().items()}

    return Topics(KafkaAddress.of(url, environment))
