"""No pickle is read or written anywhere in the project: it runs code of whoever made the file."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstream import notebooks
from tests.model_files import SHIPPED

ROOT = Path(__file__).parents[1]
MODULES = {
    *("pickle", "cPickle", "_pickle", "pickletools", "cloudpickle", "dill", "joblib", "shelve", "marshal"),
    *("jsonpickle", "hickle", "klepto", "skops", "copyreg", "torch", "multiprocessing"),
}
"""Modules that unpickle, or use what does (multiprocessing passes objects as pickles)."""
CALLS = {
    *("read_pickle", "to_pickle", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "load_all"),
    *("UnsafeLoader", "FullLoader", "Unpickler", "load_pickle", "eval"),
}


def sources() -> Iterator[tuple[str, str]]:
    """Yield every piece of the project's Python: name and text."""
    for folder in ("modelstream", "servers", "assets", "bench", "use_cases"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for path in sorted(ROOT.glob("*.py")):
        yield path.name, path.read_text("utf-8")
    for path in sorted((ROOT / "functions").glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield path.name, "\n".join(line for line in "\n".join(code).splitlines() if not line.startswith(("%", "!")))


def findings(text: str) -> Iterator[str]:
    """Yield what in a source could read a pickle."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0], *(alias.name for alias in node.names)}
            yield from sorted(names & (MODULES | CALLS))
        elif isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in CALLS or name in MODULES:
                yield name
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    for keyword in node.keywords:
        if keyword.arg == "allow_pickle" and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        ):
            yield "allow_pickle"
    texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    if called in ("__import__", "importlib.import_module", "import_module", "getattr"):
        yield from (text for text in texts if text.split(".")[0] in MODULES | CALLS)
    if (
        called in ("yaml.load", "yaml.parse")
        and "Safe" not in ast.unparse(node)
        and "Loader=loader" not in ast.unparse(node)
    ):
        yield f"{called} without a safe loader"


def test_sources_are_found() -> None:
    names = [name for name, _ in sources()]
    assert len(names) > 80
    assert {"pipeline.py", "modelstream/registry/registry.py", "modelstream/stages/model_server.py"} <= set(names)
    assert "model-server.ipynb" in names


@pytest.mark.parametrize(("name", "text"), list(sources()), ids=lambda value: value if len(value) < 80 else "")
def test_no_pickle_is_imported_or_called(name: str, text: str) -> None:
    assert list(findings(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import pickle as p",
        "import os, cloudpickle",
        "from joblib import load",
        "from sklearn.externals import joblib",
        "def f():\n    import dill\n",
        "import pandas; pandas.read_pickle('x')",
        "frame.to_pickle('x')",
        "import numpy as np; np.load('x', allow_pickle=True)",
        "import numpy as np; np.load('x', allow_pickle=flag)",
        "import yaml; yaml.load(text, Loader=yaml.FullLoader)",
        "import yaml; yaml.load(text)",
        "yaml.unsafe_load(text)",
        "__import__('pickle').loads(data)",
        "import importlib; importlib.import_module('pickle')",
        "getattr(pandas, 'read_pickle')(path)",
        "import multiprocessing.pool",
        "eval(text)",
    ],
)
def test_what_it_looks_for_is_found(text: str) -> None:
    assert list(findings(text))


@pytest.mark.parametrize(
    "text", ["import yaml; yaml.safe_load(t)", "import numpy as np; np.load('x', allow_pickle=False)", "json.load(f)"]
)
def test_what_is_harmless_is_not_found(text: str) -> None:
    assert not list(findings(text))


def test_nothing_is_unpickled_while_a_model_is_loaded(tmp_path: Path) -> None:
    """Python tells its audit hooks of every class that a pickle asks for."""
    script = f"""
import sys
found = []
sys.addaudithook(lambda event, args: found.append(args) if event == "pickle.find_class" else None)
from modelstream.registry.registry import Registry
from tests.model_files import CHURN, directory
import pathlib
folder, shipped = pathlib.Path({str(tmp_path)!r}), pathlib.Path({str(SHIPPED)!r})
registry = Registry(folder, CHURN.model_name, CHURN.features, shipped=shipped)
registry.register(directory)
registry.promote("2")
registry.load("1")
assert not found, found
import pickle, fractions
pickle.loads(pickle.dumps(fractions.Fraction(1, 3)))
assert found, "the hook works"
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_code_of_a_notebook_is_what_is_walked() -> None:
    """The block that runs stands in what `sources` gives."""
    walked = dict(sources())
    for path in sorted((ROOT / "functions").glob("*.ipynb")):
        assert notebooks.code(path).splitlines()[-1] in walked[path.name]
