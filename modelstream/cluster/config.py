"""The content of a cluster's file, such as `clusters/kafka.yaml`; `file` reads one."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from modelstream.cluster.kafka_login import KafkaLogin

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value in a Kubernetes secret. Only where it is stored is known here, not the value."""

    secret: str
    key: str


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A persistent volume claim that every function mounts at a path."""

    claim: str
    path: str


class Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How large a function is."""

    replicas: int = 1
    """Number of pods, which never changes by itself."""
    workers: int = 1
    """Processes in each pod; the shards are spread over all of them."""
    http_workers: int = 1
    """Further processes in each pod of the model server, which answer requests by HTTP; 0: it has no HTTP trigger."""
    cpu: str = ""
    memory: str = ""
    """CPU and memory that a pod requests."""
    cpu_limit: str = ""
    memory_limit: str = ""
    env: dict[str, str] = {}


class Generator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of the data generator's run; the workflow has their defaults (`pipeline` in workflow.py)."""

    users: Count | None = None
    events_per_user: Count | None = None
    seed: Natural | None = None


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cluster's file. URLs are those that the functions use, inside the cluster."""

    streams: str
    tables: str
    logs: str
    image: str
    folder: str = "/modelstream"
    """Where this repository (use case, model, notebooks) is in the image."""
    registry: str = ""
    """Where registered models are, a folder or a bucket as for logs; by default `models` beside the logs."""
    source: str = ""
    """Where the cluster finds this repository, for `--engine remote`: git://….git#branch."""
    epoch: Natural = 0
    """Raise it by one to make the streams anew, with another number of shards (docs/cluster.md)."""
    v3io_api: str = "http://v3io-webapi:8081"
    retention_hours: Count = 168
    """Messages in Kafka that every function has acknowledged are deleted when they are older than this."""
    monitoring: bool = False
    """Whether MLRun's model monitoring gets the answers of the model server, and the drift report runs every hour."""
    kafka: KafkaLogin | None = None
    env: dict[str, str] = {}
    secrets: dict[str, Secret] = {}
    project_secrets: tuple[str, ...] = ()
    """Variables whose values are among MLRun's secrets of the project; `file` adds where to `secrets` or `kafka`."""
    volumes: tuple[Volume, ...] = ()
    functions: dict[str, Size] = {}
    generator: dict[str, int] = {}
    """Parameters of the data generator's run; see `Generator`."""

    @property
    def on_kafka(self) -> bool:
        """Tell whether the streams are in Kafka."""
        return self.streams.startswith("kafka:")

    def size(self, function: str) -> Size:
        """Return the size of a function."""
        return self.functions.get(function, Size())

    def registry_url(self) -> str:
        """Return where registered models are."""
        return self.registry or f"{self.logs.rstrip('/')}/models"
