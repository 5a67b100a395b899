"""The library's clients for a Kafka address, and their errors in our words."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError
from modelstream.streams.kafka_address import KafkaAddress, variable_of

MAX_MESSAGE = 4 << 20
"""Size of the largest message in bytes. Ours have about 1 MB, which is just above the brokers' default limit."""

FETCH_BYTES, FETCH_ALL_BYTES = 3 << 19, 4 << 20
"""Bytes of one partition, and of all, in an answer to a fetch: one of our messages, and some; a larger one comes by
itself. With 4 MB a partition, answers for 8 held more than the client keeps, and messages of 1 MB took client and
broker more CPU."""

_OURS_TO_MEND = {
    *(KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL),
    *(KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.ILLEGAL_SASL_STATE),
    *(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED),
    *(KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.POLICY_VIOLATION),
    *(KafkaError.INVALID_CONFIG, KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.TOPIC_EXCEPTION),
    *(KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.UNSUPPORTED_VERSION),
}
"""Errors that trying again won't fix. All others are treated as outages: a shard that waits in vain loses nothing, one
that gives up might."""

_SILENCE = {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE}
SILENT_SECONDS = 1.0
"""After a request without an answer, no others are sent for this many seconds: otherwise a display that makes ten
requests would stand still for a minute."""

_LOGIN = (
    f"put a login that the brokers accept into {variable_of('sasl.username')} and {variable_of('sasl.password')}; how "
    f"to log in is said by {variable_of('security.protocol')} and {variable_of('sasl.mechanism')}, or by the same "
    "options of the URL"
)
_TLS = (
    f"see that {variable_of('security.protocol')} and {variable_of('ssl.ca.location')} (or security.protocol and "
    "ssl.ca.location in the URL) are those of the brokers"
)
_REMEDIES = {
    **dict.fromkeys((KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED), _LOGIN),
    **dict.fromkeys((KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.ILLEGAL_SASL_STATE), _LOGIN),
    KafkaError._SSL: _TLS,
    KafkaError.MSG_SIZE_TOO_LARGE: f"give the topic max.message.bytes={MAX_MESSAGE}",
    KafkaError.UNKNOWN_MEMBER_ID: "the same functions are running elsewhere, as members of this consumer "
    "group: stop them there first",
    KafkaError.INVALID_REPLICATION_FACTOR: "add ?replication=N to the URL, at most the number of brokers",
}


_UNHEARD = logging.Logger("librdkafka", logging.CRITICAL + 1)

_ABANDONED: list[Clients] = []
"""Clients of a parent process. Their threads don't exist here, so ending them would wait for ever."""


class Clients:
    """The library's clients for an address, each made when it is first used, in the process that uses it.

    Methods raise ConfigurationError for what trying again doesn't mend, and UnavailableError for an outage.

    >>> clients = Clients(KafkaAddress.of("kafka://broker:9092/demo", {}))  # connects when it is used
    >>> clients.of_this_process()
    True
    """

    def __init__(self, address: KafkaAddress) -> None:
        self.address = address
        self.trouble = ""
        """The last problem that a client reported about its connections, while no call has failed because of it."""
        self._refusal = 0
        """The code of the last problem, if trying again won't fix it."""
        self._silent_until = 0.0
        self._pid = os.getpid()
        self._admin: AdminClient | None = None
        self._producer: Producer | None = None
        self._groups: dict[str, Consumer] = {}

    def of_this_process(self) -> bool:
        """Return whether these clients belong to this process: after a fork the child needs its own, and leaves these
        untouched."""
        if self._pid == os.getpid():
            return True
        _ABANDONED.append(self)
        return False

    @property
    def admin(self) -> AdminClient:
        """For topics, offsets and groups."""
        if self._admin is None:
            self._admin = self._made(AdminClient, {})
        return self._admin

    @property
    def producer(self) -> Producer:
        """The producer, for appending. It is idempotent, so records that the library itself resends are stored once.

        `kafka_writer` says why it is as it is.
        """
        if self._producer is None:
            milliseconds = int(self.address.timeout * 1000)
            self._producer = self._made(
                Producer,
                {
                    "enable.idempotence": True,
                    "enable.gapless.guarantee": True,
                    "acks": "all",
                    "message.timeout.ms": 0,
                    "request.timeout.ms": milliseconds,
                    "message.max.bytes": MAX_MESSAGE,
                    # The library has a request for each partition, and its timer wakes up late: an append of one
                    # record takes 0.15 ms, of 8 records to 8 shards 0.9; with 0.1 ms or 0.5 ms, 1.3 and 2.1.
                    "linger.ms": 0,
                    "queue.buffering.max.kbytes": 1 << 20,
                },
            )
        return self._producer

    def drop_producer(self) -> None:
        """Drop a producer that can't continue. Records that it still holds are not sent."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def group(self, name: str) -> Consumer:
        """Return a consumer that asks for offsets, and commits those of a group, without being a member of it."""
        if name not in self._groups:
            self._groups[name] = self.consumer(name)
        return self._groups[name]

    def consumer(self, group: str = "") -> Consumer:
        """Return a new consumer, for reading from offsets. It is no member of a group."""
        consumer: Consumer = self._made(
            Consumer,
            {
                "group.id": group or f"{self.address.prefix}.reader",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # Where messages were trimmed, go on at the first that is left.
                "auto.offset.reset": "earliest",
                "allow.auto.create.topics": False,
                # A shard that is read from another offset waits until the request under way has come back.
                "fetch.wait.max.ms": 50,
                "fetch.message.max.bytes": FETCH_BYTES,
                "fetch.max.bytes": FETCH_ALL_BYTES,
                "queued.max.messages.kbytes": 16 << 10,
                # The library's 500 and 1,000 ms are pauses in the middle of a backlog.
                "fetch.error.backoff.ms": 20,
                "fetch.queue.backoff.ms": 5,
            },
        )
        return consumer

    def close(self) -> None:
        """End the clients."""
        for consumer in self._groups.values():
            consumer.close()
        self._groups = {}
        self._admin = self._producer = None

    def _made(self, kind: Any, properties: dict[str, Any]) -> Any:
        address = self.address
        common = {
            "bootstrap.servers": address.servers,
            "client.id": "modelstream",
            "error_cb": self._on_error,
            # What is wrong is said by the calls that fail. A producer that is dropped would log a fatal error.
            "log_level": 2,
            "logger": _UNHEARD,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "socket.timeout.ms": max(int(address.timeout * 1000), 1000),
            "socket.connection.setup.timeout.ms": max(int(address.timeout * 1000), 1000),
        }
        given = dict(address.properties)
        if kind is not Producer:
            given.pop("compression.type", None)
        try:
            return kind({**common, **properties, **given})
        except KafkaException as error:
            said = error.args[0].str()
            wrong = [name for name in given if f'"{name}"' in said] or list(given)
            raise ConfigurationError(
                f"{address}: {said}",
                remedy="correct it: " + ", ".join(f"{variable_of(name)} (or {name} in the URL)" for name in wrong),
            ) from None

    def listening(self, what: str) -> AdminClient:
        """Return the client for requests. Raises UnavailableError if a request has just been left without an answer."""
        if time.monotonic() < self._silent_until:
            raise self.outage(what)
        return self.admin

    def answered(self, error: KafkaError | None = None) -> None:
        """Note that a question was answered, or how it failed."""
        if error is None:
            self.trouble, self._refusal, self._silent_until = "", 0, 0.0
        elif error.code() in _SILENCE:
            self._silent_until = time.monotonic() + SILENT_SECONDS

    def _on_error(self, error: KafkaError) -> None:
        if self._refusal and error.code() in _SILENCE:
            return  # after a refused login all brokers count as down, which says less
        self.trouble = error.str()
        self._refusal = error.code() if error.code() in _OURS_TO_MEND else 0

    def _listen(self) -> None:
        """Poll the clients for problems with their connections, which they report only when polled."""
        for client in (self._admin, self._producer, *self._groups.values()):
            if client is not None:
                client.poll(0)

    def error(self, error: KafkaError, what: str) -> ModelstreamError:
        """Return the error to raise for an error of Kafka's."""
        self._listen()
        code = error.code()
        said = error.str()
        if self.trouble and self.trouble not in said:
            said = f"{said} ({self.trouble})"
        if code in _OURS_TO_MEND or self._refusal:
            remedy = _REMEDIES.get(
                code if code in _OURS_TO_MEND else self._refusal,
                "see the rights and settings that the brokers have for this user",
            )
            return ConfigurationError(f"{what} at {self.address}: {said}", remedy=remedy)
        return self.outage(what, said)

    def outage(self, what: str, said: str = "") -> UnavailableError:
        """Return the UnavailableError for no answer, or none in time."""
        self._listen()
        said = said or self.trouble or f"no answer within {self.address.timeout:g} s"
        return UnavailableError(
            f"{what} at {self.address}: {said}",
            remedy=f"check that a broker runs at {self.address.servers} and that this machine can reach it",
        )
