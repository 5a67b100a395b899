"""The model server's endpoint in MLRun, against a stand-in for MLRun's API that reads bodies with MLRun's schemas."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import mlrun
import pytest
from mlrun.datastore.datastore_profile import (
    DatastoreProfile2Json,
    DatastoreProfileKafkaStream,
    DatastoreProfileV3io,
)

from modelstream.errors import ConfigurationError
from modelstream.stages.endpoint import Endpoint, api, monitoring_stream
from modelstream.streams.v3io import V3ioStreams
from tests.cluster.mlrun_models import ModelsStandIn

ENDPOINT = Endpoint("modelstream", "model-server", "churn", ("age", "bets"), ("leaves", "probability"), "Model")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelsStandIn]:
    monkeypatch.setenv("MLRUN_LOG_LEVEL", "ERROR")
    with ModelsStandIn() as found:
        monkeypatch.setenv("MLRUN_DBPATH", found.url)
        before = mlrun.mlconf.dbpath
        mlrun.mlconf.dbpath = found.url
        mlrun.db.get_run_db(found.url, force_reconnect=True)
        monkeypatch.setattr(mlrun.datastore.store_manager, "_db", None)  # it would keep that of an earlier test
        mlrun.run.global_context.set(None)  # and so would a run
        yield found
        mlrun.mlconf.dbpath = before
        assert not found.unknown


def profile(server: ModelsStandIn, monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    """Let the project have a stream profile, as a function's pod finds it."""
    server.profiles[given.name] = DatastoreProfile2Json.get_json_public(given)
    private = DatastoreProfile2Json.get_json_private(given)
    secret = given.generate_secret_key(given.name, "modelstream")
    monkeypatch.setenv(mlrun.mlconf.secret_stores.kubernetes.env_variable_prefix + secret.upper(), private)
    monkeypatch.setenv(secret, private)
    monkeypatch.setenv("STREAM_PROFILE_NAME", given.name)


def test_endpoint_says_what_the_version_is(server: ModelsStandIn) -> None:
    artifact = {"kind": "model", "metadata": {"key": "churn"}, "spec": {"parameters": {"sha256": "ab"}}}
    server.artifacts["churn", "v3"] = artifact
    uid = ENDPOINT.registered(api(), "3", "ab")
    made = server.endpoints[uid]
    assert made.metadata.labels == {"version": "3"}
    assert (made.metadata.name, made.spec.function_name, made.spec.model_class) == ("churn", "model-server", "Model")
    assert made.spec.model_path == "store://models/modelstream/churn:v3"
    assert (made.spec.feature_names, made.spec.label_names) == (["age", "bets"], ["leaves", "probability"])
    assert made.status.monitoring_mode == "enabled"


def test_a_version_has_one_endpoint_and_another_version_another(server: ModelsStandIn) -> None:
    first = ENDPOINT.registered(api(), "3")
    assert ENDPOINT.registered(api(), "3") == first == ENDPOINT.find(api(), "3")
    second = ENDPOINT.registered(api(), "4")
    assert second != first
    wider = Endpoint("modelstream", "model-server", "churn", ("age", "bets", "wins"), ("leaves",))
    assert wider.registered(api(), "4") not in (first, second)
    assert len(server.endpoints) == 3


@pytest.mark.parametrize("sha256", ["another", None])
def test_artifact_of_another_file_is_not_named(server: ModelsStandIn, sha256: str | None) -> None:
    if sha256:
        spec = {"parameters": {"sha256": sha256}}
        server.artifacts["churn", "v3"] = {"kind": "model", "metadata": {"key": "churn"}, "spec": spec}
    assert server.endpoints[ENDPOINT.registered(api(), "3", "ab")].spec.model_path == ""


class Racing:
    """MLRun's API, as far as endpoints go, for workers that all ask before any has made one."""

    def __init__(self, workers: int) -> None:
        self.made: dict[str, Any] = {}
        self.all_have_looked = threading.Barrier(workers)
        self.looked: set[int] = set()
        self.numbers = itertools.count()

    def list_model_endpoints(self, *_: Any, **__: Any) -> Any:
        if threading.get_ident() not in self.looked:
            self.looked.add(threading.get_ident())
            self.all_have_looked.wait(60)
            return SimpleNamespace(endpoints=[])
        return SimpleNamespace(endpoints=list(self.made.values()))

    def read_artifact(self, *_: Any, **__: Any) -> Any:
        raise mlrun.errors.MLRunNotFoundError("none")

    def create_model_endpoint(self, endpoint: Any, strategy: Any) -> Any:
        number = next(self.numbers)
        endpoint.metadata.uid, endpoint.metadata.created = f"{number:032x}", f"2026-01-01T00:00:{number:02}"
        self.made[endpoint.metadata.uid] = endpoint
        return endpoint

    def delete_model_endpoint(self, name: str, project: str, endpoint_id: str) -> None:
        del self.made[endpoint_id]


def test_workers_that_start_at_the_same_moment_share_an_endpoint() -> None:
    database = Racing(8)
    with ThreadPoolExecutor(8) as workers:
        found = list(workers.map(lambda _: ENDPOINT.registered(database, "3"), range(8)))
    assert set(found) == set(database.made)
    assert len(database.made) == 1


def test_kafka_stream_is_the_one_of_the_projects_profile(
    server: ModelsStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = DatastoreProfileKafkaStream(
        name="stream", brokers=["a:9092", "b:9092"], topics=[], sasl_user="me", sasl_pass="word"
    )
    profile(server, monkeypatch, given)
    streams, name = monitoring_stream("modelstream")
    assert streams.address.servers == "a:9092,b:9092"
    assert name == f"monitoring_stream_{mlrun.mlconf.system_id}_modelstream_v1"
    assert streams.address.properties == {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "word",
    }


def test_without_a_login_in_the_profile_the_functions_own_counts(
    server: ModelsStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSTREAM_KAFKA_SASL_USERNAME", "function")
    profile(server, monkeypatch, DatastoreProfileKafkaStream(name="stream", brokers="a:9092", topics=[]))
    streams, _ = monitoring_stream("modelstream")
    assert streams.address.properties == {"sasl.username": "function"}


def test_v3io_stream_is_the_one_of_the_project(server: ModelsStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V3IO_API", "http://127.0.0.1:1")
    monkeypatch.setenv("V3IO_ACCESS_KEY", "key")
    profile(server, monkeypatch, DatastoreProfileV3io(name="stream", v3io_access_key="key"))
    streams, name = monitoring_stream("modelstream")
    assert isinstance(streams, V3ioStreams)
    assert (streams._path(name), name) == ("modelstream/model-endpoints/stream-v1", "stream-v1")


def test_project_without_monitoring_is_told_what_to_do(server: ModelsStandIn) -> None:
    with pytest.raises(ConfigurationError, match="no monitoring stream for modelstream") as raised:
        monitoring_stream("modelstream")
    assert "enable_model_monitoring" in raised.value.remedy
    assert server.profiles == {}


def test_without_an_api_there_is_nobody_to_tell(server: ModelsStandIn) -> None:
    mlrun.mlconf.dbpath = ""
    with pytest.raises(ConfigurationError, match="MLRUN_DBPATH"):
        api()
