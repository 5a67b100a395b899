"""READMEs and docs name only what exists: paths, functions in files, command lines, and links with their anchors."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_command_line import called_by

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "tests" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

MADE = ("data/", "build/", "artifacts/models/", "artifacts/runs/")
"""Where runs, trainings and dry runs put what they make."""
IN_DATA = ("streams/", "tables/", "events/", "inference/", "logs/", ".events.writing/", ".inference.writing/")
"""Folders of a data folder."""
OTHERS = {"pkg/processor/runtime/python/py", "_nuclio_wrapper.py"}
"""Files of other projects."""
WHERE = (ROOT, ROOT / "docs", ROOT / "tests")
"""The folders from which the docs name files."""


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def paths(text: str) -> Iterator[str]:
    """Yield the paths in backticks: `folder/…` and `….py`, without a name that follows a colon."""
    for span in re.findall(r"`([^`\n]+)`", prose(text)):
        path = span.partition(": ")[0]
        if re.fullmatch(r"[a-z_.][\w.-]*(/[\w.-]*)+|\w+\.py", path) and "NAME" not in path:
            yield path


def functions(text: str) -> Iterator[tuple[str, str]]:
    """Yield every `path.py: name` in backticks."""
    yield from re.findall(r"`([\w/]+\.py): ([\w.]+)`", text)


def command_lines(text: str) -> Iterator[str]:
    """Yield the arguments of every `python pipeline.py …`, in prose and in blocks of code."""
    for line in re.findall(r"python pipeline\.py([^\n`]*)", text):
        yield re.sub(r"\s#.*", "", line).strip()


def links(text: str) -> Iterator[str]:
    """Yield the targets of links and pictures within the repository."""
    yield from (target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target)


def names_in(path: Path) -> set[str]:
    """Return the classes and functions of a module, and the methods of its classes."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.AsyncFunctionDef)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
    return names


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def found(of: Callable[[str], Iterator[Any]]) -> list[Any]:
    """Return a parameter for each thing that is found in each page."""
    each = [(page, one) for page in PAGES for one in dict.fromkeys(of(page.read_text("utf-8")))]
    return [pytest.param(page, one, id=f"{page.name}: {one}") for page, one in each]


@pytest.mark.parametrize(("page", "path"), found(paths))
def test_path_exists(page: Path, path: str) -> None:
    known = path.startswith((*MADE, *IN_DATA)) or path in OTHERS
    assert known or any((folder / path).exists() for folder in WHERE), page


@pytest.mark.parametrize(("page", "named"), found(functions))
def test_function_exists(page: Path, named: tuple[str, str]) -> None:
    path, name = named
    assert name in names_in(ROOT / path), page


@pytest.mark.parametrize(("page", "arguments"), found(command_lines))
def test_command_line_is_understood(page: Path, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments != "COMMAND --help":
        called_by(shlex.split(arguments), monkeypatch)


@pytest.mark.parametrize(("page", "target"), found(links))
def test_link_leads_somewhere(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    there = page.parent / name if name else page
    assert there.exists()
    assert not anchor or anchor in anchors(there.read_text("utf-8"))


# The checker


def test_what_the_docs_name_is_found() -> None:
    text = """# What happens on … (an outage)
See `modelstream/a/b.py: C.d`, `docs/x.md`, `app.py`, `1/2`, `--data`, `s3://b/c`, [a](b.md#c), [d](https://e.org/f).
Then `python pipeline.py peek STREAM` or
```
python pipeline.py status --json   # `not/this`
```"""
    assert [*paths(text)] == ["modelstream/a/b.py", "docs/x.md", "app.py"]
    assert [*functions(text)] == [("modelstream/a/b.py", "C.d")]
    assert [*command_lines(text)] == ["peek STREAM", "status --json"]
    assert [*links(text)] == ["b.md#c"]
    assert anchors(text) == {"what-happens-on--an-outage"}
    assert {"found", "test_path_exists"} <= names_in(Path(__file__))


def test_option_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="No such option: --data"):
        called_by(["undeploy", "--config", "clusters/kafka.yaml", "--data"], monkeypatch)
