"""Tells when no more events should be taken: processing is too far behind, or the disk is nearly full."""

from __future__ import annotations

import os
from pathlib import Path

from modelstream.runner.state import PipelineState

RESERVE = 256 << 20
"""Bytes that stay free for what was accepted: its way through four streams and two logs takes several times its size…
"""
RESERVE_PART = 0.05
"""…but no more than this part of a small disk."""


def disk_low(folder: Path) -> bool:
    """Tell whether the disk of a folder is nearly full; no if there is none, which others notice."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < min(RESERVE, RESERVE_PART * disk.f_blocks * disk.f_frsize)


def overload(state: PipelineState, max_delay: float) -> str:
    """Return why no more events should be taken, in a sentence; "" if they should.

    >>> from modelstream.runner.state import FunctionState
    >>> late = FunctionState(name="model-server", state="working", delay=31.0)
    >>> overload(PipelineState(0.0, (late,)), max_delay=30.0)
    'the pipeline is behind: an event has been waiting for model-server for 31 s, longer than 30 s (--max-delay)'
    >>> overload(PipelineState(0.0, (late,)), max_delay=60.0)
    ''
    """
    if state.disk_low:
        return "the disk of the data folder is nearly full: what is left is kept for the events that were accepted"
    slowest = max(state.functions, key=lambda function: function.delay, default=None)
    if slowest is None or slowest.delay <= max_delay:
        return ""
    return (
        f"the pipeline is behind: an event has been waiting for {slowest.name} for {slowest.delay:.0f} s, "
        f"longer than {max_delay:g} s (--max-delay)"
    )
