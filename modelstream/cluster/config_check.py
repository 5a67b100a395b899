"""Checks a cluster's file beyond its types: everything that a function or Kubernetes would refuse is refused here.

URLs are read by the parsers of the backends themselves. These import the client libraries, so they are imported only
when a file is read, not together with the commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from modelstream.base.yamlfile import Place, YamlFile, suggestion
from modelstream.cluster import kafka_login, triggers
from modelstream.cluster.config import Cluster, Size
from modelstream.cluster.functions import JOBS
from modelstream.cluster.secrecy import has_password, is_secret
from modelstream.errors import ConfigurationError
from modelstream.project import Project
from modelstream.settings import PREFIX, Settings

BY_REFERENCE = "keep it in a Kubernetes secret and name that under `secrets`, as in NAME: {secret: …, key: …}"
TUNABLE = ("linger_ms", "commit_ms", "commit_rows")
"""Settings that a cluster's file may give under `env`. All others follow from the file and from project.yaml."""
OURS = {PREFIX + name.upper() for name in (*Settings.__struct_fields__, "project", "epoch") if name not in TUNABLE}

_IMAGE = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9][a-z0-9._-]*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""Of an object in Kubernetes: RFC 1123."""
_KEY = re.compile(r"(?!\.\.?$)[-._a-zA-Z0-9]{1,253}")
"""Of a secret's entry, which is a file's name where it is mounted."""
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?")
_UNITS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def check(file: YamlFile, cluster: Cluster, project: Project) -> None:
    """Raise ConfigurationError for the first mistake: file, line, place and remedy."""
    _check_urls(file, cluster)
    _check_image(file, cluster)
    _check_names(file, cluster)
    _check_kafka(file, cluster)
    _check_environment(file, cluster)
    _check_v3io(file, cluster)
    _check_functions(file, cluster, project)
    _check_project(project)


def _check_project(project: Project) -> None:
    if taken := sorted(JOBS.keys() & project.functions.keys()):
        raise ConfigurationError(
            f"{project.folder / 'project.yaml'}: the function {taken[0]!r} has the name of a job that `deploy` adds",
            remedy=f"give it another name; the jobs are {', '.join(JOBS)}",
        )


def number_of(quantity: str) -> Decimal:
    """Return the number that a Kubernetes quantity says. Raises ValueError.

    >>> [int(number_of(text)) for text in ("2", "1.5Gi", "3000m", "2e3")]
    [2, 1610612736, 3, 2000]
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(quantity)
    number, unit, exponent = Decimal(match[1]), match[2] or "", match[3]
    if unit.endswith("i"):
        return number * Decimal(1024) ** ("KMGTPE".index(unit[0]) + 1)
    return number.scaleb(int(exponent) if exponent else _UNITS.get(unit, 0))


def _check_urls(file: YamlFile, cluster: Cluster) -> None:
    for name in ("streams", "tables", "logs", "registry"):
        if has_password(getattr(cluster, name)):
            raise file.error((name,), "a password in a URL", BY_REFERENCE)
    _try(file, "streams", lambda: _read_streams(cluster.streams))
    _try(file, "tables", lambda: _read_tables(cluster.tables))
    for name in ("logs", "registry"):
        if url := getattr(cluster, name):
            _check_files(file, name, url, cluster)


def _try(file: YamlFile, name: str, read: Callable[[], object]) -> None:
    try:
        read()
    except ConfigurationError as error:
        raise file.error((name,), str(error), error.remedy) from None


def _read_streams(url: str) -> None:
    address = triggers.of(url)
    if isinstance(address, triggers.V3ioPath):
        _read_v3io(url)
        return
    for name in address.properties:
        if name.startswith(("security.", "sasl.", "ssl.")):
            raise ConfigurationError(
                f"the URL has the option {name}, which Nuclio's triggers don't read",
                remedy="add a line `kafka: {secret: …, user: …}`, which both get (docs/cluster.md)",
            )


def _read_tables(url: str) -> None:
    if url.startswith("v3io://"):
        _read_v3io(url)
    elif url.startswith(("redis://", "rediss://")):
        from modelstream.tables.redis_client import RedisAddress

        RedisAddress.of(url, {})
        if urlsplit(url).port == 0:
            raise ConfigurationError(f"port 0 in {url!r} is not a port", remedy="give a port from 1 to 65535")
    else:
        raise ConfigurationError(
            f"not every pod can reach the tables at {url!r}",
            remedy="give redis://host:port/db?prefix=… or v3io://container/path",
        )


def _read_v3io(url: str) -> None:
    from modelstream.clients.v3io import V3ioAddress

    V3ioAddress.of(url)


def _check_files(file: YamlFile, name: str, url: str, cluster: Cluster) -> None:
    """Raise for logs or models that are neither in a bucket nor in a folder on one of the volumes."""
    if url.startswith("s3://"):
        from modelstream.clients.s3 import Bucket

        try:
            Bucket(f"{url.rstrip('/')}/events")
        except ConfigurationError as error:
            raise file.error((name,), f"{url!r} is not a place in a bucket", error.remedy) from None
        return
    if not url.startswith(("file:///", "/")):
        raise file.error(
            (name,),
            f"neither a mounted folder nor a bucket: {url!r}",
            "give file:///folder, which is on one of the `volumes`, or s3://bucket/prefix",
        )
    folder = url.removeprefix("file://")
    if not any(Path(folder).is_relative_to(volume.path) for volume in cluster.volumes):
        raise file.error(
            (name,),
            f"{folder} is on none of the volumes, so it would disappear with its pod",
            f"add a line under `volumes`: - {{claim: NAME, path: {Path(folder).parent}}}",
        )


def _check_image(file: YamlFile, cluster: Cluster) -> None:
    if not _IMAGE.fullmatch(cluster.image):
        remedy = "write HOST[:PORT]/NAME:TAG; docs/cluster.md tells how it is built"
        raise file.error(("image",), f"not the name of an image: {cluster.image!r}", remedy)
    if not cluster.folder.startswith("/"):
        raise file.error(("folder",), "not an absolute path", "give the folder in the image, such as /modelstream")


def _check_names(file: YamlFile, cluster: Cluster) -> None:
    """Check names of objects in Kubernetes, and of what secrets hold."""
    names: list[tuple[Place, str]] = [
        (("secrets", name, "secret"), one.secret) for name, one in cluster.secrets.items()
    ]
    names += [(("volumes", index, "claim"), volume.claim) for index, volume in enumerate(cluster.volumes)]
    keys: list[tuple[Place, str]] = [(("secrets", name, "key"), one.key) for name, one in cluster.secrets.items()]
    if (login := cluster.kafka) and login.secret:
        names.append((("kafka", "secret"), login.secret))
        files = {"password_file": login.password_file, "ca_file": login.ca_file}
        keys += [(("kafka", name), value) for name, value in files.items() if value]
    for place, name in names:
        if not _NAME.fullmatch(name):
            remedy = "use small letters, digits, - and . as Kubernetes does"
            raise file.error(place, f"not a name that Kubernetes allows: {name!r}", remedy)
    for place, key in keys:
        if not _KEY.fullmatch(key):
            remedy = "give a key of the secret, without a folder: letters, digits, - _ and ."
            raise file.error(place, f"not a key that a secret can have: {key!r}", remedy)
    for index, volume in enumerate(cluster.volumes):
        if not volume.path.startswith("/"):
            raise file.error(("volumes", index, "path"), "not an absolute path", "give a path such as /mnt/modelstream")


def _check_kafka(file: YamlFile, cluster: Cluster) -> None:
    login = cluster.kafka
    if not cluster.on_kafka:
        for name in ("kafka", "retention_hours"):
            if name in file.data:
                remedy = "remove the line; V3IO's own retention stands in the URL: ?retention_hours=N"
                raise file.error((name,), "the streams are not in Kafka", remedy)
    if login is None:
        return
    if login.mechanism not in kafka_login.MECHANISMS:
        remedy = suggestion(login.mechanism, kafka_login.MECHANISMS)
        raise file.error(("kafka", "mechanism"), f"unknown: {login.mechanism!r}", remedy)
    if not login.secret:
        remedy = f"give `secret: NAME`, or list {kafka_login.PASSWORD} under `project_secrets`"
        raise file.error(("kafka",), "no secret for the login", remedy)
    if bool(login.user) != bool(login.password_file):
        raise file.error(("kafka",), "a user and a password belong together", "give both `user` and `password_file`")
    if not (login.user or login.tls):
        raise file.error(
            ("kafka",), "`kafka:` gives neither a user nor TLS", "give `user` and `password_file`, or `tls: true`"
        )
    if login.ca_file and not login.tls:
        raise file.error(("kafka", "ca_file"), "certificates without TLS", "add `tls: true`, or remove `ca_file`")


def _check_environment(file: YamlFile, cluster: Cluster) -> None:
    ours = OURS | ({*cluster.kafka.variables(), kafka_login.PASSWORD} if cluster.kafka else set())
    all_of_env: list[tuple[Place, dict[str, str]]] = [(("env",), cluster.env)]
    all_of_env += [(("functions", name, "env"), size.env) for name, size in cluster.functions.items()]
    for place, env in all_of_env:
        for name, value in env.items():
            if is_secret(name) or has_password(value):
                raise file.error((*place, name), "a secret must not be in this file, which goes into git", BY_REFERENCE)
            if name in cluster.secrets:
                raise file.error((*place, name), "is also one of the `secrets`", "keep one of the two")
    for place in (
        *((*place, name) for place, env in all_of_env for name in env),
        *(("secrets", name) for name in cluster.secrets),
    ):
        if place[-1] in ours:
            remedy = "remove it: it follows from the other lines of this file and from project.yaml"
            raise file.error(place, "`deploy` sets this variable itself", remedy)


def _check_v3io(file: YamlFile, cluster: Cluster) -> None:
    url = cluster.v3io_api
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise file.error(
            ("v3io_api",), f"not an address: {url!r}", "write http://HOST:PORT, as in http://v3io-webapi:8081"
        )
    if not any(place.startswith("v3io:") for place in (cluster.streams, cluster.tables)):
        return
    if "V3IO_ACCESS_KEY" not in cluster.secrets:
        raise file.error(
            ("secrets",),
            "no access key for V3IO",
            "make a secret of one (docs/cluster.md), and add a line V3IO_ACCESS_KEY: {secret: …, key: …}",
        )
    if "V3IO_API" not in cluster.env:
        remedy = "add a line V3IO_API: http://v3io-webapi:8081, as pods reach it"
        raise file.error(("env",), "the functions get no address for V3IO's web API", remedy)


def _check_functions(file: YamlFile, cluster: Cluster, project: Project) -> None:
    shards = project.params.shards
    for name, size in cluster.functions.items():
        place: Place = ("functions", name)
        if name not in project.functions:
            raise file.error(place, "no such function", suggestion(name, project.functions))
        for field, number in (("replicas", size.replicas), ("workers", size.workers)):
            if number < 1:
                raise file.error((*place, field), f"must be above 0, not {number}", "give a number of 1 or more")
        serves = project.functions[name].kind == "serving"
        if size.http_workers < 0 or (size.http_workers != Size().http_workers and not serves):
            problem = f"{name} answers no requests by HTTP" if not serves else f"can't be {size.http_workers}"
            remedy = "give 0 or more" if serves else f"only the function {project.server} has it: leave it out here"
            raise file.error((*place, "http_workers"), problem, remedy)
        if size.replicas * size.workers > shards:
            raise file.error(
                place,
                f"{size.replicas} replicas × {size.workers} workers are more than the {shards} shards: some "
                "would have nothing to do",
                f"let their product be at most {shards}, the number of shards in project.yaml",
            )
        for resource in ("cpu", "memory"):
            _check_resource(file, place, size, resource)


def _check_resource(file: YamlFile, place: Place, size: Size, resource: str) -> None:
    """Check what a pod requests, and that its limit is not lower."""
    found = {}
    for name in (resource, f"{resource}_limit"):
        if quantity := getattr(size, name):
            try:
                found[name] = number_of(quantity)
            except ValueError:
                found[name] = Decimal(0)
            if found[name] <= 0:
                remedy = "write cores as 2 or 500m, memory as 512Mi or 2Gi"
                raise file.error((*place, name), f"not a quantity: {quantity!r}", remedy)
    if len(found) == 2 and found[resource] > found[f"{resource}_limit"]:
        problem = f"{getattr(size, resource)} is above the limit, {getattr(size, f'{resource}_limit')}"
        raise file.error((*place, resource), problem, f"raise {resource}_limit, or ask for less")
