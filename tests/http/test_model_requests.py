"""Requests for the model are passed on, and its answers back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelstream.runner.rpc import Answer, Request
from tests.http.serving import serving


def test_a_request_for_the_model_is_passed_on_and_its_answer_back(tmp_path: Path) -> None:
    seen: list[Request] = []

    async def ask(request: Request) -> Answer:
        seen.append(request)
        if request.method == "GET":
            return Answer(200, "text/plain", b"ready")
        return Answer(422, "application/json", b'{"error": "inputs[0] has 1 value"}')

    with serving(tmp_path, ask) as client:
        answer = client.ask("POST", "/v2/models/churn/infer", b'{"inputs": [[1]]}')
        assert answer == (422, {"error": "inputs[0] has 1 value"})
        form = {"Content-Type": "application/x-www-form-urlencoded"}  # curl -d
        client.ask("POST", "/v2/models/churn/infer", b"{}", form)
        client.ask("POST", "/v2/models/churn/infer", b"\xff", {"Content-Type": "application/octet-stream"})
        assert client.ask("GET", "/v2/models/churn/ready") == (200, b"ready")
        assert client.ask("GET", "/v2", headers={"inference-header-content-length": "7"}) == (200, b"ready")
    assert seen[-1].headers["Inference-Header-Content-Length"] == "7", "as Nuclio writes it"
    assert [Request(each.method, each.path, each.content_type, each.body) for each in seen] == [
        Request("POST", "/v2/models/churn/infer", "text/plain", b'{"inputs": [[1]]}'),
        Request("POST", "/v2/models/churn/infer", "text/plain", b"{}"),
        Request("POST", "/v2/models/churn/infer", "application/octet-stream", b"\xff"),
        Request("GET", "/v2/models/churn/ready", "", b""),
        Request("GET", "/v2", "", b""),
    ]


async def hanging(_: Request) -> Answer:
    await asyncio.sleep(3600)
    raise AssertionError


async def refusing(_: Request) -> Answer:
    raise ConnectionRefusedError


@pytest.mark.parametrize(("ask", "reason"), [(refusing, "is starting"), (hanging, "gave no answer within 0.05 s")])
def test_while_the_model_server_is_away_requests_are_503(tmp_path: Path, ask: Any, reason: str) -> None:
    with serving(tmp_path, ask, infer_seconds=0.05) as client:
        status, answer, headers = client.ask_whole("POST", "/v2/models/churn/infer", b"{}")
    assert (status, reason in answer["error"], "retry-after" in headers) == (503, True, True)
