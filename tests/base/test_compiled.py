"""A compiled function gives the same bits as the plain one, which stays where numba isn't or isn't wanted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.base import compiled as module
from modelstream.base.compiled import compiled
from modelstream.features import statistics


def double(x: int) -> int:
    return 2 * x


def test_function_stays_as_it_is_when_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTREAM_NUMBA", "0")
    assert compiled(double) is double


def test_function_stays_as_it_is_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELSTREAM_NUMBA", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compiled(double) is double


def test_function_of_a_notebook_has_no_file_and_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELSTREAM_NUMBA", raising=False)
    cell: dict[str, Any] = {}
    exec("def triple(x):\n    return 3 * x", cell)
    found: Any = compiled(cell["triple"])
    assert found(14) == 42
    assert found.signatures


def test_compiled_functions_are_kept_for_this_state_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = module._cache_folder()
    assert folder == module._cache_folder()
    real = Path.read_bytes

    def edited(path: Any) -> bytes:
        return real(path) + (b"# edited" if path.name == "statistics.py" else b"")

    monkeypatch.setattr(Path, "read_bytes", edited)
    other = module._cache_folder.__wrapped__()
    assert other != folder, "numba itself would not see that a callee has changed"
    Path(other).rmdir()


@given(st.lists(st.floats(-1e9, 1e9), max_size=20))
def test_both_give_the_same_bits(xs: list[float]) -> None:
    update: Any = statistics.update
    as_written = getattr(update, "py_func", update)
    fast, plain = np.zeros(4), np.zeros(4)
    for x in xs:
        update(fast, x)
        as_written(plain, x)
    assert fast.tobytes() == plain.tobytes()
