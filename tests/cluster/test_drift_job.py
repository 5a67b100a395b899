"""The drift report as a job of MLRun: what the run keeps, and the event that it raises on a breach."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlrun
import msgspec
import pytest

from modelstream.cluster import jobs
from modelstream.cluster.drift_job import APPLICATION, RESULT
from modelstream.commands.view import View
from modelstream.stages.endpoint import Endpoint, api
from modelstream.training.report.card import ModelCard
from tests.cluster.mlrun_models import ModelsStandIn
from tests.runner.folders import PROJECT
from tests.stages.test_endpoint import server
from tests.training.drift.test_drift import REFERENCE, own_card, registered, view
from tests.training.synthetic import USE_CASE, write_card

__all__ = ["own_card", "registered", "server", "view"]


class Context:
    """What MLRun's context is to the job."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.artifacts: dict[str, Any] = {}
        self.logger = logging.getLogger("job")

    def log_result(self, key: str, value: Any) -> None:
        self.results[key] = value

    def log_artifact(self, key: str, **details: Any) -> None:
        self.artifacts[key] = details


@pytest.fixture
def context(view: View, registered: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """The job's surroundings: a pod's environment, and a registry with one version."""
    environment = PROJECT.settings("event-handler", view.urls).environment()
    environment |= {"MODELSTREAM_PROJECT": str(PROJECT.folder / "project.yaml"), "MODELSTREAM_FUNCTION": "drift"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Context()


def register(version: str = "1") -> str:
    endpoint = Endpoint(PROJECT.name, "model-server", USE_CASE.model_name, USE_CASE.features, ())
    return endpoint.registered(api(), version)


def test_without_drift_there_are_results_and_no_event(context: Context, server: ModelsStandIn) -> None:
    register()
    jobs.drift(context, since="2020-01-01")
    assert context.results["verdict"] == "no drift"
    assert context.results["vectors"] == 1020
    assert {f"drift_{name}" for name in USE_CASE.features} <= context.results.keys()
    assert context.artifacts["drift-report"]["body"].startswith("<!doctype html>")
    assert server.events == []


def test_a_breach_raises_the_event_that_mlruns_own_drift_application_raises(
    context: Context, server: ModelsStandIn, registered: Path
) -> None:
    write_card(REFERENCE, registered)
    register("2")
    uid = register()
    jobs.drift(context, since="2020-01-01")
    assert context.results["verdict"] == "drift"
    ((name, event),) = server.events
    assert name == event.kind == "data-drift-detected"
    assert event.entity.ids == [f"{uid}.{APPLICATION}.result.{RESULT}"]
    assert (event.entity.project, event.entity.kind) == (PROJECT.name, "model-endpoint-result")
    assert event.value_dict["model_endpoint_id"] == uid
    assert event.value_dict["result_value"] >= 0.7
    assert event.value_dict["reasons"]


def test_possible_drift_is_a_suspicion(
    context: Context, server: ModelsStandIn, registered: Path, own_card: ModelCard
) -> None:
    facts = msgspec.structs.replace(own_card.data, dead_letter_share=-0.02)  # one letter is 2 points more than before
    write_card(msgspec.structs.replace(own_card, data=facts), registered)
    register()
    jobs.drift(context, since="2020-01-01")
    assert context.results["verdict"] == "possible drift"
    assert [name for name, _ in server.events] == ["data-drift-suspected"]


def test_where_no_event_can_be_raised_the_run_says_why(
    context: Context, server: ModelsStandIn, registered: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "job")
    write_card(REFERENCE, registered)
    jobs.drift(context, since="2020-01-01")
    assert "MLRun has no endpoint of version 1 yet" in caplog.text
    register()
    server.has_events = False
    jobs.drift(context, since="2020-01-01")
    assert "this MLRun has no alerts" in caplog.text
    mlrun.mlconf.dbpath = ""
    jobs.drift(context, since="2020-01-01")
    assert "this run has no MLRun API" in caplog.text
    assert context.results["verdict"] == "drift"
    assert server.events == []


def test_a_time_that_is_none_ends_the_run_with_what_to_do(context: Context) -> None:
    with pytest.raises(RuntimeError, match=r"since.*; .+"):
        jobs.drift(context, since="yesterday-ish")


def test_a_day_in_which_nothing_was_served_is_too_few_to_tell(context: Context) -> None:
    jobs.drift(context, since="2099-01-01")
    assert context.results["verdict"] == "too few to tell"
    assert context.artifacts == {}
