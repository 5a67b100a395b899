"""Opens a file of events. The readers bring numba, 75 MB; the supervisor, which only looks, does without."""

from __future__ import annotations

import io
import stat
from pathlib import Path

from modelstream.errors import ConfigurationError


def open_input(path: Path) -> io.FileIO:
    """Open a plain file of events. Raises ConfigurationError."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
            raise ConfigurationError(
                f"the input {path} is {kind}",
                remedy="give a file with one JSON object a line; pipe anything else in with --input -",
            )
        return path.open("rb", buffering=0)
    except OSError as error:
        raise ConfigurationError(
            f"the input {path} can't be read: {error.strerror or error}",
            remedy="give the path of a file with one JSON object a line that this user may read",
        ) from error
