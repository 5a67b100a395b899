"""MLRun's API, as `deploy` and `undeploy` ask it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from modelstream.cluster.failures import explained
from modelstream.errors import ConfigurationError
from modelstream.registry.artifact import ADDRESS

REMEDY = f"export {ADDRESS}=… with the address of the MLRun API (docs/cluster.md)"
_LEVEL = "MLRUN_LOG_LEVEL"


def connect(remedy: str = REMEDY) -> Any:
    """Return MLRun's database client, connected. Raises ConfigurationError or UnavailableError with a remedy.

    `remedy` says what to do if no address is set.
    """
    address = ""
    try:
        with _quiet():
            import mlrun  # with an address in the environment, this connects

            address = mlrun.mlconf.dbpath
            if address:
                database = mlrun.get_run_db()
                # Connecting alone succeeds without a login, with no more than a warning.
                database.list_projects(format_="name_only")
                return database
    except Exception as error:
        address = address or os.environ.get(ADDRESS, "")
        raise explained(error, f"the MLRun API at {address} ({ADDRESS})") from error
    raise ConfigurationError(f"no address for MLRun's API: {ADDRESS} is not set", remedy=remedy)


def functions_of(database: Any, project: str, names: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """Return the functions that MLRun holds of a project, None for each of `names` that it doesn't hold."""
    import mlrun

    found: dict[str, dict[str, Any] | None] = {}
    others = {function["metadata"]["name"] for function in database.list_functions(project=project, tag="latest") or []}
    for name in [*names, *sorted(others)]:
        if name not in found:
            found[name] = None
            with suppress(mlrun.errors.MLRunNotFoundError):
                found[name] = database.get_function(name, project)
    return found


def delete(database: Any, name: str, project: str) -> None:
    """Delete a function, and check that it is gone: when a deletion fails, MLRun's client only logs it."""
    import mlrun

    with suppress(mlrun.errors.MLRunNotFoundError):
        database.delete_function(name, project)
    with suppress(mlrun.errors.MLRunNotFoundError):
        database.get_function(name, project)
        raise RuntimeError(f"MLRun could not delete {name}: it is still there, and may still be running")


def is_scheduled(database: Any, name: str, project: str) -> bool:
    """Tell whether a schedule is there."""
    import mlrun

    try:
        database.get_schedule(project, name)
    except mlrun.errors.MLRunNotFoundError:
        return False
    return True


def unschedule(database: Any, name: str, project: str) -> None:
    """Delete a schedule, if it is there."""
    import mlrun

    with suppress(mlrun.errors.MLRunNotFoundError):
        database.delete_schedule(project, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the screenful that MLRun logs when a connection fails, unless its log level is set."""
    if _LEVEL in os.environ:
        yield
        return
    logger = logging.getLogger("mlrun")
    # An import takes the level from the environment; where MLRun was imported before, its logger has one.
    level = logger.level or logging.INFO
    os.environ[_LEVEL] = "ERROR"
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        del os.environ[_LEVEL]
        logger.setLevel(level)
