"""The settings of a function. They are passed as environment variables, named `MODELSTREAM_` and the setting.

`Project.settings` makes them from `project.yaml`, the local runner and `deploy` hand them to a function's process, and
`from_environment` reads them there. In addition, backends read addresses and logins from the environment, under the
names that their modules document; `base.compiled` reads `MODELSTREAM_NUMBA`, and `Project.registry` reads
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
KINDS_OF_STORES = ("streams", "tables", "logs")


class StoreUrls(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where streams, tables and logs are; an empty URL means: in the data folder.

    >>> StoreUrls(logs="s3://bucket/mine").within(Path("data"))
    StoreUrls(streams='sqlite://data/streams', tables='sqlite://data/tables', logs='s3://bucket/mine')
    """

    streams: str = ""
    tables: str = ""
    logs: str = ""

    def within(self, folder: Path) -> StoreUrls:
        """Return the URLs, with empty ones replaced by places in a data folder."""
        return StoreUrls(
            streams=self.streams or f"sqlite://{folder / 'streams'}",
            tables=self.tables or f"sqlite://{folder / 'tables'}",
            logs=self.logs or str(folder),
        )

    def or_else(self, others: StoreUrls) -> StoreUrls:
        """Return the URLs, with empty ones taken from `others`."""
        return StoreUrls(**{kind: getattr(self, kind) or getattr(others, kind) for kind in KINDS_OF_STORES})


class StoreNames(msgspec.Struct, frozen=True, kw_only=True):
    """The names, in `project.yaml`, of the stores that every pipeline has."""

    features: str = "features"
    """The table with a row for every user."""
    dead_letters: str = "dead-letters"
    """The stream of rows that can never succeed."""
    events_log: str = "events"
    inference_log: str = "inference"


class Settings(StoreNames, frozen=True, kw_only=True):
    """What a function reads, writes and keeps, and when it flushes."""

    function: str
    """The function's name: its consumer group, and its name in logs and metrics."""
    use_case: str
    """Path of the use-case file."""
    meaning: str = ""
    """Hash of what the use case means in the stored data (`use_case.meaning`): a file that means something else is
    refused. Empty where nobody remembers it."""
    streams: str = ""
    """URL of the streams, such as `sqlite:///path/data/streams`."""
    tables: str = ""
    """URL of the tables, such as `sqlite:///path/data/tables`."""
    logs: str = ""
    """Where the Parquet logs are: a folder or `s3://bucket/prefix`."""
    reads: str = ""
    """The stream that the function consumes; a job consumes none."""
    writes: str = ""
    """The stream that it appends to, if any."""
    rows: Literal["events", "predictions"] = "events"
    """What an event-handler keeps in its log: checked events, or predictions."""
    derive: str = ""
    """Path of the notebook whose hook `derive` made the vectors that a training job replays."""
    model: str = ""
    """Folder of the model that a model server loads while none is promoted."""
    registry: str = ""
    """Where registered models are, a folder or `s3://bucket/prefix`: what is promoted there serves."""
    monitoring: bool = False
    """Whether the model server tells MLRun's model monitoring what it answers (`stages.monitoring`)."""
    shards: int = 8
    linger_ms: float = 10.0
    """Longest time that a row waits for others before it is sent on. Four hops of it stay below 100 ms."""
    commit_ms: float = 1000.0
    """Longest time that applied messages wait for their commit and acknowledgement; a crash repeats at most that much.
    While messages keep coming and commits take more than an eighth of it, up to three times as long."""
    commit_rows: int = 30_000
    """A shard with this many applied rows is committed before `commit_ms` is over; where a commit is of all shards, if
    they have as many on average. With twice as many, eight shards took 100 MB more; with half as many, writing files is
    a tenth slower."""

    @property
    def urls(self) -> StoreUrls:
        """Where streams, tables and logs are."""
        return StoreUrls(self.streams, self.tables, self.logs)

    @property
    def names(self) -> StoreNames:
        """What they are called."""
        return StoreNames(**{name: getattr(self, name) for name in StoreNames.__struct_fields__})

    def environment(self) -> dict[str, str]:
        """Return the variables that `from_environment` reads: those that differ from their defaults, and the shards.

        >>> Settings(function="f", use_case="u.yaml", commit_ms=50.0).environment()["MODELSTREAM_COMMIT_MS"]
        '50.0'
        """
        told = {
            field.name: getattr(self, field.name)
            for field in msgspec.structs.fields(Settings)
            if field.name == "shards" or getattr(self, field.name) != field.default
        }
        return {PREFIX + name.upper(): str(value) for name, value in told.items()}


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without a function's settings: those of another would stand in for defaults.

    The registry stays, which a person may name there (`Project.registry`).

    >>> without_settings({"MODELSTREAM_ROWS": "predictions", "MODELSTREAM_NUMBA": "0", "PATH": "/bin"})
    {'MODELSTREAM_NUMBA': '0', 'PATH': '/bin'}
    """
    settings = {PREFIX + name.upper() for name in Settings.__struct_fields__ if name != "registry"}
    return {name: value for name, value in environment.items() if name not in settings}


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process. Raises ConfigurationError for a missing or malformed one.

    >>> from_environment({"MODELSTREAM_FUNCTION": "f", "MODELSTREAM_USE_CASE": "u.yaml",
    ...     "MODELSTREAM_STREAMS": "sqlite://d", "MODELSTREAM_TABLES": "sqlite://d"}).linger_ms
    10.0
    """
    found = os.environ if environment is None else environment
    values = {name.removeprefix(PREFIX).lower(): value for name, value in found.items() if name.startswith(PREFIX)}
    try:
        for name in ("streams", "tables"):
            if not values.get(name):
                raise msgspec.ValidationError(f"Object missing required field `{name}`")
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"the environment variables of this function are incomplete or wrong: {error}",
            remedy=f"the settings are variables named {PREFIX}…; "
            "`python pipeline.py` and `deploy` set them from project.yaml",
        ) from error
