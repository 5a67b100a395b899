"""For all tests: no time limit of hypothesis, the model that comes with the project whatever is promoted, a broker."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from servers.kafka import KafkaServer
from tests.required import require

collect_ignore = ["triton_client.py"]
"""Runs in `.venv-triton`, which alone has what it imports."""

# A busy machine may take a second for what else takes a millisecond.
settings.register_profile("modelstream", deadline=None)
settings.load_profile("modelstream")


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and the pipelines that they start, a registry of their own."""
    folder = tempfile.TemporaryDirectory(prefix="modelstream-registry-")
    config.add_cleanup(folder.cleanup)
    os.environ["MODELSTREAM_REGISTRY"] = str(Path(folder.name) / "models")


@pytest.fixture(scope="session")
def broker() -> Iterator[KafkaServer]:
    """A Kafka broker for the tests of this process; who stops it starts it again."""
    require(KafkaServer)
    with KafkaServer(secured=True) as server:
        yield server
