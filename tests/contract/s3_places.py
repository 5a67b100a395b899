"""An S3 server for tests of what lies in a bucket, and a place in it where nothing is yet."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from servers import s3 as s3_server


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    s3_server.require()
    with s3_server.running() as port:
        yield port


@pytest.fixture(autouse=True)
def environment(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment(port).items():
        monkeypatch.setenv(name, value)
    # Whatever proxy this machine has: the server is here.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def new_url(kind: str) -> str:
    return f"s3://{s3_server.BUCKET}/{uuid.uuid4().hex}/{kind}"
