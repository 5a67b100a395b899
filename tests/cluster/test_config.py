"""A cluster's file: both that are shipped are right, and mistakes are told with their line and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelstream import project as projects
from modelstream.cluster import config, functions, places
from modelstream.errors import ConfigurationError
from modelstream.streams.kafka import KafkaStreams
from modelstream.tables import v3io_frames

ROOT = Path(__file__).parent.parent.parent
PROJECT = projects.load(ROOT / "project.yaml")
FILES = {name: ROOT / "clusters" / f"{name}.yaml" for name in ("kafka", "v3io")}


@pytest.mark.parametrize("name", FILES)
def test_shipped_file_is_right(name: str) -> None:
    cluster = config.load(FILES[name], PROJECT)
    assert cluster.streams.startswith(f"{name}://")
    assert set(cluster.functions) == set(functions.consumers(PROJECT))


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("kafka", "streams: kafka://", "streams: kafak://", "streams: 'kafak://kafka-bootstrap"),
        ("kafka", ".local:9092/churn", ".local/churn", "is no address of a Kafka broker (write kafka://HOST:PORT"),
        ("kafka", ":9092/churn", ":9092", "has no prefix for its topics"),
        ("kafka", "tables: redis://", "tables: redis://:pw@", "line 7, tables: a password in a URL (keep it in a Kub"),
        ("kafka", "tables: redis://redis-master", "tables: sqlite://x", "not tables that every pod reaches"),
        ("kafka", "env: {}", "env: {REDIS_PASSWORD: x}", "env.REDIS_PASSWORD: a secret in a file that goes into git"),
        ("kafka", "logs: file:///mnt/modelstream", "logs: file:///data", "/data is on none of the volumes"),
        ("kafka", "env: {}", "env: {}\nregistry: models", "registry: neither a mounted folder nor a bucket: 'models'"),
        ("kafka", "env: {}", "env: {}\nregistry: /models", "/models is on none of the volumes"),
        ("kafka", "env: {}", "env: {}\nregistry: s3://a:b@c/d", "registry: a password in a URL (keep it in a Kub"),
        ("kafka", "image: registry", "image: https://registry", "no name of an image"),
        ("kafka", "  event-handler:", "  event-handle:", "no such function (did you mean 'event-handler'?"),
        ("kafka", "{replicas: 1, workers: 2", "{replicas: 3, workers: 3", "3 replicas of 3 workers for 8 shards"),
        ("kafka", "{replicas: 1, workers: 2", "{replicas: 0, workers: 2", "replicas: 0 is not above 0"),
        ("kafka", "  event-handler: {replicas", "  event-handler: {replica", "unknown name (did you mean 'replicas'?"),
        ("v3io", "  V3IO_ACCESS_KEY: {", "  OTHER: {", "secrets: no access key for V3IO (make a secret of one"),
        ("v3io", "streams: v3io://projects", "streams: v3io:///projects", "names no container"),
    ],
)
def test_mistake_is_named_with_its_remedy(tmp_path: Path, file: str, old: str, new: str, expected: str) -> None:
    text = FILES[file].read_text()
    assert text.count(old) == 1
    path = tmp_path / "cluster.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError) as raised:
        config.load(path, PROJECT)
    shown = f"{raised.value} ({raised.value.remedy})"
    assert shown.startswith(str(path))
    assert expected in shown
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("logs", "registry", "expected"),
    [
        ("file:///mnt/modelstream", "", "file:///mnt/modelstream/models"),
        ("s3://bucket/churn", "", "s3://bucket/churn/models"),
        ("s3://bucket/churn/", "", "s3://bucket/churn/models"),
        ("file:///mnt/modelstream", "s3://bucket/models", "s3://bucket/models"),
        ("s3://bucket/churn", "file:///mnt/modelstream/models", "file:///mnt/modelstream/models"),
    ],
)
def test_models_are_beside_the_logs_unless_the_file_says_otherwise(
    tmp_path: Path, logs: str, registry: str, expected: str
) -> None:
    text = FILES["kafka"].read_text().replace("logs: file:///mnt/modelstream", f"logs: {logs}")
    path = tmp_path / "cluster.yaml"
    path.write_text(text + (f"registry: {registry}\n" if registry else ""))
    cluster = config.load(path, PROJECT)
    assert cluster.registry_url() == expected
    for name in ("model-server", "training", "promote"):
        assert functions.environment(PROJECT, cluster, name)["MODELSTREAM_REGISTRY"] == expected


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml.*No such file"):
        config.load(tmp_path / "nowhere.yaml", PROJECT)


@pytest.mark.parametrize("epoch", [0, 3])
def test_triggers_read_the_topics_that_functions_write(epoch: int) -> None:
    url = "kafka://one:9092,two:9093/mine"
    place, streams = places.of(url), KafkaStreams(url)
    assert isinstance(place, places.KafkaPlace)
    assert place.brokers == ("one:9092", "two:9093")
    assert place.topic("incoming-events", epoch) == streams.topic("incoming-events", epoch)
    assert place.group("event-handler") == streams.group("event-handler")


def test_generator_on_v3io_loads_by_frames() -> None:
    cluster = config.load(FILES["v3io"], PROJECT)
    assert functions.environment(PROJECT, cluster, "data-generator")[v3io_frames.FRAMESD] == "http://framesd:8080"
    assert v3io_frames.FRAMESD not in functions.environment(
        PROJECT, config.load(FILES["kafka"], PROJECT), "data-generator"
    )


def test_functions_come_from_the_first_to_the_last() -> None:
    assert functions.consumers(PROJECT) == ("event-handler", "stream-to-features", "model-server", "inference-logger")
    assert functions.source(PROJECT) == "data-generator"


def test_importing_the_commands_imports_no_client_and_no_mlrun() -> None:
    heavy = {"mlrun", "kfp", "nuclio", "confluent_kafka", "redis", "v3io", "v3io_frames", "boto3", "obstore", "pandas"}
    code = f"import sys, modelstream.cluster.commands, modelstream.cluster.jobs; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
