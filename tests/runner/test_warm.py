"""What every first run would have to wait for is done beforehand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from modelstream.runner.warm import LIBRARIES

ROOT = Path(__file__).parents[2]
KERNELS = """
import importlib, pkgutil
import modelstream
from numba.core.dispatcher import Dispatcher
from modelstream.project import load_project
from modelstream.runner.warm import of_features, of_lines

of_lines(load_project())
of_features(load_project())
for module in pkgutil.walk_packages(modelstream.__path__, "modelstream."):
    if module.name.startswith(("modelstream.base", "modelstream.events", "modelstream.features", "modelstream.source")):
        importlib.import_module(module.name)
modules = [module for name, module in [*importlib.sys.modules.items()] if name.startswith("modelstream.")]
found = {one for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)}
used = [one.py_func.__globals__.get(name) for one in found for name in one.py_func.__code__.co_names]
within = {one for one in used if isinstance(one, Dispatcher)}
print(len(found), *(one.py_func.__name__ for one in found - within if not one.signatures))
"""


def test_every_kernel_that_python_calls_is_compiled() -> None:
    """Those that only other kernels call are compiled with them."""
    told = subprocess.run([sys.executable, "-c", KERNELS], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    count, *missing = told.split()
    assert int(count) > 20
    assert set(missing) <= {"get", "update_many"}, "nothing in the library calls these"


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_libraries_are_there(name: str) -> None:
    assert importlib.util.find_spec(name) is not None


VARIANTS = """
import numpy as np, pyarrow as pa
from modelstream.events import flat_lines
from modelstream.events.parsing import LineParser
from modelstream.messages.codec import LINE, LINES_SCHEMA, decode, encode
from modelstream.project import load_project
from modelstream.use_case.file import load_use_case

parser = LineParser(load_use_case(load_project().use_case_file))
lines, positions = pa.array([b'{"a": 1}', b"{}"], pa.binary()), np.arange(2)
sent = decode(encode("lines", "", pa.record_batch([positions, lines], LINES_SCHEMA))).batch.column(LINE)
for texts in (lines, sent, pa.concat_arrays([sent, lines])):
    parser.parse(texts, np.arange(len(texts)), 0)
print(len(flat_lines._read.signatures))
"""


def test_lines_of_any_origin_are_read_by_one_kernel() -> None:
    """numba compiles anew for arrays that can be written, as some of Arrow's can: 3 s in the middle of a first run."""
    told = subprocess.run([sys.executable, "-c", VARIANTS], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert told.split() == ["1"]
