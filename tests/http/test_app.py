"""Paths and methods that don't exist, and the page at `GET /`."""

from __future__ import annotations

import json

import numpy as np

from modelstream.events.parsing import LineParser
from modelstream.features.engine import FeatureEngine, no_lookup, no_rows
from modelstream.http.about import example_events
from tests.http.serving import CHURN, Client


def test_unknown_paths_and_methods_are_answered_in_json(client: Client) -> None:
    assert client.ask("GET", "/event")[0] == 404
    status, answer, headers = client.ask_whole("GET", "/events")
    assert (status, headers["allow"]) == (405, "POST")
    assert "GET /" in answer["remedy"]


def test_the_page_shows_commands_that_work(client: Client) -> None:
    status, page = client.ask("GET", "/")
    assert status == 200
    text = page.decode()
    assert f"{client.server.url}/events" in text
    assert "/v2/models/churn/infer" in text
    body = text.split("curl -d '")[1].split("'")[0]
    assert client.ask("POST", "/events", body) == (202, {"accepted": 3})


def test_the_example_leads_to_a_prediction() -> None:
    lines = [json.dumps(event).encode() for event in example_events(CHURN)]
    events = LineParser(CHURN).parse(lines, np.arange(len(lines)), 1_800_000_000_000_000).events
    engine = FeatureEngine(CHURN)
    engine.load(engine.missing(events.column(CHURN.key).to_pylist()), no_rows(CHURN))
    assert len(engine.apply(events, np.arange(len(lines)), no_lookup).indices) == 1
