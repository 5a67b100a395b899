"""The commands of a cluster as `pipeline.py` calls them: they return exit statuses, and tell errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelstream.cluster import deploy as deployment
from modelstream.commands.shared import fail
from modelstream.errors import ModelstreamError


def deploy(
    file: Path, order: deployment.Order, *, engine: deployment.Engine, dry_run: bool, workflow: Path, folder: Path
) -> int:
    """Deploy, or tell what would be deployed."""
    return _told(
        lambda: deployment.deploy(file, order, engine=engine, dry_run=dry_run, workflow=workflow, folder=folder)
    )


def undeploy(file: Path, *, data: bool, folder: Path) -> int:
    """Take the functions down."""
    return _told(lambda: deployment.undeploy(file, data=data, folder=folder))


def _told(action: Callable[[], list[str]]) -> int:
    try:
        for line in action():
            print(line)
    except ModelstreamError as error:
        return fail(error)
    return 0
