"""Servers that a test needs: where one is missing the test is skipped, and in CI it fails."""

from __future__ import annotations

import os

import pytest

from servers.base import Server


def require(*servers: type[Server]) -> None:
    """Skip the test that runs if one of these can't be started here; fail it in CI."""
    lacking = "; ".join(filter(None, (server.missing() for server in servers)))
    if lacking and (os.environ.get("CI") or os.environ.get("MODELSTREAM_CI")):
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
