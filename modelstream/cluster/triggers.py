"""Where a stream is: the names that Nuclio's triggers need, from the same URL as the functions have."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from modelstream.errors import ConfigurationError


@dataclass(frozen=True)
class KafkaPlace:
    """Topics of a Kafka cluster, named as `streams.kafka` does."""

    brokers: tuple[str, ...]
    prefix: str

    def topic(self, stream: str, epoch: int) -> str:
        """Return the topic of a stream."""
        return f"{self.prefix}.{stream}" + (f".epoch-{epoch}" if epoch else "")

    def group(self, function: str) -> str:
        """Return the consumer group of a function."""
        return f"{self.prefix}.{function}"


@dataclass(frozen=True)
class V3ioPlace:
    """Streams below a path of a V3IO container."""

    container: str
    path: str

    def stream_path(self, stream: str) -> str:
        """Return the path of a stream in its container."""
        return f"{self.path}/{stream}" if self.path else stream

    def group(self, function: str) -> str:
        """Return the consumer group of a function: letters, digits and underscores are allowed.

        >>> V3ioPlace("projects", "mine").group("stream-to-features")
        'stream_to_features'
        """
        return function.replace("-", "_")


def of(url: str) -> KafkaPlace | V3ioPlace:
    """Return where the streams behind a URL are. Raises ConfigurationError for one that no trigger can read.

    >>> of("kafka://one:9092,two:9092/mine").topic("serving", 0)
    'mine.serving'
    >>> of("v3io://projects/modelstream/mine").stream_path("serving")
    'modelstream/mine/serving'
    """
    scheme, found, rest = url.partition("://")
    try:
        place = urlsplit(f"//{rest}")
    except ValueError as error:  # a bracket that isn't closed
        raise ConfigurationError(f"{url!r}: {error}", remedy="write kafka://HOST:PORT/PREFIX") from None
    path = place.path.strip("/")
    if found and scheme == "kafka":
        brokers = tuple(place.netloc.rpartition("@")[2].split(","))
        for broker in brokers:
            host, _, port = broker.rpartition(":")
            if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
                raise ConfigurationError(
                    f"{broker!r} is no address of a Kafka broker",
                    remedy="write kafka://HOST:PORT[,HOST:PORT]/PREFIX, with the addresses that pods reach",
                )
        if not path:
            raise ConfigurationError(f"{url!r} has no prefix for its topics", remedy="write kafka://HOST:PORT/PREFIX")
        return KafkaPlace(brokers, path)
    if found and scheme == "v3io":
        if not place.netloc:
            raise ConfigurationError(f"{url!r} names no container", remedy="write v3io://CONTAINER/PATH")
        return V3ioPlace(place.netloc, path)
    raise ConfigurationError(
        f"{url!r}: Nuclio has no trigger for such streams",
        remedy="give kafka://HOST:PORT/PREFIX or v3io://CONTAINER/PATH",
    )
