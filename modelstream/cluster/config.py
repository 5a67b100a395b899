"""A cluster's file, such as `clusters/kafka.yaml`: read, checked, and every mistake named with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from modelstream.base.yamlfile import YamlFile
from modelstream.cluster import config_check
from modelstream.cluster.kafka_login import KafkaLogin
from modelstream.errors import ConfigurationError
from modelstream.project import Project

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value in a Kubernetes secret: only its place is known here."""

    secret: str
    key: str


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A persistent volume claim that every function mounts at a path."""

    claim: str
    path: str


class Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How large a function is."""

    replicas: int = 1
    """Pods; their number doesn't change by itself."""
    workers: int = 1
    """Processes in a pod; shards are spread over all of them."""
    cpu: str = ""
    memory: str = ""
    """What a pod asks for."""
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
    """Where the image has this repository: the use case, the model, the notebooks."""
    registry: str = ""
    """Where registered models are, a folder or a bucket as for logs; by default `models` beside the logs."""
    source: str = ""
    """Where the cluster finds this repository, for `--engine remote`: git://….git#branch."""
    epoch: Natural = 0
    """Raise it by one to make the streams anew, with another number of shards (docs/cluster.md)."""
    v3io_api: str = "http://v3io-webapi:8081"
    retention_hours: Count = 168
    """Messages in Kafka that every function has acknowledged are deleted when they are older."""
    kafka: KafkaLogin | None = None
    env: dict[str, str] = {}
    secrets: dict[str, Secret] = {}
    volumes: tuple[Volume, ...] = ()
    functions: dict[str, Size] = {}
    generator: dict[str, int] = {}
    """As in `Generator`."""

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


def load(path: str | Path, project: Project) -> Cluster:
    """Return what a cluster's file says for a project. Raises ConfigurationError: file, line, place and remedy."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give the path of a cluster's file: --config clusters/kafka.yaml, or a copy of it"
        raise ConfigurationError(f"{path}: {error}", remedy=remedy) from None
    if not "".join(line.partition("#")[0] for line in text.splitlines()).strip():
        raise ConfigurationError(f"{path}: is empty", remedy="begin with a copy of clusters/kafka.yaml")
    file = YamlFile(text, str(path))
    _drop_empty(file.data)
    _check_parts(file)
    cluster = file.convert(file.data, Cluster)
    config_check.check(file, cluster, project)
    return cluster


def _drop_empty(data: dict[str, Any]) -> None:
    """Let an entry that names nothing, as in `env:`, count as one that isn't there."""
    for name in ("kafka", "env", "secrets", "volumes", "functions", "generator"):
        if name in data and data[name] is None:
            del data[name]
    functions = data.get("functions")
    if isinstance(functions, dict):
        data["functions"] = functions = {name: {} if size is None else size for name, size in functions.items()}
        for size in functions.values():
            if isinstance(size, dict) and "env" in size and size["env"] is None:
                del size["env"]


def _check_parts(file: YamlFile) -> None:
    """Read each entry by itself first, so that a mistake in it is told with its own place and names."""
    for name, kind in (("functions", Size), ("secrets", Secret)):
        entries = file.data.get(name)
        for key, value in entries.items() if isinstance(entries, dict) else ():
            file.convert(value, kind, (name, str(key)))
    volumes = file.data.get("volumes")
    for index, value in enumerate(volumes if isinstance(volumes, list) else ()):
        file.convert(value, Volume, ("volumes", index))
    for name, whole in (("kafka", KafkaLogin), ("generator", Generator)):
        if name in file.data:
            file.convert(file.data[name], whole, (name,))
