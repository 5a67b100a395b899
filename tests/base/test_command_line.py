"""Command lines are printed so that they work where they are read."""

from __future__ import annotations

import ast
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstream.base import command_line

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("activated", "folder", "expected"),
    [
        (True, ".", "python pipeline.py status"),
        (False, ".", ".venv/bin/python pipeline.py status"),
        (True, "..", "python {root}/pipeline.py status"),
        (False, "..", "{root}/.venv/bin/python {root}/pipeline.py status"),
    ],
)
def test_hint_works_in_the_shell_that_it_is_printed_in(
    activated: bool, folder: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "my project"
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setattr(command_line, "FOLDER", root)
    monkeypatch.setenv("PATH", os.pathsep.join([str(python.parent)] * activated + ["/usr/bin", "/bin"]))
    monkeypatch.chdir(root / folder)
    named = expected.replace("{root}", "my project")
    assert shlex.split(command_line.pipeline("status")) == shlex.split(named.replace("my project", "'my project'"))
    told = command_line.as_typed_here("run `python pipeline.py status`, or `make kfp`")
    assert command_line.as_typed_here(command_line.pipeline("status")) == command_line.pipeline("status")
    make = "make kfp" if folder == "." else f"make -C '{root}' kfp"
    assert told == f"run `{command_line.pipeline('status')}`, or `{make}`"


def test_script_is_printed_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["../x/pipeline.py", "run"])
    assert command_line.pipeline("status").endswith("python ../x/pipeline.py status")


def test_deleted_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert command_line.pipeline("run").endswith(f" {ROOT}/pipeline.py run")


# What is printed goes through it.


def hints(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of command lines that stand in texts, but for docstrings and what errors are given."""
    if isinstance(tree, ast.Call):
        name = tree.func.attr if isinstance(tree.func, ast.Attribute) else getattr(tree.func, "id", "")
        if name.endswith("Error"):
            return
    if isinstance(tree, ast.Expr) and isinstance(tree.value, ast.Constant):
        return
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str) and command_line.WRITTEN in tree.value:
        yield tree.lineno
    for child in ast.iter_child_nodes(tree):
        yield from hints(child)


@pytest.mark.parametrize("folder", ["modelstream/commands", "modelstream/http", "servers"])
def test_hints_ask_how_a_command_line_is_typed(folder: str) -> None:
    """`errors_in_words` does so for errors, and `pipeline.py` for the help."""
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / folder).rglob("*.py")
        for line in hints(ast.parse(path.read_text("utf-8")))
    }
    assert found == set(), "use modelstream.base.command_line.pipeline(…)"
    assert [*hints(ast.parse('"""python pipeline.py"""\nprint(f"python pipeline.py {1}")'))] == [2]
