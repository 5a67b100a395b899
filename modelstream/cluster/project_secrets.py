"""MLRun's secrets of a project, as a place for passwords and keys.

MLRun keeps them in a Kubernetes secret of its own. Functions get each by reference to that, as they do with any other.
"""

from __future__ import annotations

import os
from typing import Any

from modelstream.cluster import kafka_login
from modelstream.cluster.config import Cluster
from modelstream.errors import ConfigurationError, ModelstreamError

SECRET = "mlrun-project-secrets-{project}"
"""The Kubernetes secret in which MLRun keeps them."""
KNOWN = (
    kafka_login.PASSWORD,
    "MODELSTREAM_REDIS_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "V3IO_ACCESS_KEY",
)
"""What a cluster's file may list under `project_secrets`."""


def from_environment(cluster: Cluster) -> dict[str, str]:
    """Return the values of a cluster's `project_secrets`. Raises ConfigurationError if there are none, or some aren't
    set."""
    if not cluster.project_secrets:
        raise ConfigurationError(
            "--secrets-from-env: the cluster's file lists no `project_secrets`",
            remedy=f"add a line such as `project_secrets: [{KNOWN[1]}]`; known are {', '.join(KNOWN)}",
        )
    values = {name: os.environ.get(name, "") for name in cluster.project_secrets}
    if unset := [name for name, value in values.items() if not value]:
        raise ConfigurationError(
            f"--secrets-from-env: not set in the environment: {', '.join(unset)}",
            remedy="export them, or leave the option out if MLRun has them already",
        )
    return values


def store(database: Any, project: str, values: dict[str, str]) -> None:
    """Put values into MLRun's secrets of a project; others stay. No error shows a value, whatever a server answers."""
    told = ""
    try:
        database.create_project_secrets(project, "kubernetes", values)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    for value in values.values():
        told = told.replace(value, "***")
    if told:
        raise ModelstreamError(
            f"MLRun did not take the secrets {', '.join(values)}: {told[:500]}",
            remedy="ask for the project's role editor; or put them into a Kubernetes secret and name that under "
            "`secrets`",
        )
