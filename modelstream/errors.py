"""The errors of the pipeline: what happened, where, and what to do next."""

from __future__ import annotations

import re


class ModelstreamError(Exception):
    """An error that a user can fix.

    `str(error)` says what happened and where; `remedy` says what to do next.

    >>> ModelstreamError("no such file: events.ndjson", remedy="give a path that exists")
    ModelstreamError('no such file: events.ndjson')
    """

    exit_status = 1
    """The exit status of a command that ends with this error."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(_without_logins(message))
        self.remedy = _without_logins(remedy)
        self.logged = str(self)
        """The same without values of events, which are people's data: for logs, and for whoever asks by HTTP."""


def _without_logins(text: str) -> str:
    """Return a text without the logins in URLs that it quotes, which people paste, and which get into logs.

    >>> _without_logins("no tables at redis://me:secret@host:6379/0?password=secret&prefix=a")
    'no tables at redis://…@host:6379/0?password=…&prefix=a'
    """
    return _SECRET.sub(r"\1…", _LOGIN.sub("…", text)) if "://" in text else text


_LOGIN = re.compile(r"(?<=://)[^\s/@]+(?=@)")
_SECRET = re.compile(r"([?&][\w.-]*(?:password|secret|token|key)=)[^\s&'\"]+", re.IGNORECASE)


class ConfigurationError(ModelstreamError):
    """A file, an option or a folder can't be used as it is; trying again won't help."""


class UnreadableInputError(ConfigurationError):
    """An input in which there can be no event: it is something else than JSON lines."""

    exit_status = 3


class HookError(ConfigurationError):
    """A notebook's hook fails, or does something that it must not, and will again: a `run` ends at once.

    `logged` says it without the row, where the message has one.

    >>> HookError("KeyError: 'Jane'; at the row {…}", remedy="fix the hook", logged="KeyError").logged
    'KeyError'
    """

    def __init__(self, message: str, *, remedy: str = "", logged: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.logged = logged or self.logged


class UnavailableError(ModelstreamError):
    """A stream, a table or a disk can't be used just now; the same call may succeed later.

    The stage that gets it holds the shard, waits, and tries the same step again (docs/delivery.md, 8: an outage never
    makes a dead letter).
    """


class GoneError(ModelstreamError):
    """A file or folder that is in use was deleted, moved or replaced: what is written to it would be lost.

    Trying again can't help, so the pipeline ends.
    """

    def __init__(self, what: object) -> None:
        super().__init__(
            f"{what} was deleted, moved or replaced while it was in use",
            remedy="put back what was moved, or restore the whole data folder from a copy, then run the same command "
            "again; or begin anew: delete the data folder, or use --fresh",
        )


class NumberTakenError(ModelstreamError):
    """Another owner of the shard has committed the next file of a log: read its footer and filter again."""


class OvertakenError(ModelstreamError):
    """Another owner of the shard has committed more than this one has taken: the state is dropped and read again."""


class LostStateError(ModelstreamError):
    """Stored state is missing or older than it must be: messages between it and the next one are gone.

    The shard is held.
    """
