"""Every package says in its docstring what is in it, and what most people use says how, by an example."""

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


ROOMS = ("stages", "streams", "tables", "logs", "features", "model", "registry", "replay")
REASON = re.compile(r"\bexample\b|`[\w.]+` (raises it|raises for it|gives them|gives it one)\.", re.IGNORECASE)
"""Where another docstring or a test has the example, or why there is none."""


def public(text: str) -> list[tuple[str, str]]:
    """Return the public classes and functions of a module with their docstrings, a class with those of its methods."""
    found = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            inner = [each for each in node.body if isinstance(node, ast.ClassDef) and isinstance(each, ast.FunctionDef)]
            found.append((node.name, "\n".join(ast.get_docstring(each) or "" for each in (node, *inner))))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_public_has_an_example_or_says_where_one_is(room: str) -> None:
    read = {path: public(path.read_text("utf-8")) for path in sorted((ROOT / "modelstream" / room).rglob("*.py"))}
    bare = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, each in read.items()
        for name, text in each
        if ">>>" not in text and not REASON.search(text)
    ]
    assert bare == []
    assert sum(map(len, read.values())) > 2
