"""Where a pipeline keeps things: looked at before it starts."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.runner.store_urls import checked
from modelstream.settings import StoreUrls
from tests.runner.folders import PROJECT


def test_bucket_that_nobody_answers_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:1"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UnavailableError, match="s3://bucket/churn") as told:
        checked(StoreUrls(logs="s3://bucket/churn"), PROJECT)
    assert "AWS_ENDPOINT_URL" in told.value.remedy


URLS = {"streams": "kafka://127.0.0.1:1/x?timeout=1", "tables": "redis://127.0.0.1:1/0", "logs": "s3://bucket/x"}


@pytest.mark.parametrize("kind", URLS)
def test_server_that_is_away_is_told_with_where_its_url_comes_from(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    urls = StoreUrls(**{kind: URLS[kind]})
    with pytest.raises(UnavailableError) as told:
        checked(urls, PROJECT)
    assert told.value.remedy.endswith(f"; the URL is given with --{kind}")
    with pytest.raises(UnavailableError) as told:
        checked(StoreUrls(), PROJECT, (tmp_path, urls))
    assert told.value.remedy.endswith(f"; the URL is that of --{kind} when {tmp_path} was made")


class Refusing(BaseHTTPRequestHandler):
    """A store that takes nobody's keys."""

    def do_GET(self) -> None:
        self.send_error(403, "Forbidden")

    def log_message(self, *_: object) -> None:
        pass


def test_store_that_refuses_the_keys_is_told_with_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(ConfigurationError, match="403") as told:
            checked(StoreUrls(logs=URLS["logs"]), PROJECT)
        server.shutdown()
    assert "AWS_SECRET_ACCESS_KEY" in told.value.remedy


def test_address_of_a_store_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(ConfigurationError, match=r"AWS_ENDPOINT_URL is '127\.0\.0\.1:9000'"):
        checked(StoreUrls(logs="s3://bucket/churn"), PROJECT)


def test_wrong_option_of_kafka_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTREAM_KAFKA_SECURITY_PROTOCOL", "NONE")
    with pytest.raises(ConfigurationError, match="NONE") as told:
        checked(StoreUrls(streams=URLS["streams"]), PROJECT)
    assert "MODELSTREAM_KAFKA_SECURITY_PROTOCOL" in told.value.remedy


@pytest.mark.parametrize("kind", ["streams", "tables"])
def test_url_that_lacks_a_slash_is_named_as_it_was_given(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no {kind} of the kind 'kafka:/x'"):
        checked(StoreUrls(**{kind: "kafka:/x"}), PROJECT)
