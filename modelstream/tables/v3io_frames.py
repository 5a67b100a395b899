"""Writes the rows of a lookup table in bulk, through v3io-frames, if V3IO_FRAMESD names its service.

framesd puts rows one by one as we do, but more of them in flight and from compiled code next to V3IO: 90,000 take a
third of the time. The items are the same (see v3io_rows), except that the name of each item is its key.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from modelstream.clients.v3io import Container
from modelstream.errors import ConfigurationError, ModelstreamError, UnavailableError

FRAMESD = "V3IO_FRAMESD"
"""The environment variable with the address: http://framesd:8080, or framesd:8081 for gRPC. Iguazio sets it in pods."""

ROWS_AT_ONCE = 20_000
"""Rows per request, in one frame. framesd gives up on a request after 300 s, and waits for ever if one of several
frames fails."""

REPLACE = "overwriteItem"
"""The save mode that replaces items completely. The default would leave existing items unchanged."""

_REFUSED = re.compile(r"status code: HTTP/1\.1 (\d{3}).*?\n\r?\n(.*?)\s*Request details", re.DOTALL)
"""How framesd reports an error answer from V3IO."""
_NO_ANSWER = re.compile(r"dial|connect|time[d-]? ?out|no such host|EOF|reset", re.IGNORECASE)
"""How framesd reports that V3IO did not answer."""
_ADDRESS_REMEDY = f"set {FRAMESD} to the address of framesd, such as http://framesd:8080, or unset it to load without"


def framesd() -> str:
    """Return the address of the service; "" where there is none.

    >>> from unittest import mock
    >>> with mock.patch.dict(os.environ, {FRAMESD: "http://framesd:8080"}):
    ...     framesd()
    'http://framesd:8080'
    """
    return os.environ.get(FRAMESD, "")


def write(
    container: Container, table: str, key: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write rows by their keys: items with these columns and the key, replacing those that are there.

    A null becomes no attribute. The call may be repeated; after an error some rows are stored and some not. Raises
    UnavailableError where framesd, or V3IO behind it, can't be reached, ConfigurationError where one of them refuses.

    An example would need framesd: `tests/contract/test_v3io_frames.py` runs on a stand-in for it.
    """
    frames = _import_frames()
    import pandas as pd

    keys = list(rows)
    with _in_our_words(frames):
        client = frames.Client(framesd(), container=container.address.container, should_check_version=False)
        for start in range(0, len(keys), ROWS_AT_ONCE):
            some = keys[start : start + ROWS_AT_ONCE]
            values = {name: [rows[one].get(name) for one in some] for name in columns}
            frame = pd.DataFrame(values, index=pd.Index(some, name=key, dtype=object))
            client.write("kv", container.path(table), frame, save_mode=REPLACE)


def _import_frames() -> Any:
    """Import v3io-frames, and undo its change of how the whole process prints warnings."""
    formatted = warnings.formatwarning
    try:
        import v3io_frames
    finally:
        warnings.formatwarning = formatted
    return v3io_frames


@contextmanager
def _in_our_words(frames: Any) -> Iterator[None]:
    try:
        yield
    except (frames.Error, ValueError) as error:
        raise _translated(error) from error


def _translated(error: Exception) -> ModelstreamError:
    """Return what an error of v3io-frames means: one by gRPC has its cause, one by HTTP a context."""
    called = getattr(error, "cause", None)
    text = str(called.details() if called is not None else error).removeprefix("cannot call API - ")
    if isinstance(error, ValueError) or isinstance(error.__context__, ValueError):
        return ConfigurationError(f"{FRAMESD} is not an address: {text}", remedy=_ADDRESS_REMEDY)
    where = f"v3io-frames at {framesd()}"
    if refused := _REFUSED.search(text):
        return _refused(f"{where}: V3IO answered {refused[1]}: {refused[2]}", int(refused[1]))
    lost = isinstance(error.__context__, OSError) or (called is not None and called.code().name == "UNAVAILABLE")
    if lost or _NO_ANSWER.search(text):
        return UnavailableError(f"{where}: {text}", remedy=f"check {FRAMESD}, and that framesd is up; then load again")
    return ConfigurationError(f"{where}: {text}", remedy=_ADDRESS_REMEDY)


def _refused(what: str, status: int) -> ModelstreamError:
    if status in (408, 429) or status >= 500:
        return UnavailableError(what, remedy="load the table again when V3IO works")
    if status in (401, 403):
        return ConfigurationError(what, remedy="give V3IO_ACCESS_KEY the key of a user who may write this container")
    return ConfigurationError(what, remedy="check the URL, and that framesd and V3IO_API belong to the same V3IO")
