"""The command line, run in the process of a test."""

from __future__ import annotations

import pytest

from pipeline import main


def pipeline(*arguments: object) -> int:
    """Run `pipeline.py` with some arguments; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code
