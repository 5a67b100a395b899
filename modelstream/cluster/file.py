"""Reads and checks cluster files; every mistake is reported with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from modelstream.base.yamlfile import YamlFile, suggestion
from modelstream.cluster import kafka_login
from modelstream.cluster.config import Cluster, Generator, Secret, Size, Volume
from modelstream.cluster.config_check import check
from modelstream.cluster.kafka_login import KafkaLogin
from modelstream.cluster.project_secrets import KNOWN, SECRET
from modelstream.errors import ConfigurationError
from modelstream.project import Project


def load_cluster(path: str | Path, project: Project) -> Cluster:
    """Return what a cluster's file says for a project. Raises ConfigurationError: file, line, place and remedy."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        remedy = "give the path of a cluster's file: --config clusters/kafka.yaml, or a copy of it"
        raise ConfigurationError(f"{path}: {error.strerror or error}", remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8: {error}", remedy="save the file as UTF-8") from None
    if not "".join(line.partition("#")[0] for line in text.splitlines()).strip():
        raise ConfigurationError(f"{path} is empty", remedy="begin with a copy of clusters/kafka.yaml")
    file = YamlFile(text, str(path))
    _drop_empty(file.data)
    _check_parts(file)
    cluster = _with_project_secrets(file, file.convert(file.data, Cluster), project)
    check(file, cluster, project)
    return cluster


def _drop_empty(data: dict[str, Any]) -> None:
    """Drop entries without a value, such as `env:`, as if they weren't there."""
    for name in ("kafka", "env", "secrets", "project_secrets", "volumes", "functions", "generator"):
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


def _with_project_secrets(file: YamlFile, cluster: Cluster, project: Project) -> Cluster:
    """Return the cluster with references to MLRun's secret of the project, for each of `project_secrets`."""
    secret = SECRET.format(project=project.name)
    references = dict(cluster.secrets)
    login = cluster.kafka
    for index, name in enumerate(cluster.project_secrets):
        place = ("project_secrets", index)
        if name not in KNOWN:
            raise file.error(place, f"not a secret of Kafka, Redis, S3 or V3IO: {name!r}", suggestion(name, KNOWN))
        if name != kafka_login.PASSWORD:
            if name in cluster.secrets:
                raise file.error(place, f"{name} is also one of the `secrets`", "keep one of the two")
            references[name] = Secret(secret, name)
            continue
        if login is None or not login.user:
            raise file.error(place, "a password of Kafka without a user", "add a line `kafka: {user: …}`")
        if login.secret or login.password_file or login.ca_file:
            raise file.error(place, "`kafka:` names a secret, or a file in one", "keep all in one of the two")
        login = msgspec.structs.replace(login, secret=secret, password_file=name)
    return msgspec.structs.replace(cluster, secrets=references, kafka=login)
