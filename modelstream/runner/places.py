"""Where a pipeline on one machine keeps its streams, tables and logs: in its data folder, or behind URLs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from modelstream.clients.sqlite import folder_of as sqlite_folder_of
from modelstream.errors import ConfigurationError
from modelstream.logs.parquet import open_log
from modelstream.settings import folder_of
from modelstream.streams import open_streams
from modelstream.tables import open_tables

NAMES = ("streams", "tables", "logs")


class Places(msgspec.Struct, frozen=True, omit_defaults=True):
    """URLs of streams, tables and logs; an empty one means: in the data folder."""

    streams: str = ""
    tables: str = ""
    logs: str = ""

    def within(self, folder: Path) -> Places:
        """Return the URLs with those filled in that are in a data folder."""
        return Places(
            streams=self.streams or f"sqlite://{folder / 'streams'}",
            tables=self.tables or f"sqlite://{folder / 'tables'}",
            logs=self.logs or str(folder),
        )

    def or_else(self, others: Places) -> Places:
        """Return the URLs with those filled in that others have."""
        return Places(**{name: getattr(self, name) or getattr(others, name) for name in NAMES})


def checked(places: Places) -> Places:
    """Return URLs that hold in any working folder, when what they name answers.

    Raises ConfigurationError for a malformed one, and UnavailableError for a server that doesn't answer.
    """
    found = {name: _absolute(getattr(places, name)) for name in NAMES}
    if found["streams"]:
        with open_streams(found["streams"]) as streams:
            streams.names()
    if found["tables"] and not found["tables"].startswith("sqlite://"):  # its epoch would make a file
        with open_tables(found["tables"]) as tables:
            tables.epoch()
    if found["logs"]:
        open_log(found["logs"], "events", pa.schema([]), 0).files()
    return Places(**found)


def _absolute(url: str) -> str:
    if url.startswith("sqlite://") and url != "sqlite://":
        return f"sqlite://{sqlite_folder_of(url).expanduser().resolve()}"
    if url and ("://" not in url or url.startswith("file://")):
        return str(folder_of(url).expanduser().resolve())
    return url


def differing(given: Places, kept: Places, folder: Path) -> None:
    """Raise ConfigurationError if a URL is given that is not the one that a data folder was made with."""
    filled = kept.within(folder)
    for name in NAMES:
        url = getattr(given, name)
        if url and url != getattr(filled, name):
            raise ConfigurationError(
                f"{folder} has its {name} at {getattr(filled, name)}, not at {url}",
                remedy=f"leave out --{name}, give another --data, or begin anew with --fresh --{name} {url}",
            )


def check_own(places: Places, made_with: Places, logs: Sequence[str]) -> None:
    """Raise ConfigurationError for a URL that a folder was not made with, if others keep something there."""
    for name in NAMES:
        url = getattr(places, name)
        if url and url != getattr(made_with, name) and _is_used(name, url, logs):
            raise ConfigurationError(
                f"{url} holds {name} that this folder didn't make: --fresh would delete another pipeline's",
                remedy="give another prefix, or the --data that made them",
            )


def _is_used(name: str, url: str, logs: Sequence[str]) -> bool:
    if name == "logs":
        return any(open_log(url, log, pa.schema([]), 0).files() for log in logs)
    if name == "streams":
        with open_streams(url) as streams:
            return any(
                end > streams.first_offset for each in streams.names() for _, end in streams.ranges(each).values()
            )
    if url.startswith("sqlite://") and not sqlite_folder_of(url).exists():
        return False
    with open_tables(url) as tables:
        return bool(tables.inputs().all())


def clear(places: Places, streams: Sequence[str], logs: Sequence[str]) -> None:
    """Delete what lies behind URLs: the streams and logs of these names, and all tables."""
    if places.streams:
        with open_streams(places.streams) as opened:
            for name in streams:
                opened.remove(name)
    if places.tables:
        with open_tables(places.tables) as tables:
            tables.remove()
    if places.logs:
        for name in logs:
            open_log(places.logs, name, pa.schema([]), 0).remove()
