"""Tests serve the model that comes with the project, whatever is promoted in its registry."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and the pipelines that they start, a registry of their own."""
    folder = tempfile.TemporaryDirectory(prefix="modelstream-registry-")
    config.add_cleanup(folder.cleanup)
    os.environ["MODELSTREAM_REGISTRY"] = str(Path(folder.name) / "models")
