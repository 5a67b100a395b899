"""The V3IO stand-in for tests of backends, and places in it where nothing is yet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.v3io.process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("v3io")
    server = Server(folder / "journal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("V3IO_API", server.url)
        patch.setenv("V3IO_ACCESS_KEY", "any")
        yield server
    server.stop()


@pytest.fixture(autouse=True)
def no_faults(server: Server) -> None:
    server.fail()


def new_url(kind: str) -> str:
    return f"v3io://bigdata/test-{uuid.uuid4().hex}/{kind}"
