"""Opens a file of events. The readers bring numba, 75 MB; the supervisor, which only looks, does without."""

from __future__ import annotations

import io
import stat
from pathlib import Path

from modelstream.errors import ConfigurationError, UnreadableInputError
from modelstream.source.formats import FIRST_BYTES, FROM_STANDARD_INPUT, refuse_wrong_format


def open_input(path: Path) -> io.FileIO:
    """Open a plain file of events. Raises ConfigurationError."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
            raise UnreadableInputError(
                f"the input {path} is {kind}",
                remedy="give a file with one JSON object a line; pipe anything else in with --input -",
            )
        return path.open("rb", buffering=0)
    except OSError as error:
        raise ConfigurationError(
            f"the input {path} can't be read: {error.strerror or error}",
            remedy="give the path of a file with one JSON object a line that this user may read",
        ) from error


def check_input(path: Path, then: str = FROM_STANDARD_INPUT) -> None:
    """Open a file of events and look at its first bytes. `then` is the command line that reads from standard input.

    Raises ConfigurationError if it can't be opened, UnreadableInputError if it can't be JSON lines.
    """
    with open_input(path) as file:
        try:
            first = file.read(FIRST_BYTES) or b""
        except OSError as error:
            raise ConfigurationError(
                f"the input {path} can't be read: {error.strerror or error}", remedy="check the disk"
            ) from error
    refuse_wrong_format(first, f"the input {path}", str(path), then)
