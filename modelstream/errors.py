"""The errors of the pipeline: what happened, where, and what to do next."""

from __future__ import annotations


class ModelstreamError(Exception):
    """An error that a person can mend.

    `str(error)` says what happened and where; `remedy` says what to do next.

    >>> ModelstreamError("no such file: events.ndjson", remedy="give a path that exists")
    ModelstreamError('no such file: events.ndjson')
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class ConfigurationError(ModelstreamError):
    """A file, an option or a folder is not usable as it is; trying again won't help."""


class UnavailableError(ModelstreamError):
    """A stream, a table or a disk can't be used just now; the same call may succeed later.

    Whoever meets it holds the shard, waits and tries the same thing again (docs/delivery.md, 8: an outage is never a
    dead letter).
    """


class NumberTakenError(ModelstreamError):
    """Another owner of the shard has committed the next file of a log: read its footer and filter again."""


class OvertakenError(ModelstreamError):
    """Another owner of the shard has committed more than we have taken: our state is dropped and read anew."""


class LostStateError(ModelstreamError):
    """A shard starts beyond what was applied: messages in between are gone. The shard is held."""
