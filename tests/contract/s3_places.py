"""An S3 server for tests of what lies in a bucket, and a place in it where nothing is yet."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from servers.s3 import BUCKET, S3Server
from tests.required import require


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    require(S3Server)
    with S3Server() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def new_url(kind: str) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/{kind}"
