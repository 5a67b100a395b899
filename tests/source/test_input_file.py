"""A file of events is opened, or refused with what it is and what to give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelstream.errors import ConfigurationError
from modelstream.source.input_file import open_input


def test_plain_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "events.ndjson").write_bytes(b"{}\n")
    with open_input(tmp_path / "events.ndjson") as file:
        assert file.read() == b"{}\n"


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, problem in ((tmp_path, "is a folder"), (tmp_path / "pipe", "is not a plain file")):
        with pytest.raises(ConfigurationError, match=problem) as told:
            open_input(path)
        assert "--input -" in told.value.remedy


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.ndjson"):
        open_input(tmp_path / "none.ndjson")


def test_a_supervisor_does_without_the_kernels_of_readers() -> None:
    """75 MB: a run's supervisor only looks at the file."""
    code = "import sys, modelstream.runner.run, modelstream.source.input_file; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
