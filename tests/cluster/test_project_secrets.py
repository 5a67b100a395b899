"""Which variables of the environment MLRun gets as secrets of the project, and where functions find them."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from modelstream.cluster import kafka_login, plan, project_secrets
from modelstream.cluster.config import Cluster, Secret
from modelstream.cluster.file import load_cluster
from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.project import load_project
from tests.cluster.deploying import ROOT, asked, load_what_is_written, without_placeholders
from tests.cluster.mlrun_api import StandIn

pytestmark = pytest.mark.xdist_group("mlrun")

PROJECT = load_project(ROOT / "project.yaml")
SECRET = "mlrun-project-secrets-modelstream"


def read(tmp_path: Path, *lines: str, file: str = "kafka", old: str = "env:", new: str = "env:") -> Cluster:
    path = tmp_path / "cluster.yaml"
    text = (ROOT / "clusters" / f"{file}.yaml").read_text()
    assert old in text
    path.write_text("\n".join([text.replace(old, new), *lines]))
    return load_cluster(path, PROJECT)


def test_listed_secrets_are_references_to_mlruns_own_secret(tmp_path: Path) -> None:
    names = ", ".join(project_secrets.KNOWN)
    cluster = read(tmp_path, f"project_secrets: [{names}]", "kafka: {user: me}")
    others = set(project_secrets.KNOWN) - {kafka_login.PASSWORD}
    assert cluster.secrets == {name: Secret(SECRET, name) for name in others}
    login = cluster.kafka
    assert login is not None
    assert (login.secret, login.password_file, login.files()) == (
        SECRET,
        kafka_login.PASSWORD,
        [kafka_login.PASSWORD],
    )


def test_key_of_v3io_may_be_one_of_them(tmp_path: Path) -> None:
    old = "secrets:\n  V3IO_ACCESS_KEY: {secret: modelstream-v3io, key: accessKey}"
    cluster = read(tmp_path, file="v3io", old=old, new="project_secrets: [V3IO_ACCESS_KEY]")
    assert cluster.secrets == {"V3IO_ACCESS_KEY": Secret(SECRET, "V3IO_ACCESS_KEY")}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["project_secrets: [REDIS_PASSWORD]"], "project_secrets.0: not a secret of Kafka, Redis, S3 or V3IO"),
        ([f"project_secrets: [{kafka_login.PASSWORD}]"], "a password of Kafka without a user"),
        ([f"project_secrets: [{kafka_login.PASSWORD}]", "kafka: {user: a, tls: true, ca_file: b}"], "names a secret"),
        (["kafka: {user: a}"], "kafka: no secret for the login"),
    ],
)
def test_mistake_is_told_with_its_place(tmp_path: Path, lines: list[str], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as raised:
        read(tmp_path, *lines)
    assert raised.value.remedy


def test_secret_in_two_places_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="V3IO_ACCESS_KEY is also one of the `secrets`"):
        read(tmp_path, "project_secrets: [V3IO_ACCESS_KEY]", file="v3io")


def test_no_error_shows_a_value() -> None:
    class Refuses:
        def create_project_secrets(self, *asked: Any) -> None:
            raise RuntimeError(f"422: {asked}")

    with pytest.raises(ModelstreamError, match="did not take the secrets AWS_SECRET_ACCESS_KEY") as raised:
        project_secrets.store(Refuses(), "p", {"AWS_SECRET_ACCESS_KEY": "hunter2"})
    assert "hunter2" not in str(raised.value)
    assert raised.value.__context__ is None and raised.value.__cause__ is None


def with_project_secrets(tmp_path: Path) -> Path:
    listed = "project_secrets: [MODELSTREAM_KAFKA_SASL_PASSWORD, AWS_SECRET_ACCESS_KEY]\nkafka: {user: me, tls: true}"
    return without_placeholders(tmp_path, **{"env: {}": f"{listed}\nenv: {{}}"})


def test_secrets_go_from_the_environment_to_mlrun_and_by_reference_to_functions(
    written: dict[str, Any],
    api: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    load_what_is_written(written, monkeypatch)
    values = {"MODELSTREAM_KAFKA_SASL_PASSWORD": "hunter-k", "AWS_SECRET_ACCESS_KEY": "hunter-s"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    file = with_project_secrets(tmp_path)
    asked(file, output=tmp_path)
    assert api.project_secrets == {}, "only when asked for"
    asked(file, output=tmp_path, secrets_from_env=True)
    assert api.project_secrets == values
    assert "hunter" not in json.dumps([api.project, api.functions, api.stored, api.runs, api.schedules])
    assert "hunter" not in "".join(capfd.readouterr())
    for name in ("event-handler", "trim"):
        spec = api.stored[name]["spec"]
        found = plan.variables(spec["env"])
        for variable in values:
            assert found[variable] == f"from the secret mlrun-project-secrets-modelstream, key {variable}"
        (mounted,) = (each["secret"] for each in spec["volumes"] if "secret" in each)
        assert mounted["secretName"] == "mlrun-project-secrets-modelstream"
        assert [item["key"] for item in mounted["items"]] == ["MODELSTREAM_KAFKA_SASL_PASSWORD"], "and no other"
    annotations = api.stored["event-handler"]["spec"]["base_spec"]["metadata"]["annotations"]
    assert annotations["nuclio.io/kafka-sasl-password"] == "MODELSTREAM_KAFKA_SASL_PASSWORD"


def test_secret_is_not_shown_when_mlrun_refuses_it(
    written: dict[str, Any], api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_what_is_written(written, monkeypatch)
    for name in ("MODELSTREAM_KAFKA_SASL_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hunter2")
    api.failing["secrets"] = "not allowed"
    with pytest.raises(ModelstreamError, match="did not take the secrets MODELSTREAM_KAFKA_SASL_PASSWORD") as raised:
        asked(with_project_secrets(tmp_path), output=tmp_path, secrets_from_env=True)
    told = "".join(traceback.format_exception(raised.value))
    assert "hunter2" not in told and "***" in str(raised.value)
    assert api.steps == [], "nothing was deployed"


def test_secrets_that_are_not_there_are_told_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.delenv("MODELSTREAM_KAFKA_SASL_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError, match=r"not set in the environment: MODELSTREAM_KAFKA_SASL_PASSWORD$"):
        asked(with_project_secrets(tmp_path), output=tmp_path, secrets_from_env=True)
    with pytest.raises(ConfigurationError, match="lists no `project_secrets`"):
        asked(without_placeholders(tmp_path), output=tmp_path, secrets_from_env=True)
