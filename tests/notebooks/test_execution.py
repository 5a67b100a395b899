"""The notebooks run from top to bottom, as in Jupyter, and are committed without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FUNCTIONS = Path(__file__).parents[2] / "functions"
NOTEBOOKS = sorted(FUNCTIONS.glob("*.ipynb"))


def test_every_function_has_its_notebook() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {
        "data-generator",
        "event-handler",
        "stream-to-features",
        "model-server",
        "optional-training",
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.source for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_a_plot(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FUNCTIONS)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
