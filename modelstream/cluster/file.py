"""Reads and checks cluster files; every mistake is reported with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelstream.base.yamlfile import YamlFile
from modelstream.cluster.config import Cluster, Generator, Secret, Size, Volume
from modelstream.cluster.config_check import check
from modelstream.cluster.kafka_login import KafkaLogin
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
    cluster = file.convert(file.data, Cluster)
    check(file, cluster, project)
    return cluster


def _drop_empty(data: dict[str, Any]) -> None:
    """Drop entries without a value, such as `env:`, as if they weren't there."""
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
