"""Nuclio's own parts, from the folder with its source that `MODELSTREAM_NUCLIO` names (version 1.14.1).

The wrapper is taken as it is, the processor is built by Go, and msgpack, which the wrapper imports, comes by pip. All
of it goes into build/nuclio once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = os.environ.get("MODELSTREAM_NUCLIO", "")
INTERRUPTIONS = int(os.environ.get("MODELSTREAM_NUCLIO_INTERRUPTIONS", "30"))
"""Of the workers of each function in the wrapper alone; of all pods in the whole processor."""
BUILT = ROOT / "build" / "nuclio"

needs_nuclio = pytest.mark.skipif(not SOURCE, reason="MODELSTREAM_NUCLIO names no folder with Nuclio's source")


@cache
def wrapper() -> Path:
    """Return a folder with `_nuclio_wrapper.py` and msgpack."""
    theirs = Path(SOURCE, "pkg", "processor", "runtime", "python", "py")
    folder = BUILT / "py"
    if not (folder / "msgpack").exists():
        wanted = (theirs / "requirements" / "python3_11.txt").read_text().split()
        (msgpack,) = (line for line in wanted if line.startswith("msgpack=="))
        temporary = folder.with_name(f"py.{os.getpid()}")
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(temporary), msgpack])
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    shutil.copy(theirs / "_nuclio_wrapper.py", folder)
    return folder


@cache
def processor() -> Path:
    """Return the processor; about a minute if it has to be built."""
    built = BUILT / "processor"
    if not built.exists():
        temporary = built.with_name(f"processor.{os.getpid()}")
        _run(["go", "build", "-o", str(temporary), "./cmd/processor"], cwd=Path(SOURCE))
        temporary.rename(built)
    return built


def _run(command: list[str], cwd: Path = ROOT) -> None:
    BUILT.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
