"""The errors of the pipeline: what happened, where, and what to do next."""

from __future__ import annotations


class ModelstreamError(Exception):
    """An error that a user can fix.

    `str(error)` says what happened and where; `remedy` says what to do next.

    >>> ModelstreamError("no such file: events.ndjson", remedy="give a path that exists")
    ModelstreamError('no such file: events.ndjson')
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class ConfigurationError(ModelstreamError):
    """A file, an option or a folder can't be used as it is; trying again won't help."""


class HookError(ConfigurationError):
    """A notebook's hook fails, or does something that it must not, and will again: a `run` ends at once."""


class UnavailableError(ModelstreamError):
    """A stream, a table or a disk can't be used just now; the same call may succeed later.

    The stage that gets it holds the shard, waits, and tries the same step again (docs/delivery.md, 8: an outage never
    makes a dead letter).
    """


class NumberTakenError(ModelstreamError):
    """Another owner of the shard has committed the next file of a log: read its footer and filter again."""


class OvertakenError(ModelstreamError):
    """Another owner of the shard has committed more than this one has taken: the state is dropped and read again."""


class LostStateError(ModelstreamError):
    """Stored state is missing or older than it must be: messages between it and the next one are gone.

    The shard is held.
    """
