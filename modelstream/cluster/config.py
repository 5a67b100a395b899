"""A cluster's file, such as `clusters/kafka.yaml`: read, checked, and every mistake named with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from modelstream.cluster import places
from modelstream.errors import ConfigurationError
from modelstream.project import Project
from modelstream.yamlfile import Place, YamlFile, suggestion

# Each name as a word of its own: KEYBOARD and TOKENIZER are none.
_SECRET_NAME = re.compile(r"(^|_)(PASSWORD|PASSWD|SECRET|TOKEN|KEY|CREDENTIALS?)(_|$)", re.IGNORECASE)
_IMAGE = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9][a-z0-9._-]*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?")
BY_REFERENCE = "keep it in a Kubernetes secret and name that under `secrets`, as in NAME: {secret: …, key: …}"


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value in a Kubernetes secret: only its place is known here."""

    secret: str
    key: str


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A persistent volume claim that every function mounts at a path."""

    claim: str
    path: str


class KafkaLogin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How Nuclio's trigger logs in to Kafka: a secret is mounted as files, and their names stand here."""

    secret: str
    user: str = ""
    password_file: str = ""
    mechanism: str = "SCRAM-SHA-512"
    tls: bool = False
    ca_file: str = ""


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
    epoch: int = 0
    """Raise it by one to make the streams anew, with another number of shards (docs/cluster.md)."""
    v3io_api: str = "http://v3io-webapi:8081"
    kafka: KafkaLogin | None = None
    env: dict[str, str] = {}
    secrets: dict[str, Secret] = {}
    volumes: tuple[Volume, ...] = ()
    functions: dict[str, Size] = {}
    generator: dict[str, Any] = {}
    """Parameters of the data generator's run."""

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
    file = YamlFile(text, str(path))
    _check_parts(file)
    cluster = file.convert(file.data, Cluster)
    _check_urls(file, cluster)
    _check_image(file, cluster)
    _check_secrets(file, cluster)
    _check_functions(file, cluster, project)
    return cluster


def _check_parts(file: YamlFile) -> None:
    """Read each entry by itself first, so that a mistake in it is told with its own place and names."""
    for name, kind in (("functions", Size), ("secrets", Secret)):
        entries = file.data.get(name)
        for key, value in entries.items() if isinstance(entries, dict) else ():
            file.convert(value, kind, (name, str(key)))
    volumes = file.data.get("volumes")
    for index, value in enumerate(volumes if isinstance(volumes, list) else ()):
        file.convert(value, Volume, ("volumes", index))
    if "kafka" in file.data:
        file.convert(file.data["kafka"], KafkaLogin, ("kafka",))


def _check_urls(file: YamlFile, cluster: Cluster) -> None:
    for name in ("streams", "tables", "logs", "registry"):
        if has_password(getattr(cluster, name)):
            raise file.error((name,), "a password in a URL", BY_REFERENCE)
    try:
        places.of(cluster.streams)
    except ConfigurationError as error:
        raise file.error(("streams",), str(error), error.remedy) from None
    if urlsplit(cluster.tables).scheme not in ("redis", "rediss", "v3io"):
        raise file.error(
            ("tables",),
            f"not tables that every pod reaches: {cluster.tables!r}",
            "give redis://host:port/db?prefix=… or v3io://container/path",
        )
    for name in ("logs", "registry"):
        if url := getattr(cluster, name):
            _check_files(file, name, url, cluster)


def _check_files(file: YamlFile, name: str, url: str, cluster: Cluster) -> None:
    """Refuse a place of logs or models that is neither a bucket nor a folder on one of the volumes."""
    if not url.startswith(("file:///", "s3://", "/")):
        raise file.error(
            (name,),
            f"neither a mounted folder nor a bucket: {url!r}",
            "give file:///folder, which is on one of the `volumes`, or s3://bucket/prefix",
        )
    folder = url.removeprefix("file://")
    if folder.startswith("/") and not any(Path(folder).is_relative_to(volume.path) for volume in cluster.volumes):
        raise file.error(
            (name,),
            f"{folder} is on none of the volumes: it would be gone with its pod",
            f"add a line under `volumes`: - {{claim: NAME, path: {Path(folder).parent}}}",
        )


def _check_image(file: YamlFile, cluster: Cluster) -> None:
    if not _IMAGE.fullmatch(cluster.image):
        remedy = "write HOST[:PORT]/NAME:TAG; docs/cluster.md tells how it is built"
        raise file.error(("image",), f"no name of an image: {cluster.image!r}", remedy)
    if not cluster.folder.startswith("/"):
        raise file.error(("folder",), "not an absolute path", "give the folder in the image, such as /modelstream")


def _check_secrets(file: YamlFile, cluster: Cluster) -> None:
    places_of_env: list[tuple[Place, dict[str, str]]] = [(("env",), cluster.env)]
    places_of_env += [(("functions", name, "env"), size.env) for name, size in cluster.functions.items()]
    for place, env in places_of_env:
        for name, value in env.items():
            if is_secret(name) or has_password(value):
                raise file.error((*place, name), "a secret in a file that goes into git", BY_REFERENCE)
            if name in cluster.secrets:
                raise file.error((*place, name), "is also one of the `secrets`", "keep one of the two")
    uses_v3io = cluster.streams.startswith("v3io:") or cluster.tables.startswith("v3io:")
    if uses_v3io and "V3IO_ACCESS_KEY" not in cluster.secrets:
        raise file.error(
            ("secrets",),
            "no access key for V3IO",
            "make a secret of one (docs/cluster.md), and add a line V3IO_ACCESS_KEY: {secret: …, key: …}",
        )


def _check_functions(file: YamlFile, cluster: Cluster, project: Project) -> None:
    shards = project.params.shards
    for name, size in cluster.functions.items():
        place: Place = ("functions", name)
        if name not in project.functions:
            raise file.error(place, "no such function", suggestion(name, project.functions))
        for field, number in (("replicas", size.replicas), ("workers", size.workers)):
            if number < 1:
                raise file.error((*place, field), f"{number} is not above 0", "give a number of 1 or more")
        if size.replicas * size.workers > shards:
            raise file.error(
                place,
                f"{size.replicas} replicas of {size.workers} workers for {shards} shards: some would idle",
                f"let their product be at most {shards}, the number of shards in project.yaml",
            )


def is_secret(name: str) -> bool:
    """Tell whether a variable's name says that its value is a secret.

    >>> [name for name in ("REDIS_PASSWORD", "V3IO_ACCESS_KEY", "KEYBOARD", "OMP_NUM_THREADS") if is_secret(name)]
    ['REDIS_PASSWORD', 'V3IO_ACCESS_KEY']
    """
    return bool(_SECRET_NAME.search(name))


def has_password(value: str) -> bool:
    """Tell whether a value is a URL with a password, before its host or among its options.

    >>> [has_password(url) for url in ("redis://:pw@h:1/0", "kafka://h:1/p?sasl.password=x", "redis://h:1/0?prefix=p")]
    [True, True, False]
    """
    if "://" not in value:
        return False
    parts = urlsplit(value)
    options = {name.replace(".", "_").replace("-", "_") for name, text in parse_qsl(parts.query) if text}
    return bool(parts.password) or any(is_secret(name) for name in options)
