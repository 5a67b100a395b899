"""What Nuclio's triggers read: brokers, topics, stream paths and groups, from the same URL as the functions have."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from modelstream.errors import ConfigurationError
from modelstream.streams.kafka_address import KafkaAddress


@dataclass(frozen=True)
class V3ioPath:
    """Streams below a path of a V3IO container."""

    container: str
    path: str

    def stream_path(self, stream: str) -> str:
        """Return the path of a stream in its container."""
        return f"{self.path}/{stream}" if self.path else stream

    def group(self, function: str) -> str:
        """Return the consumer group of a function: letters, digits and underscores are allowed.

        >>> V3ioPath("projects", "mine").group("stream-to-features")
        'stream_to_features'
        """
        return function.replace("-", "_")


def of(url: str) -> KafkaAddress | V3ioPath:
    """Return where the streams behind a URL are. Raises ConfigurationError for one that no trigger can read.

    >>> of("kafka://one:9092,two:9092/mine").topic("serving", 0)
    'mine.serving'
    >>> of("v3io://projects/modelstream/mine").stream_path("serving")
    'modelstream/mine/serving'
    """
    scheme, found, _ = url.partition("://")
    if found and scheme == "kafka":
        return _kafka(url)
    if found and scheme == "v3io":
        return _v3io(url)
    raise ConfigurationError(
        f"{url!r}: Nuclio has no trigger for such streams",
        remedy="give kafka://HOST:PORT/PREFIX or v3io://CONTAINER/PATH",
    )


def _kafka(url: str) -> KafkaAddress:
    address = KafkaAddress.of(url, {})
    for broker in address.servers.split(","):
        host, _, port = broker.rpartition(":")
        if not host or not port.isdecimal() or host.startswith("[") != host.endswith("]"):
            raise ConfigurationError(
                f"{broker!r} is not the address of a Kafka broker",
                remedy="write kafka://HOST:PORT[,HOST:PORT]/PREFIX, with the addresses that pods reach",
            )
    return address


def _v3io(url: str) -> V3ioPath:
    try:
        parts = urlsplit(url)
    except ValueError as error:  # a bracket that isn't closed
        raise ConfigurationError(f"{url!r}: {error}", remedy="write v3io://CONTAINER/PATH") from None
    if not parts.netloc:
        raise ConfigurationError(f"{url!r} names no container", remedy="write v3io://CONTAINER/PATH")
    return V3ioPath(parts.netloc, parts.path.strip("/"))
