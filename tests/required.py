"""Servers and programs that a test needs: where one is missing the test is skipped, and in CI it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from servers.base import Server

ROOT = Path(__file__).parents[1]


def require(*servers: type[Server]) -> None:
    """Skip the test that runs if one of these can't be started here; fail it in CI."""
    _lacking("; ".join(filter(None, (server.missing() for server in servers))))


def required_python(target: str) -> str:
    """Return the Python of the environment that `make TARGET` builds; without it, skip the test or fail it in CI."""
    python = ROOT / f".venv-{target}" / "bin" / "python"
    _lacking("" if python.exists() else f"there is no .venv-{target}; run `make {target}`")
    return str(python)


def _lacking(lacking: str) -> None:
    if lacking and (os.environ.get("CI") or os.environ.get("MODELSTREAM_CI")):
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
