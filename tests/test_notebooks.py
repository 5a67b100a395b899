"""The block of a notebook: found as MLRun finds it, and made a module whose tracebacks name the cells."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from modelstream import notebooks
from modelstream.errors import ConfigurationError

FUNCTIONS = Path(__file__).parents[1] / "functions"


def write(path: Path, *cells: str | tuple[str, dict[str, object]]) -> Path:
    """Write a notebook of code cells: their text, or (text, members of the cell)."""
    described = []
    for number, cell in enumerate(cells):
        text, more = (cell, {}) if isinstance(cell, str) else cell
        described.append(
            {
                "cell_type": "code",
                "id": f"c{number}",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": text.splitlines(keepends=True),
                **more,
            }
        )
    path.write_text(json.dumps({"cells": described, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return tmp_path / "some-function.ipynb"


def test_block_of_one_cell(notebook: Path) -> None:
    write(notebook, "x = 1 / 0", "# mlrun: start-code\n\nx = 2\n# mlrun: end-code\nx = 3")
    assert notebooks.code(notebook) == notebooks.HEADER + "x = 2\n\n"
    assert notebooks.load(notebook).x == 2


def test_block_over_several_cells_leaves_out_markdown_and_ignored_cells(notebook: Path) -> None:
    write(
        notebook,
        "before = 1",
        "# mlrun: start-code\nx = 1",
        ("text", {"cell_type": "markdown"}),
        "# nuclio: ignore\nx = 2",
        ("x = 3", {"metadata": {"tags": ["mlrun-ignore"]}}),
        "y = x",
        "# mlrun: end-code",
        "x = 4",
    )
    module = notebooks.load(notebook)
    assert (module.x, module.y, hasattr(module, "before")) == (1, 1, False)
    assert [piece.cell for piece in notebooks.pieces(notebook)] == [2, 6]


def test_source_as_one_text(notebook: Path) -> None:
    write(notebook, ("", {"source": "# mlrun: start-code\nx = 1\n# mlrun: end-code"}))
    assert notebooks.load(notebook).x == 1


def test_future_import_holds_for_later_cells(notebook: Path) -> None:
    write(
        notebook,
        "# mlrun: start-code\nfrom __future__ import annotations",
        "def f(x: not_defined): pass",
        "# mlrun: end-code",
    )
    assert notebooks.load(notebook).f.__annotations__ == {"x": "not_defined"}


def test_dataclasses_work(notebook: Path) -> None:
    write(
        notebook,
        "# mlrun: start-code\nfrom __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Row:\n    key: str\n# mlrun: end-code",
    )
    row = notebooks.load(notebook).Row("a")
    assert dataclasses.asdict(row) == {"key": "a"}


def test_footer_runs_in_the_same_module(notebook: Path) -> None:
    write(notebook, "# mlrun: start-code\nx = 1\n# mlrun: end-code")
    assert notebooks.load(notebook, "def handler(context, event): return x").handler(None, None) == 1


def test_traceback_names_the_cell_and_shows_its_line(notebook: Path) -> None:
    text = "# about\n# mlrun: start-code\n\ndef handler():\n    return 1 / 0\n# mlrun: end-code"
    module = notebooks.load(write(notebook, "0", text))
    with pytest.raises(ZeroDivisionError) as raised:
        module.handler()
    shown = "".join(traceback.format_exception(raised.value))
    assert f'File "{notebook}:cell 2", line 5, in handler\n    return 1 / 0\n' in shown


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["x = 1"], "no line `# mlrun: start-code`"),
        (["# mlrun: start-code\nx = 1"], "no line `# mlrun: end-code`"),
        (["x = 1\n# mlrun: end-code"], "cell 1, line 2: end-code without a start-code"),
        (["# mlrun: end-code\n# mlrun: start-code"], "cell 1, line 1: end-code without a start-code"),
        (
            ["# mlrun: start-code\nx=1", "# mlrun: start-code\nx=1"],
            "cell 2, line 1: a second start-code, although the block",
        ),
        (
            ["# mlrun: start-code mine\n# mlrun: end-code mine"],
            "cell 1, line 1: blocks can't have a name here: mine",
        ),
        (["x = 1\n# mlrun: start-code", "# mlrun: end-code"], "cell 1, line 2: start-code must be at the top"),
        (["# mlrun: start-code\n# mlrun: end-code"], "there is no code between"),
        (["# mlrun: start-code\nx = 1\n!ls\n# mlrun: end-code"], "cell 1, line 3: '!ls' is only for Jupyter"),
        (
            ["# mlrun: start-code", "\n%time\n# mlrun: end-code"],
            "cell 2, line 2: '%time' is only for Jupyter",
        ),
        (["# mlrun: start-code\n\nx = = 1\n# mlrun: end-code"], "cell 1, line 3: invalid syntax: x = = 1"),
        (["# mlrun: start-code", "x?", "# mlrun: end-code"], "cell 2, line 1: invalid syntax: x?"),
        (["# mlrun: start-code\nx\n# mlrun: end-code"], "cell 1, line 2: NameError: name 'x' is not defined"),
    ],
)
def test_error_names_file_cell_and_line(notebook: Path, cells: list[str], expected: str) -> None:
    write(notebook, *cells)
    with pytest.raises(ConfigurationError) as raised:
        notebooks.load(notebook)
    assert str(raised.value).startswith(str(notebook))
    assert expected in str(raised.value)
    assert raised.value.remedy or "no code between" in expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"worksheets": []}', b'{"cells": [1]}', b"\xff"])
def test_broken_file_is_named(notebook: Path, content: bytes) -> None:
    notebook.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"{notebook}: not a notebook"):
        notebooks.load(notebook)


def test_missing_file_is_named(notebook: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{notebook}: No such file"):
        notebooks.load(notebook)


def test_loading_imports_neither_mlrun_nor_nbconvert(notebook: Path) -> None:
    write(notebook, "# mlrun: start-code\nx = 1\n# mlrun: end-code")
    program = (
        "import sys; from modelstream import notebooks; notebooks.load(sys.argv[1]); "
        "print([m for m in ('mlrun', 'nuclio', 'IPython', 'nbformat', 'yaml') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program, str(notebook)], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr


@pytest.mark.parametrize(
    "cells",
    [
        ["# mlrun: start-code\n\n\nx = 1\n\n# mlrun: end-code"],
        ["#nuclio:start-code  \n  # mlrun: end-code", "# mlrun: start-code\nx = 1  # mlrun: end-code"],
        [
            "a = 1",
            "# mlrun: start-code",
            "x = '''\n# what is this?\n  %a\n'''\n\n",
            "y = x",
            "# mlrun: end-code",
        ],
        [
            "# mlrun: start-code\nx = 1\r\ny = 2\n# mlrun: end-code",
            "z",
            "# mlrun: start-code\nz = 1\n# mlrun: end-code",
        ],
        [
            "# mlrun: start-code\nx = 1",
            "# nuclio: ignore\nz",
            ("w", {"metadata": {"tags": ["nuclio-ignore"]}}),
            "# mlrun: end-code",
        ],
        ["# mlrun: start-code\nx = [\n    ...,\n]\nprint(x, end='?')\n\t# mlrun: end-code"],
    ],
)
def test_text_equals_that_of_the_exporter(notebook: Path, cells: list[str]) -> None:
    """MLRun calls this exporter through nbconvert, in a process of its own; here it is called at once."""
    import yaml
    from nuclio.export import NuclioExporter

    write(notebook, *cells)
    theirs = NuclioExporter().from_filename(str(notebook))[0]
    text = base64.b64decode(yaml.safe_load(theirs)["spec"]["build"]["functionSourceCode"]).decode()
    assert notebooks.code(notebook) == text


@pytest.mark.parametrize("path", sorted(FUNCTIONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    for cell in json.loads(path.read_text())["cells"]:
        assert cell["cell_type"] != "code" or (cell["outputs"] == [] and cell["execution_count"] is None)
