"""What the process of every command needs, whatever the shell gave it."""

from __future__ import annotations

import codecs
import json
import os
import resource
import sys
import warnings

from modelstream.errors import ConfigurationError

PRIVATE = 0o077
"""The umask: what the pipeline keeps holds people's data, so only its owner may read the files that it makes."""
LEAST_FILES = 64
"""A process of a run has up to 35 files open, with streams of many body files some more."""
ENOUGH_FILES = 1024

_PLAIN = dict(
    zip("…±–µ→−≥≤×·—’\xa0", ("...", "+/-", "-", "u", "->", "-", ">=", "<=", "x", "-", "-", "'", " "), strict=True)
)
"""What the program's own texts have beyond ASCII."""


def prepare() -> None:
    """Set umask, warnings, limits and output of this process. Raises ConfigurationError for too few open files."""
    codecs.register_error("plain", plainly)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="plain")  # type: ignore[union-attr]
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        warnings.simplefilter("default")  # an import of MLRun alone gives hundreds
    os.umask(PRIVATE)
    allow_files()


def allow_files() -> None:
    """Raise this process's limit of open files as far as it may. Raises ConfigurationError if that is too little."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= ENOUGH_FILES:
        return
    allowed = ENOUGH_FILES if most == resource.RLIM_INFINITY else min(ENOUGH_FILES, most)
    if allowed < LEAST_FILES:
        raise ConfigurationError(
            f"this shell lets a process have only {allowed} files open; the pipeline needs {LEAST_FILES}",
            remedy=f"raise the limit, such as with `ulimit -n {ENOUGH_FILES}` in a new shell, "
            "or in the settings of the container",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


def plainly(error: UnicodeError) -> tuple[str, int]:
    r"""Return what stands for characters that a terminal or a pipe can't take: the handler of such encoding errors.

    In JSON it stays the same text.

    >>> codecs.register_error("plain", plainly)
    >>> 'error → "Zoë 😀" …'.encode("ascii", "plain")
    b'error -> "Zo\\u00eb \\ud83d\\ude00" ...'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or json.dumps(one)[1:-1] for one in found), error.end
