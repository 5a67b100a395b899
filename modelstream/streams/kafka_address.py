"""What `kafka://host:port[,host:port]/prefix?option=…` says: servers, names of topics and groups, and options.

Options are properties of the client library with their own names, such as `security.protocol=SASL_SSL`; each can
also be given as an environment variable, `MODELSTREAM_KAFKA_` and the name with `_` for `.`, which is the only way
for a secret: a URL is seen in logs, in the data folder and in the list of processes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from modelstream.base.names import PLAIN_NAME
from modelstream.errors import ConfigurationError

ENVIRONMENT = "MODELSTREAM_KAFKA_"
SECRETS = ("sasl.password", "ssl.key.password", "ssl.keystore.password")
PROPERTIES = (
    "security.protocol",
    *("sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.kerberos.service.name"),
    *("ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location"),
    *("ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification"),
    *("client.id", "client.rack", "compression.type", "broker.address.family"),
)
TIMEOUT = 5.0
"""Seconds until a call that gets no answer counts as an outage; it is then held and tried again. A broker that is
started anew takes 4 to 10 s."""

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,180}")
_SHAPE = "write kafka://host:port[,host:port]/prefix, the prefix of letters, digits, - _ and ."
_EPOCH = ".epoch-"


@dataclass(frozen=True)
class KafkaAddress:
    """What a URL says."""

    servers: str
    prefix: str
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    replication: int = -1
    """Copies of each topic that is made; -1 is the brokers' default."""
    timeout: float = TIMEOUT

    @classmethod
    def of(cls, url: str, environment: Mapping[str, str] | None = None) -> KafkaAddress:
        """Return what a URL and the environment say. Raises ConfigurationError.

        >>> secrets = {"MODELSTREAM_KAFKA_SASL_PASSWORD": "x"}
        >>> address = KafkaAddress.of("kafka://a:9092,b:9092/demo?security.protocol=SASL_SSL", secrets)
        >>> address.servers, address.prefix, dict(address.properties)
        ('a:9092,b:9092', 'demo', {'sasl.password': 'x', 'security.protocol': 'SASL_SSL'})
        """
        servers, _, rest = url.removeprefix("kafka://").partition("/")
        prefix, _, query = rest.partition("?")
        prefix = prefix.rstrip("/")
        if not servers or any(not server.strip() for server in servers.split(",")):
            raise ConfigurationError(f"the URL {url!r} names no server", remedy=_SHAPE)
        if "@" in servers:
            raise ConfigurationError(
                f"the URL {url!r} has a login, but URLs are visible in logs and in the list of processes",
                remedy=f"put it into {variable_of('sasl.username')} and {variable_of('sasl.password')}",
            )
        ports = [server.rpartition(":")[2] for server in servers.split(",") if ":" in server]
        if not all(port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16 for port in ports):
            raise ConfigurationError(f"the port in {url!r} must be a number from 1 to 65535", remedy=_SHAPE)
        if not prefix:
            raise ConfigurationError(f"{url!r} has no prefix for its topics", remedy=_SHAPE)
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(f"{prefix!r} can't be the prefix of topics (in {url!r})", remedy=_SHAPE)
        options = dict(parse_qsl(query, keep_blank_values=True))
        found = os.environ if environment is None else environment
        properties = {
            name: found[variable] for name in (*PROPERTIES, *SECRETS) if (variable := variable_of(name)) in found
        }
        ours = {"replication": -1.0, "timeout": TIMEOUT}
        for name, value in options.items():
            if name in SECRETS:
                raise ConfigurationError(
                    f"{name} must not be in the URL, which is visible in logs and in the list of processes",
                    remedy=f"put it into the environment variable {variable_of(name)}",
                )
            if name in ours:
                ours[name] = _number(name, value)
            elif name in PROPERTIES:
                properties[name] = value
            else:
                known = ", ".join(sorted((*ours, *PROPERTIES)))
                raise ConfigurationError(f"kafka:// streams have no option {name!r}", remedy=f"known are {known}")
        return cls(servers, prefix, properties, int(ours["replication"]), ours["timeout"])

    def topic(self, stream: str, epoch: int) -> str:
        """Return the topic of a stream: what a trigger of a cluster's function reads.

        >>> address = KafkaAddress("broker:9092", "demo")
        >>> address.topic("serving", epoch=0), address.topic("serving", epoch=2), address.group("model-server")
        ('demo.serving', 'demo.serving.epoch-2', 'demo.model-server')
        """
        return f"{self.prefix}.{stream}" + (f"{_EPOCH}{epoch}" if epoch else "")

    def stream_of(self, topic: str) -> tuple[str, int]:
        """Return the stream and the epoch that a topic is of; ("", 0) for one that isn't ours.

        >>> address = KafkaAddress("broker:9092", "demo")
        >>> [address.stream_of(topic) for topic in ("demo.serving", "demo.serving.epoch-2", "other.serving")]
        [('serving', 0), ('serving', 2), ('', 0)]
        """
        prefix = f"{self.prefix}."
        name, _, epoch = topic.removeprefix(prefix).partition(_EPOCH)
        if not topic.startswith(prefix) or not PLAIN_NAME.fullmatch(name) or not (epoch or "0").isdecimal():
            return "", 0
        return name, int(epoch or 0)

    def group(self, function: str) -> str:
        """Return the consumer group of a function."""
        return f"{self.prefix}.{function}"

    def __str__(self) -> str:
        return f"kafka://{self.servers}/{self.prefix}"


def variable_of(name: str) -> str:
    """Return the environment variable of a property.

    >>> variable_of("sasl.password")
    'MODELSTREAM_KAFKA_SASL_PASSWORD'
    """
    return ENVIRONMENT + name.replace(".", "_").upper()


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise ConfigurationError(
            f"{name} must be a number above 0, not {value}", remedy="write, for example, ?timeout=10"
        )
    return number
