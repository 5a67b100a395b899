"""The settings of a function, read from its environment: `MODELSTREAM_` and the name of the setting.

The local runner and `deploy` set them from `project.yaml`. Besides, backends read addresses and logins there, each
under the names that its module tells, `compiled` reads `MODELSTREAM_NUMBA`, and `Project.registry`
`MODELSTREAM_REGISTRY`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from modelstream.errors import ConfigurationError

PREFIX = "MODELSTREAM_"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What a function reads, writes and keeps, and when it flushes."""

    function: str
    """The function's name: its consumer group, and its name in logs and metrics."""
    use_case: str
    """Path of the use-case file."""
    streams: str
    """URL of the streams, such as `sqlite:///path/data/streams`."""
    tables: str
    """URL of the tables, such as `sqlite:///path/data/tables`."""
    logs: str = ""
    """Where the Parquet logs are: a folder or `s3://bucket/prefix`."""
    reads: str
    """The stream that the function consumes."""
    writes: str = ""
    """The stream that it appends to, if any."""
    log: str = ""
    """The name of the Parquet log that it writes, if any."""
    rows: Literal["events", "predictions"] = "events"
    """What an event-handler keeps in its log: checked events, or predictions."""
    events_log: str = "events"
    inference_log: str = "inference"
    """The names of the logs that a training job reads, below `logs`."""
    derive: str = ""
    """Path of the notebook whose hook `derive` made the vectors that a training job replays."""
    model: str = ""
    """Folder of the model that a model server loads while none is promoted."""
    registry: str = ""
    """Where registered models are, a folder or `s3://bucket/prefix`: what is promoted there serves."""
    shards: int = 8
    linger_ms: float = 10.0
    """Longest time that a row waits for others before it is sent on. Four hops of it stay below 100 ms."""
    commit_ms: float = 1000.0
    """Longest time that applied messages wait for their commit and acknowledgement: what a crash repeats."""
    commit_rows: int = 30_000
    """Rows of a shard after which they are committed before `commit_ms` is over. Eight shards of twice as many took
    100 MB more; half as many make files that are a tenth slower to write."""


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process. Raises `ConfigurationError` for a missing or malformed one.

    >>> from_environment({"MODELSTREAM_FUNCTION": "f", "MODELSTREAM_USE_CASE": "u.yaml", "MODELSTREAM_READS": "s",
    ...     "MODELSTREAM_STREAMS": "sqlite://d", "MODELSTREAM_TABLES": "sqlite://d"}).linger_ms
    10.0
    """
    found = os.environ if environment is None else environment
    values = {name.removeprefix(PREFIX).lower(): value for name, value in found.items() if name.startswith(PREFIX)}
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"the function's environment is not complete: {error}",
            remedy=f"the settings are variables named {PREFIX}…; "
            "`python pipeline.py` and `deploy` set them from project.yaml",
        ) from error


def folder_of(url: str) -> Path:
    """Return the folder that a URL of logs or models names: a path, or `file://` and a path.

    >>> folder_of("file:///mnt/models"), folder_of("artifacts/models")
    (PosixPath('/mnt/models'), PosixPath('artifacts/models'))
    """
    path = url.removeprefix("file://")
    if "://" in path:
        raise ConfigurationError(
            f"{url} is no folder", remedy="give a path, file:// and an absolute path, or s3://bucket/prefix"
        )
    return Path(path)
