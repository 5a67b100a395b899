"""Events are durable when the client is told so, whole or not at all."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.http.bodies import MAX_BODY
from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import key_of
from tests.http.serving import PRETTY, SHARDS, Client, serving, wait_until


def test_events_are_durable_in_the_shard_of_their_key(client: Client) -> None:
    events = [{"user_id": f"u{i % 50}", "n": i} for i in range(500)] + [{"n": 500}, {"user_id": 7, "n": 501}]
    assert client.ask("POST", "/events", json.dumps(events)) == (202, {"accepted": 502})
    stored = client.stored()
    assert sorted((json.loads(line) for _, line in stored), key=lambda event: event["n"]) == events
    assert all(shard == bucket_of(key_of(line, "user_id")) % SHARDS for shard, line in stored)
    for shard in range(SHARDS):
        numbers = [json.loads(line)["n"] for at, line in stored if at == shard]
        assert numbers == sorted(numbers)


def test_one_object_and_an_empty_array(client: Client) -> None:
    assert client.ask("POST", "/events", PRETTY) == (202, {"accepted": 1})
    assert client.ask("POST", "/events", b"[]") == (202, {"accepted": 0})
    assert [json.loads(line) for _, line in client.stored()] == [{"user_id": "u1"}]


def test_requests_that_arrive_during_an_append_share_the_next(client: Client) -> None:
    client.streams.free.clear()
    with ThreadPoolExecutor(30) as pool:
        answers = [pool.submit(client.ask, "POST", "/events", json.dumps({"user_id": 0}))]
        assert client.streams.entered.wait(10)
        answers += [pool.submit(client.ask, "POST", "/events", json.dumps({"user_id": i})) for i in range(1, 30)]
        wait_until(lambda: len(client.intake._waiting) == 29)
        assert not any(answer.done() for answer in answers), "answered before it was durable"
        client.streams.free.set()
        assert [answer.result() for answer in answers] == [(202, {"accepted": 1})] * 30
    assert client.intake.appends == 2
    assert len(client.stored()) == 30


@pytest.mark.parametrize("failure", [UnavailableError("generated.db: database or disk is full")])
def test_an_outage_is_503_and_the_same_body_is_taken_afterwards(client: Client, failure: Exception) -> None:
    client.streams.failure = failure
    status, answer, headers = client.ask_whole("POST", "/events", PRETTY)
    assert (status, answer["error"]) == (503, str(failure))
    assert int(headers["retry-after"]) > 0
    client.streams.failure = None
    assert client.ask("POST", "/events", PRETTY) == (202, {"accepted": 1})
    assert len(client.stored()) == 1


def test_events_for_a_folder_that_is_gone_are_503_with_the_reason(client: Client) -> None:
    assert client.ask("POST", "/events", b'{"user_id": "u"}')[0] == 202
    (client.folder / "generated.db").unlink()
    status, answer = client.ask("POST", "/events", b'{"user_id": "u"}')
    assert (status, "generated.db was deleted" in answer["error"]) == (503, True)


def test_a_broken_stream_is_500_with_its_reason(client: Client) -> None:
    client.streams.failure = ConfigurationError("generated.db is broken", remedy="restore it")
    assert client.ask("POST", "/events", PRETTY) == (500, {"error": "generated.db is broken", "remedy": "restore it"})


def test_a_defect_is_500_and_the_next_request_is_served(client: Client) -> None:
    client.streams.failure = ZeroDivisionError("oops")
    assert client.ask("POST", "/events", PRETTY) == (500, {"error": "ZeroDivisionError: oops"})
    client.streams.failure = None
    assert client.ask("POST", "/events", PRETTY)[0] == 202


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_above_the_limit_is_413(client: Client, declared: bool) -> None:
    chunk = b" " * (1 << 20)
    chunks = (chunk for _ in range(MAX_BODY // len(chunk) + 1))
    body = b"".join(chunks) if declared else chunks
    try:
        status, answer = client.ask("POST", "/events", body)
    except (BrokenPipeError, ConnectionResetError):
        return  # the server has closed before all was sent
    assert status == 413
    assert "send it in parts" in answer["error"]


def test_a_compressed_body_is_415(client: Client) -> None:
    status, answer = client.ask("POST", "/events", b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert (status, "compressed" in answer["error"]) == (415, True)


def test_memory_for_bodies_is_bounded(tmp_path: Path) -> None:
    with serving(tmp_path, in_hand_limit=1000) as client:
        client.streams.free.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.ask, "POST", "/events", b'{"a": "' + b"x" * 600 + b'"}')
            assert client.streams.entered.wait(10)
            assert client.ask("POST", "/events", b'{"a": "' + b"x" * 600 + b'"}')[0] == 503
            client.streams.free.set()
            assert first.result()[0] == 202
        assert client.ask("POST", "/events", b'{"a": "' + b"x" * 600 + b'"}')[0] == 202
