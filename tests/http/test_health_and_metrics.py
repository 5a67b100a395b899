"""`/healthz` and `/metrics` tell how the functions are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelstream.runner.state import FunctionState, PipelineState
from modelstream.stages.counters import Counters
from tests.http.serving import PRETTY, Client, serving


def function(committed_at: float = 900.0, **changes: Any) -> FunctionState:
    counters = Counters(rows_in=10, rows_out=9, dead_letters=1, repeated=2, commits=4, lookups=8, lookup_misses=7)
    counters.committed_at = committed_at
    counters.not_counted = {"too_late": 6}
    usual: dict[str, Any] = {"name": "event-handler", "state": "working", "restarts": 3, "lag": 5, "lag_since": 1000.0}
    return FunctionState(counters=counters, **(usual | changes))


def test_health_tells_a_reason_without_values_of_events(client: Client) -> None:
    held = function(held="KeyError: 'Jane'; at the row {…}", held_logged="KeyError")
    client.exporter.state = PipelineState(1000.0, (held,))
    status, answer = client.ask("GET", "/healthz")
    told = str(answer)
    assert (status, told.count("KeyError"), "Jane" in told) == (503, 2, False), told


def test_metrics_tell_of_functions_and_requests(client: Client) -> None:
    server = function(name="model-server", models=("2", "3"), refused="version 4 is refused")
    client.exporter.state = PipelineState(1000.0, (function(held="disk full"), server), {"supervisor": 123})
    client.ask("POST", "/events", PRETTY)
    client.ask("POST", "/events", b"{")
    client.ask("PUT", "/coffee", b"")
    status, text = client.ask("GET", "/metrics")
    assert status == 200
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    expected = {
        "rows_in_total": 10,
        "rows_out_total": 9,
        "dead_letters_total": 1,
        "repeated_total": 2,
        "restarts_total": 3,
        "commits_total": 4,
        "lookups_total": 8,
        "lookup_misses_total": 7,
        "lag_rows": 5,
        "held": 1,
        "last_commit_timestamp_seconds": 900.0,
    }
    for name, value in expected.items():
        assert found[f"modelstream_{name}", "event-handler"] == value
    assert found["modelstream_not_counted_total", "event-handler", "too_late"] == 6
    assert found["modelstream_model_refused", "event-handler"] == 0
    assert found["modelstream_model_refused", "model-server"] == 1
    assert [key for key in found if key[0] == "modelstream_model"] == [
        ("modelstream_model", version, "model-server") for version in ("2", "3")
    ]
    assert found["modelstream_resident_memory_bytes", "supervisor"] == 123
    assert found["modelstream_http_events_total",] == 1
    assert found["modelstream_http_requests_total", "/events", "202", "POST"] == 1
    assert found["modelstream_http_requests_total", "/events", "400", "POST"] == 1
    assert found["modelstream_http_requests_total", "404", "other", "other"] == 1


@pytest.mark.parametrize(
    ("now", "function_", "healthy"),
    [
        (1029.0, function(), True),  # rows wait, but not for long
        (1031.0, function(), False),
        (1031.0, function(committed_at=1002.0), True),
        (1031.0, function(lag=0), True),  # idle for long
        (1033.0, function(committed_at=1002.0), False),
    ],
)
def test_health_fails_when_messages_wait_and_nothing_is_committed(
    tmp_path: Path, now: float, function_: FunctionState, healthy: bool
) -> None:
    with serving(tmp_path, clock=lambda: now) as client:
        client.exporter.state = PipelineState(now, (function_,), {})
        status, answer = client.ask("GET", "/healthz")
    assert (status, answer["status"]) == ((200, "ok") if healthy else (503, "failing"))
    assert bool(answer["reasons"]) != healthy
    assert answer["functions"][0]["lag"] == function_.lag


def test_health_tells_which_model_serves_and_what_was_refused(tmp_path: Path) -> None:
    with serving(tmp_path, clock=lambda: 1000.0) as client:
        server = function(name="model-server", models=("2",), refused="version 4 is refused")
        client.exporter.state = PipelineState(1000.0, (function(), server), {})
        status, answer = client.ask("GET", "/healthz")
    assert status == 200
    assert (answer["functions"][1]["models"], answer["functions"][1]["refused"]) == (["2"], "version 4 is refused")
    assert "models" not in answer["functions"][0]


def test_health_fails_when_nobody_looks_at_the_functions(tmp_path: Path) -> None:
    with serving(tmp_path, clock=lambda: 1031.0) as client:
        client.exporter.state = PipelineState(1000.0, (function(lag=0),), {})
        status, answer = client.ask("GET", "/healthz")
    assert (status, "has not looked" in answer["reasons"][0]) == (503, True)


def test_health_fails_when_the_pipeline_is_about_to_end(client: Client) -> None:
    client.exporter.failure = "the folder was deleted"
    status, answer = client.ask("GET", "/healthz")
    assert (status, answer["status"], answer["reasons"]) == (503, "failing", ["the folder was deleted"])
