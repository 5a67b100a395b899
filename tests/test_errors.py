"""Errors quote what people typed, and no login in it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.logs import open_log
from modelstream.streams import open_streams
from modelstream.tables import open_tables

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"kafka://me:{SECRET}@broker:9092/churn",
        f"kafka://broker:port/churn?sasl.password={SECRET}",
        f"kafka://broker:9092/churn?sasl.password={SECRET}",
        f"v3io://me:{SECRET}@container/path",
        f"v3io://container/?access_key={SECRET}",
        f"redis://me:{SECRET}@host/0?prefix=a",
        f"redis://host/0?password={SECRET}",
        f"mongodb://me:{SECRET}@host/0",
        f"s3://me:{SECRET}@/x",
        f"ftp://me:{SECRET}@host/x",
    ],
)
def test_no_error_of_a_store_tells_the_login_in_its_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V3IO_API", "http://127.0.0.1:1")
    told = 0
    for opened in (open_streams, open_tables, lambda url: open_log(url, "events", pa.schema([]), 0)):
        try:
            opened(url)
        except ModelstreamError as error:
            assert SECRET not in f"{error} {error.remedy} {error!r}"
            told += 1
    assert told >= 2


@pytest.mark.parametrize(
    "text",
    ["", "kafka-login --from-literal=password=…", "mail me@home", "see https://example.org/a?b=c@d", "a://b c@d"],
)
def test_other_texts_are_as_they_are(text: str) -> None:
    error = ConfigurationError(text, remedy=text)
    assert (str(error), error.remedy) == (text, text)
