"""What clients send is durable when they are told so, whole or not at all; what they ask is passed on."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.events.parsing import LineParser
from modelstream.features.engine import FeatureEngine, no_lookup, no_rows
from modelstream.http import intake as module
from modelstream.http import server
from modelstream.http.about import about, example_events
from modelstream.http.app import Ask, Edge, create_app
from modelstream.http.intake import MAX_BODY, Intake, RefusedError, messages, read_events
from modelstream.http.server import HttpServer, bind
from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import key_of, split_body
from modelstream.runner.metrics import Exporter
from modelstream.runner.rpc import Answer, Request
from modelstream.runner.state import FunctionState, PipelineState
from modelstream.stages.counters import Counters
from modelstream.streams import Streams, open_streams
from modelstream.use_case.file import load_use_case
from tests.streams.wrapped import WrappedStreams

ROOT = Path(__file__).parents[2]
CHURN = load_use_case(ROOT / "use_cases" / "churn.yaml")
SHARDS = 4


class Switchable(WrappedStreams):
    """The streams of a folder, whose appends can be held up, and can fail."""

    def __init__(self, streams: Streams) -> None:
        super().__init__(streams)
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
        self.entered.set()
        assert self.free.wait(30)
        if self.failure:
            raise self.failure
        return super().append(name, records)


@dataclass
class Client:
    """A server under test, and how to talk to it."""

    server: HttpServer
    streams: Switchable
    exporter: Exporter
    intake: Intake
    folder: Path

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Send a request; return the status, and the answer (decoded if it is JSON)."""
        status, content, _ = self.ask_whole(method, path, body, headers)
        return status, content

    def ask_whole(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", int(self.server.url.rsplit(":", 1)[1]), timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content: Any = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()
        if found.get("content-type", "").startswith("application/json"):
            content = json.loads(content)
        return response.status, content, found

    def stored(self) -> list[tuple[int, bytes]]:
        """Return every event in the stream, with its shard."""
        with open_streams(f"sqlite://{self.folder}") as streams:
            return [
                (shard, line)
                for shard in range(SHARDS)
                for message in streams.read("generated", shard, 0, 10_000, 1 << 30)
                for line in split_body(message.body)
            ]


async def answering(_: Request) -> Answer:
    return Answer(200, "application/json", b'{"outputs": [1]}')


@contextmanager
def serving(
    folder: Path,
    ask: Ask = answering,
    clock: Callable[[], float] | None = None,
    **options: Any,
) -> Iterator[Client]:
    with open_streams(f"sqlite://{folder}") as streams:
        streams.create("generated", SHARDS)
    switchable = Switchable(open_streams(f"sqlite://{folder}"))
    exporter = Exporter(clock) if clock else Exporter()
    intake = Intake(lambda: switchable, "generated", "user_id")
    page = partial(about, CHURN, folder)
    edge = Edge(intake=intake, ask=ask, exporter=exporter, about=page, **options)
    with bind(0) as listener:
        http_server = HttpServer(create_app(edge), listener, folder / "http.log")
        http_server.start()
        try:
            yield Client(http_server, switchable, exporter, intake, folder)
        finally:
            switchable.free.set()
            assert http_server.stop()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path) as client:
        yield client


# Reading bodies.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(st.dictionaries(st.text() | st.just("user_id"), JSON, max_size=4), min_size=1, max_size=6)


@given(EVENTS, st.sampled_from(["array", "pretty array", "ndjson", "ndjson with blank lines"]))
def test_every_way_to_send_events_gives_the_same_events(events: list[dict[str, Any]], way: str) -> None:
    texts = [json.dumps(event) for event in events]
    body = {
        "array": json.dumps(events),
        "pretty array": json.dumps(events, indent=2),
        "ndjson": "\n".join(texts),
        "ndjson with blank lines": "\n\n \t\n" + "\r\n\n".join(texts) + "\n",
    }[way]
    read = read_events(body.encode(), "user_id")
    assert [json.loads(line) for _, line in read] == [json.loads(text) for text in texts]
    assert all(b"\n" not in line for _, line in read)
    assert [bucket for bucket, _ in read] == [bucket_of(key_of(text.encode(), "user_id")) for text in texts]


@given(st.lists(st.tuples(st.integers(0, 63), st.binary(max_size=30).map(bytes.hex).map(str.encode))))
def test_messages_keep_the_order_within_a_shard_and_their_limits(events: list[tuple[int, bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_MESSAGE_EVENTS", 3)
        patch.setattr(module, "MAX_MESSAGE_BYTES", 100)
        packed = messages(events, SHARDS)
    for shard in range(SHARDS):
        expected = [line for bucket, line in events if bucket % SHARDS == shard]
        assert [line for to, body in packed if to == shard for line in body.split(b"\n")] == expected
    assert all(body.count(b"\n") < 3 and len(body) <= 100 for _, body in packed)


PRETTY = b'{\n  "user_id": "u1"\n}'


def test_a_pretty_printed_object_is_one_event() -> None:
    assert [json.loads(line) for _, line in read_events(PRETTY, "user_id")] == [{"user_id": "u1"}]


def test_a_byte_order_mark_is_no_part_of_the_event() -> None:
    assert read_events(b"\xef\xbb\xbf{}", "user_id") == [(0, b"{}")]


HALF = rb'{"user_id": "u2", "x": "\ud83d"}'


@pytest.mark.parametrize(
    "body",
    [b'{"user_id": "u1"}\n' + HALF + b'\n{"user_id": "u3"}', b'[{"user_id": "u1"}, ' + HALF + b', {"user_id": "u3"}]'],
)
def test_half_a_surrogate_pair_harms_no_neighbour(body: bytes) -> None:
    """JavaScript writes it when it cuts a text within an emoji. The event-handler makes a dead letter of the event."""
    read = read_events(body, "user_id")
    assert [line for _, line in read] == [b'{"user_id": "u1"}', HALF, b'{"user_id": "u3"}']
    assert [bucket for bucket, _ in read] == [bucket_of(key) for key in ("u1", "", "u3")]


def test_a_key_in_an_envelope_decides_the_shard() -> None:
    assert read_events(b'{"user_id": "no", "after": {"user_id": 7.0}}', "after.user_id")[0][0] == bucket_of("7")


DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LONG = b'{"a": "' + b"x" * 1_000_000 + b'"}'
REFUSED = {
    "empty": (b"", 400, "empty"),
    "blank": (b" \n\n", 400, "empty"),
    "cut": (b'{"user_id": "u1"', 400, "line 1 is not JSON"),
    "third line": (b'{"user_id": 1}\n\n{"user_id": }\n{}', 400, "line 3 is not JSON"),
    "an element": (b'[{"user_id": 1}, 7]', 400, "element 1 (from 0) is not a JSON object"),
    "a broken array": (b'[{"user_id": 1}, {]', 400, "a broken JSON array"),
    "a number": (b"7", 400, "line 1 is not a JSON object"),
    "NaN": (b'{"amount": NaN}', 400, "line 1 is not JSON"),
    "gzip": (gzip.compress(b"{}"), 400, "the body is gzip, not JSON lines"),
    "CSV": (b"user_id,amount\nu1,2\n", 400, "the body is CSV, not JSON lines: line 1"),
    "UTF-16": ('{"user_id": 1}'.encode("utf-16"), 400, "the body is text in UTF-16"),
    "curl -d": (b'{"user_id": 1}{"user_id": 2}', 400, "without line breaks in between"),
    "UTF-16 without a mark": (
        '{"user_id": 1}'.encode("utf-16-le"),
        400,
        "line 1 is not UTF-8 text; it looks like UTF-16",
    ),
    "half a pair and broken": (rb'{"user_id": "\ud83d"', 400, "line 1 is not JSON"),
    "not UTF-8": (b'{"user_id": "\xff"}', 400, "not UTF-8"),
    "nested": (DEEP, 400, "line 1 is nested too deeply"),
    "a long event": (b"{}\n" + LONG, 413, "line 2 is longer than 1,000,000 bytes: 1,000,009"),
    "form": (b"user_id=u1&event_type=bet", 400, "line 1 is not JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_body_that_cannot_be_read_is_refused_whole_with_the_place(client: Client, name: str) -> None:
    body, status, reason = REFUSED[name]
    found, answer = client.ask("POST", "/events", body)
    assert found == status
    assert reason in answer["error"]
    assert "nothing of this body was taken" in answer["remedy"]
    assert client.stored() == []


def test_what_was_refused_can_be_told_by_the_library_too() -> None:
    with pytest.raises(RefusedError, match="line 1 is not JSON"):
        read_events(b"{", "user_id")


# Taking events.


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


def test_stopping_answers_what_is_in_hand_once_it_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 60)  # a busy machine may need more than its second for this test
    with serving(tmp_path) as client:
        client.streams.free.clear()
        with ThreadPoolExecutor(2) as pool:
            answer = pool.submit(client.ask, "POST", "/events", PRETTY)
            assert client.streams.entered.wait(10)
            stopped = pool.submit(client.server.stop)
            wait_until(lambda: not listens(client))
            with pytest.raises(TimeoutError):
                stopped.result(0.4)
            assert not answer.done()
            client.streams.free.set()
            assert answer.result() == (202, {"accepted": 1})
            assert stopped.result()
        assert len(client.stored()) == 1


def listens(client: Client) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(client.server.url.rsplit(":", 1)[1])), 1).close()
    except OSError:
        return False
    return True


def test_a_port_that_is_taken_is_said_clearly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is in use") as caught:
            bind(port)
    assert "--port" in caught.value.remedy


# The model.


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


# Looking.


def function(committed_at: float = 900.0, **changes: Any) -> FunctionState:
    counters = Counters(rows_in=10, rows_out=9, dead_letters=1, repeated=2, commits=4, lookups=8, lookup_misses=7)
    counters.committed_at = committed_at
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
    events = LineParser(CHURN).parse(lines, np.arange(len(lines)), 0).events
    engine = FeatureEngine(CHURN)
    engine.load(engine.missing(events.column(CHURN.key).to_pylist()), no_rows(CHURN))
    assert len(engine.apply(events, np.arange(len(lines)), no_lookup).indices) == 1


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = threading.Event()
    timer = threading.Timer(seconds, deadline.set)
    timer.start()
    try:
        while not condition():
            assert not deadline.is_set(), "waited in vain"
    finally:
        timer.cancel()
