"""For all tests: no time limit of hypothesis, and the model that comes with the project, whatever is promoted."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine may take a second for what else takes a millisecond.
settings.register_profile("modelstream", deadline=None)
settings.load_profile("modelstream")


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and the pipelines that they start, a registry of their own."""
    folder = tempfile.TemporaryDirectory(prefix="modelstream-registry-")
    config.add_cleanup(folder.cleanup)
    os.environ["MODELSTREAM_REGISTRY"] = str(Path(folder.name) / "models")
