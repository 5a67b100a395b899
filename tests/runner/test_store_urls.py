"""Where a pipeline keeps things: looked at before it starts."""

from __future__ import annotations

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


@pytest.mark.parametrize("kind", ["streams", "tables"])
def test_url_that_lacks_a_slash_is_named_as_it_was_given(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no {kind} of the kind 'kafka:/x'"):
        checked(StoreUrls(**{kind: "kafka:/x"}), PROJECT)
