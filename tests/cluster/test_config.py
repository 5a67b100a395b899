"""A cluster's file: both that are shipped are right, and mistakes are told with their line and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from modelstream.cluster import functions, triggers
from modelstream.cluster.file import load_cluster
from modelstream.errors import ConfigurationError
from modelstream.project import load_project
from modelstream.streams.kafka import KafkaStreams
from modelstream.streams.kafka_address import KafkaAddress, variable_of
from modelstream.tables import v3io_frames

ROOT = Path(__file__).parents[2]
PROJECT = load_project(ROOT / "project.yaml")
FILES = {name: ROOT / "clusters" / f"{name}.yaml" for name in ("kafka", "v3io")}


@pytest.mark.parametrize("name", FILES)
def test_shipped_file_is_right(name: str) -> None:
    cluster = load_cluster(FILES[name], PROJECT)
    assert cluster.streams.startswith(f"{name}://")
    assert set(cluster.functions) == set(PROJECT.chain.consumers)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("kafka", "streams: kafka://", "streams: kafak://", "streams: 'kafak://kafka-bootstrap"),
        ("kafka", ".local:9092/churn", ".local/churn", "is not the address of a Kafka broker (write kafka://HOST:PORT"),
        ("kafka", ":9092/churn", ":9092", "has no prefix for its topics"),
        ("kafka", "tables: redis://", "tables: redis://:pw@", "line 7, tables: a password in a URL (keep it in a Kub"),
        ("kafka", "tables: redis://redis-master", "tables: sqlite://x", "not every pod can reach the tables"),
        ("kafka", "env: {}", "env: {REDIS_PASSWORD: x}", "env.REDIS_PASSWORD: a secret must not be in this file"),
        ("kafka", "logs: file:///mnt/modelstream", "logs: file:///data", "/data is on none of the volumes"),
        ("kafka", "env: {}", "env: {}\nregistry: models", "registry: neither a mounted folder nor a bucket: 'models'"),
        ("kafka", "env: {}", "env: {}\nregistry: /models", "/models is on none of the volumes"),
        ("kafka", "env: {}", "env: {}\nregistry: s3://a:b@c/d", "registry: a password in a URL (keep it in a Kub"),
        ("kafka", "image: registry", "image: https://registry", "not the name of an image"),
        ("kafka", "  event-handler:", "  event-handle:", "no such function (did you mean 'event-handler'?"),
        (
            "kafka",
            "{replicas: 1, workers: 2",
            "{replicas: 3, workers: 3",
            "3 replicas × 3 workers are more than the 8 shards",
        ),
        ("kafka", "{replicas: 1, workers: 2", "{replicas: 0, workers: 2", "replicas: must be above 0, not 0"),
        ("kafka", "{replicas: 1, workers: 2", "{http_workers: 2, workers: 2", "answers no requests by HTTP"),
        (
            "kafka",
            "  model-server: {",
            "  model-server: {http_workers: -1, ",
            "http_workers: can't be -1 (give 0 or more",
        ),
        ("kafka", "  event-handler: {replicas", "  event-handler: {replica", "unknown name (did you mean 'replicas'?"),
        ("v3io", "  V3IO_ACCESS_KEY: {", "  OTHER: {", "secrets: no access key for V3IO (make a secret of one"),
        ("v3io", "streams: v3io://projects", "streams: v3io:///projects", "names no container"),
        ("kafka", ".local:9092/churn", ".local:99999/churn", "must be a number from 1 to 65535"),
        ("kafka", "streams: kafka://", "streams: kafka://[", "line 6, streams: "),
        ("kafka", ":9092/churn", ":9092/a/b", "'a/b' can't be the prefix of topics"),
        (
            "kafka",
            ":9092/churn",
            ":9092/churn?sasl.username=me",
            "which Nuclio's triggers don't read (add a line `kafka:",
        ),
        ("kafka", "tables: redis://", "tables: redis://[", "is not the URL of a Redis server"),
        ("kafka", "6379/0?prefix", "0/0?prefix", "port 0 in"),
        ("kafka", "6379/0?prefix", "6379/0?prefx", "redis:// tables have no option 'prefx'"),
        ("kafka", "logs: file:///mnt/modelstream ", "logs: s3:// ", "logs: 's3://' is not a place in a bucket"),
        ("kafka", "users: 2000", "train: 2000", "generator.train: unknown name"),
        ("kafka", "users: 2000", "users: many", "generator.users: expected int"),
        ("kafka", "users: 2000", "users: 0", "generator.users: expected int >= 1"),
        ("kafka", "env: {}", "env: {}\nepoch: -1", "epoch: expected int >= 0"),
        ("kafka", "env: {}", "env: {}\nretention_hours: 0", "retention_hours: expected int >= 1"),
        (
            "kafka",
            "env: {}",
            "env: {MODELSTREAM_READS: x}",
            "env.MODELSTREAM_READS: `deploy` sets this variable itself",
        ),
        (
            "kafka",
            "secrets:",
            "secrets:\n  A: {secret: My_Secret, key: a}",
            "secrets.A.secret: not a name that Kubernetes allows",
        ),
        (
            "kafka",
            "secrets:",
            "secrets:\n  A: {secret: a, key: b/c}",
            "secrets.A.key: not a key that a secret can have",
        ),
        ("kafka", "env: {}", "kafka: {secret: a, tls: true, mechanism: SCRAM}", "mechanism: unknown: 'SCRAM'"),
        ("kafka", "env: {}", "kafka: {secret: a, user: b}", "a user and a password belong together"),
        ("kafka", "env: {}", "kafka: {secret: a}", "neither a user nor TLS"),
        (
            "kafka",
            "cpu: 500m, memory: 1Gi",
            "cpu: 500m, memory: lots",
            "memory: not a quantity: 'lots' (write cores as",
        ),
        ("kafka", "cpu: 500m, memory: 1Gi", "cpu: 500m, memory: 3000Mi", "memory: 3000Mi is above the limit, 2Gi"),
        ("kafka", "cpu: 500m, memory: 1Gi", "cpu: 0, memory: 1Gi", "cpu: expected str, got int"),
        ("v3io", "  V3IO_API: http:", "  OTHER: http:", "env: the functions get no address for V3IO's web API"),
        ("v3io", "v3io_api: http://v3io-webapi:8081 ", "v3io_api: v3io-webapi:8081 ", "v3io_api: not an address"),
        ("v3io", "v3io_api:", "retention_hours: 5\nv3io_api:", "retention_hours: the streams are not in Kafka"),
        ("v3io", "streams: v3io://projects/", "streams: v3io://pro jects/", "no container in the URL"),
    ],
)
def test_mistake_is_named_with_its_remedy(tmp_path: Path, file: str, old: str, new: str, expected: str) -> None:
    text = FILES[file].read_text()
    assert text.count(old) == 1
    path = tmp_path / "cluster.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError) as raised:
        load_cluster(path, PROJECT)
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
    cluster = load_cluster(path, PROJECT)
    assert cluster.registry_url() == expected
    for name in ("model-server", "training", "promote"):
        assert functions.environment(PROJECT, cluster, name)["MODELSTREAM_REGISTRY"] == expected


def written(tmp_path: Path, old: str, new: str) -> Path:
    """Return the shipped file for Kafka with another text."""
    text = FILES["kafka"].read_text()
    assert text.count(old) == 1
    path = tmp_path / "cluster.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_path_of_a_key_is_no_secret(tmp_path: Path) -> None:
    variable = "MODELSTREAM_KAFKA_SSL_KEY_LOCATION"
    path = written(tmp_path, "env: {}", f"env: {{{variable}: /etc/modelstream/kafka/user.key}}")
    assert load_cluster(path, PROJECT).env == {variable: "/etc/modelstream/kafka/user.key"}


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ("tls: true", {"SECURITY_PROTOCOL": "SSL"}),
        (
            "user: me, password_file: p, mechanism: PLAIN",
            {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "me"},
        ),
    ],
)
def test_login_to_kafka_is_what_the_client_reads(tmp_path: Path, login: str, expected: dict[str, str]) -> None:
    cluster = load_cluster(written(tmp_path, "env: {}", f"kafka: {{secret: a, {login}}}"), PROJECT)
    environment = functions.environment(PROJECT, cluster, "stream-to-features")
    address = KafkaAddress.of(cluster.streams, environment)
    assert {variable_of(name): value for name, value in address.properties.items()} == {
        f"MODELSTREAM_KAFKA_{name}": value for name, value in expected.items()
    }


def test_variable_of_the_login_is_refused_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path, "env: {}", "env: {MODELSTREAM_KAFKA_SASL_USERNAME: x}\nkafka: {secret: a, tls: true}")
    assert load_cluster(path, PROJECT).env
    path.write_text(path.read_text().replace("tls: true}", "user: a, password_file: b}"))
    with pytest.raises(ConfigurationError, match="MODELSTREAM_KAFKA_SASL_USERNAME: `deploy` sets this variable itself"):
        load_cluster(path, PROJECT)


@pytest.mark.parametrize("name", ["env", "secrets", "generator", "functions", "volumes"])
def test_entry_that_names_nothing_counts_as_none(tmp_path: Path, name: str) -> None:
    lines = ["streams: kafka://a:1/b", "tables: redis://a", "logs: s3://bucket/b", "image: a:1"]
    path = tmp_path / "cluster.yaml"
    path.write_text("\n".join(lines))
    without = load_cluster(path, PROJECT)
    path.write_text("\n".join([*lines, f"{name}:"]))
    assert load_cluster(path, PROJECT) == without


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_empty_file_is_told_with_lines_that_such_files_have(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="is empty") as raised:
        load_cluster(path, PROJECT)
    assert "clusters/kafka.yaml" in raised.value.remedy


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml.*No such file"):
        load_cluster(tmp_path / "nowhere.yaml", PROJECT)


@pytest.mark.parametrize("epoch", [0, 3])
def test_triggers_read_the_topics_that_functions_write(epoch: int) -> None:
    url = "kafka://one:9092,two:9093/mine"
    read, streams = triggers.of(url), KafkaStreams(url)
    assert isinstance(read, KafkaAddress)
    assert read.servers == "one:9092,two:9093"
    assert read.topic("incoming-events", epoch) == streams.address.topic("incoming-events", epoch)
    assert read.group("event-handler") == streams.address.group("event-handler")


def test_generator_on_v3io_loads_by_frames() -> None:
    cluster = load_cluster(FILES["v3io"], PROJECT)
    assert functions.environment(PROJECT, cluster, "data-generator")[v3io_frames.FRAMESD] == "http://framesd:8080"
    assert v3io_frames.FRAMESD not in functions.environment(
        PROJECT, load_cluster(FILES["kafka"], PROJECT), "data-generator"
    )


def test_functions_come_from_the_first_to_the_last() -> None:
    assert PROJECT.chain.consumers == ("event-handler", "stream-to-features", "model-server", "inference-logger")
    assert PROJECT.chain.source == "data-generator"


def test_importing_the_commands_imports_no_client_and_no_mlrun() -> None:
    heavy = {"mlrun", "kfp", "nuclio", "confluent_kafka", "redis", "v3io", "v3io_frames", "boto3", "obstore", "pandas"}
    code = f"import sys, modelstream.commands.deploy, modelstream.cluster.jobs; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_function_with_the_name_of_a_job_of_deploy_is_refused() -> None:
    named = {"promote" if name == "training" else name: one for name, one in PROJECT.functions.items()}
    project = msgspec.structs.replace(PROJECT, functions=named)
    with pytest.raises(ConfigurationError, match="the function 'promote' has the name of a job that `deploy` adds"):
        load_cluster(FILES["kafka"], project)
