"""The V3IO stand-in for tests of backends, and places in it where nothing is yet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from servers.v3io.process import V3ioServer


@pytest.fixture(scope="module")
def server() -> Iterator[V3ioServer]:
    with V3ioServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(autouse=True)
def no_faults(server: V3ioServer) -> None:
    server.fail()


def new_url(kind: str) -> str:
    return f"v3io://bigdata/test-{uuid.uuid4().hex}/{kind}"
