"""Streams: they have a name and shards, and are read by offset; messages stay until every group of readers has
acknowledged them.

| what | files |
|---|---|
| the contract of every backend, tested by `tests/contract/streams_contract.py` | `contract` |
| SQLite files on one machine | `sqlite`, `body_files`, `bell` |
| Kafka | `kafka`, `kafka_reader`, `kafka_writer`, `kafka_admin`, `kafka_client`, `kafka_address` |
| V3IO | `v3io`, `v3io_records` |
| a stream of others, to append to | `foreign` |
| dead letters, read once each | `letters` |

A backend's module is imported only where its URL is used.
"""

from __future__ import annotations

from modelstream.errors import ConfigurationError
from modelstream.streams.contract import Message, StreamInfo, Streams

__all__ = ["Message", "StreamInfo", "Streams", "open_streams"]


def open_streams(url: str) -> Streams:
    """Return the streams at a URL. Raises ConfigurationError for an unknown kind of URL.

    `sqlite:///absolute/folder`, `sqlite://relative/folder`, `kafka://host:port[,host:port]/prefix?option=…` (see
    `streams.kafka_address`), or `v3io://container/path?option=…` (see `clients.v3io`).

    >>> open_streams("pigeon://x")
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: no streams of the kind 'pigeon' (in 'pigeon://x'); known: kafka, sqlite, v3io
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from modelstream.clients.sqlite import folder_of
        from modelstream.streams.sqlite import SqliteStreams

        return SqliteStreams(folder_of(url))
    if scheme == "kafka":
        from modelstream.streams.kafka import KafkaStreams

        return KafkaStreams(url)
    if scheme == "v3io":
        from modelstream.streams.v3io import V3ioStreams

        return V3ioStreams(url)
    raise ConfigurationError(
        f"no streams of the kind {scheme!r} (in {url!r}); known: kafka, sqlite, v3io",
        remedy="write sqlite:///absolute/folder, kafka://host:port/prefix or v3io://container/path",
    )
