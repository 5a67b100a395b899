"""Every package says in its docstring what is in it: a table of contents that leaves nothing out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(
    path.parent for room in ("modelstream", "servers", "bench") for path in (ROOT / room).rglob("__init__.py")
)


def contents(folder: Path) -> set[str]:
    """Return the modules and packages in a folder."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return modules | {path.parent.name for path in folder.glob("*/__init__.py")}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_package_names_each_of_its_modules(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    named = re.findall(r"`(?:\w+/)*(\w+)(?:\.py|/)?`", text)  # `file`, `file.py`, `folder/`
    assert contents(folder) - set(named) == set()
