"""An error in a hook tells the notebook, cell and line, and the row; what may pass is left as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream import notebooks
from modelstream.base.hooks import MOST_SHOWN, call_hook, defined_at, place_of
from modelstream.errors import HookError, UnavailableError


def fails(name: str, hook: Callable[[list[Any]], object], rows: list[Any]) -> str:
    """Return what is told of a hook that fails."""
    with pytest.raises(HookError) as told:
        call_hook(name, lambda first, last: hook(rows[first:last]), len(rows), lambda row: f"<{rows[row]}>")
    return str(told.value)


@given(st.integers(1, 300), st.data())
def test_the_row_is_found_and_the_hook_called_a_few_times_only(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, count - 1))
    calls = []

    def hook(rows: list[int]) -> None:
        calls.append(rows)
        {row: row for row in range(count) if row != bad}[bad] if bad in rows else None

    told = fails("hook(rows)", hook, list(range(count)))
    assert told.endswith(f"hook(rows): KeyError: {bad}; at the row <{bad}>")
    assert len(calls) <= 1 + 2 * count.bit_length()


def test_the_notebook_the_cell_and_the_line_are_told(tmp_path: Path) -> None:
    cells = [
        ("markdown", "# A notebook"),
        ("code", "# mlrun: start-code\nimport json\n\n\ndef helper(row):\n    return json.loads(row)\n"),
        ("code", "def transform(rows):\n    return [helper(row) for row in rows]\n\n\n# mlrun: end-code"),
    ]
    path = tmp_path / "events.ipynb"
    parts = [{"cell_type": kind, "source": text, "metadata": {}} for kind, text in cells]
    path.write_text(json.dumps({"cells": parts, "nbformat": 4, "metadata": {}}))
    transform = notebooks.load(path).transform
    assert defined_at(transform) == f"{path}:cell 3, line 1: "
    told = fails("transform(batch)", transform, ["1", "2", "{", "3"])
    assert told.startswith(f"{path}:cell 2, line 6: transform(batch): JSONDecodeError: Expecting property name")
    assert told.endswith("; at the row <{>")


def test_rows_that_fail_together_only_are_told_by_their_number() -> None:
    def alone(rows: list[int]) -> list[int]:
        assert len(rows) < 3
        return rows

    assert fails("hook(rows)", alone, [1, 2, 3, 4, 5]).endswith("at 3 rows together")


class BothError(OSError, ValueError):
    """As `requests.JSONDecodeError` is."""


@pytest.mark.parametrize(
    "error", [ConnectionError("gone"), TimeoutError(), BothError("x"), UnavailableError("x"), Exception()]
)
def test_what_may_pass_is_left_as_it_is(error: Exception) -> None:
    def away(_: int, __: int) -> None:
        raise error

    with pytest.raises(type(error)) as told:
        call_hook("hook(rows)", away, 8, str)
    assert told.value is error
    assert place_of(told.value.__traceback__).startswith(f"{__file__}, line ")


def test_an_outage_while_the_row_is_looked_for_hides_nothing() -> None:
    def hook(first: int, last: int) -> None:
        if last - first < 4:
            raise ConnectionError("gone")
        raise KeyError("x")

    with pytest.raises(HookError, match="KeyError: 'x'; at 4 rows together"):
        call_hook("hook(rows)", hook, 4, str)


def test_a_large_row_is_cut() -> None:
    def hook(_: list[str]) -> None:
        raise ValueError("x")

    assert len(fails("hook(rows)", hook, ["y" * 10_000])) < MOST_SHOWN + 300
