"""Models in a bucket: the commands, a training, and a pipeline that runs, its store gone at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelstream.registry.registry import Registry
from servers.s3 import BUCKET, S3Server
from tests.end_to_end.test_promotion import answered, model_status, pipeline, wait_for
from tests.end_to_end.test_serve import event, serving, until
from tests.model_files import CHURN, SHIPPED, directory
from tests.required import require

PLACE = f"s3://{BUCKET}/churn/models"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """An S3 server with a registry's place; closing it ends the server."""
    require(S3Server)
    with ExitStack() as running:
        server = running.enter_context(S3Server())
        for name, value in (server.environment | {"MODELSTREAM_REGISTRY": PLACE}).items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def registry(store: ExitStack) -> Registry:
    return Registry(PLACE, CHURN.model_name, CHURN.features, shipped=SHIPPED)


def test_running_server_takes_what_is_promoted_and_goes_on_without_the_store(
    tmp_path: Path, store: ExitStack, registry: Registry
) -> None:
    assert [registry.register(directory) for _ in range(2)] == ["2", "3"]
    folder = tmp_path / "data"
    registry.promote("2")
    with serving(folder) as service:
        until(lambda: service.ask(f"/v2/models/{CHURN.model_name}/ready")[0] == 200, 90)
        assert answered(service) == "2", "what it begins with"
        assert "3 serves from now on, instead of 2" in pipeline("models", "promote", "3", "--force").stdout
        wait_for(service, folder, "3")
        assert "2 serves again, instead of 3" in pipeline("models", "rollback").stdout
        wait_for(service, folder, "2")
        # Not the file that was promoted.
        registry.promote("3")
        wait_for(service, folder, "3")
        alias = registry.alias()
        assert alias is not None
        registry._change(lambda _: type(alias)(current=type(alias.current)("2", "0" * 64)))
        until(lambda: all(one["refused"] for one in model_status(folder)["serving"].values()), 10)
        refused = [one["refused"] for one in model_status(folder)["serving"].values()]
        assert "sha256 is" in refused[0]
        assert answered(service) == "3"
        # An outage.
        registry.promote("3")
        until(lambda: not any(one["refused"] for one in model_status(folder)["serving"].values()), 10)
        store.close()
        until(lambda: all(one["refused"] for one in json.loads((folder / "served.json").read_text()).values()), 20)
        assert "can't be read at the moment" in (folder / "logs" / "model-server.log").read_text()
        assert answered(service) == "3"
        for kind, fields in (("registration", {}), ("purchase", {"amount": 50}), ("bet", {"bet_amount": 1})):
            assert service.ask("/events", event(kind, 0, user_id="u", **fields))[0] == 202
        until(lambda: answered(service) == "3", 5)
        service.stop()


def test_training_registers_and_promotes_and_the_next_run_serves_it(tmp_path: Path, registry: Registry) -> None:
    options = ("--users", "150", "--events-per-user", "60", "--quiet", "--json", "--data", str(tmp_path / "data"))
    assert json.loads(pipeline("run", *options, "--end", "2026-01-01 00:00:00").stdout)["model_version"] == "1"
    trained = pipeline(
        "train", "--candidates", "logistic-regression", "--promote", "--force", "--data", str(tmp_path / "data")
    ).stdout
    assert f"{PLACE}/churn/2/report.html" in "".join(trained.split())
    assert "churn 2 serves from now on" in " ".join(trained.split())
    listed = json.loads(pipeline("models", "list", "--json").stdout)
    assert [(one["version"], one["current"]) for one in listed] == [("1", False), ("2", True)]
    assert listed[1]["folder"] == f"{PLACE}/churn/2"
    shown = pipeline("models", "show", "2").stdout
    assert f"{PLACE}/churn/2" in shown
    assert "logistic" in shown
    summary = json.loads(pipeline("run", *options, "--end", "2026-01-01 00:00:00", "--fresh").stdout)
    assert summary["model_version"] == "2"
