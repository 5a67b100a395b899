"""`current.json` of a model in the registry: the version that serves, and those that served before."""

from __future__ import annotations

import msgspec

from modelstream.errors import ConfigurationError

ALIAS = "current.json"
ALIAS_BYTES = 1 << 20
"""The largest file that is read; a hundred promotions take 15 kB."""
FORMAT = 1


class Promotion(msgspec.Struct, frozen=True):
    """A version that serves, or did. Version "" is the model that comes with the project.

    `parse_alias` has an example.
    """

    version: str
    sha256: str = ""
    """Hash of the model file that was promoted; no other file may serve."""
    at: str = ""
    """When, ISO 8601 in UTC."""
    artifact: str = ""
    """The `store://` URI of the version in MLRun, if it was found there: where there is an API, servers load it."""


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `current.json`.

    `parse_alias` has an example.
    """

    format: int = FORMAT
    current: Promotion
    before: tuple[Promotion, ...] = ()
    """Earlier promotions, oldest first; a rollback takes the last."""

    def text(self) -> bytes:
        """Return the file's content."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


class _AliasFormat(msgspec.Struct):
    format: int = FORMAT


def parse_alias(content: bytes, path: str) -> Alias:
    """Return what the file at a path or URL says. Raises ConfigurationError if it is broken, or of a newer format.

    >>> alias = Alias(current=Promotion("3", "ab12", "2026-01-31T12:00:00Z"), before=(Promotion(""),))
    >>> found = parse_alias(alias.text(), "models/mine/current.json")
    >>> found.current.version, len(found.before)
    ('3', 1)
    >>> parse_alias(b"{}", "models/mine/current.json")
    Traceback (most recent call last):
    modelstream.errors.ConfigurationError: models/mine/current.json is broken: Object missing required field `current`
    """
    try:
        found = msgspec.json.decode(content, type=_AliasFormat)
        if found.format > FORMAT:
            raise ConfigurationError(
                f"{path} was written by a newer version (format {found.format}; this one knows {FORMAT})",
                remedy="update modelstream",
            )
        return msgspec.json.decode(content, type=Alias)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is broken: {error}",
            remedy="remove it and promote a version: `python pipeline.py models promote V`",
        ) from None
