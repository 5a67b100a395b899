"""Every module of the library is imported by a test, or stands below with the test that covers it all the same."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = "modelstream"

Covered = Mapping[str, tuple[str, str]]
BY_COMMAND = "through the command line"
BY_CONTRACT = "through the contract of all backends"

COVERED: Covered = {
    # "modelstream.<module>": ("tests/<file that fails when the module is broken>", "<by what way>")
    "base.without_pandas": ("base/test_without_pandas.py", "in processes of their own"),
    "cluster.compile": ("cluster/test_workflow.py", "in a process of the environment with Kubeflow's compiler"),
    "commands.deploy": ("commands/test_command_line.py", BY_COMMAND),
    "commands.drift": ("training/drift/test_drift.py", BY_COMMAND),
    "commands.formats": ("commands/test_table.py", BY_COMMAND),
    "commands.models": ("commands/test_models.py", BY_COMMAND),
    "commands.options": ("commands/test_command_line.py", BY_COMMAND),
    "commands.run": ("commands/test_run.py", BY_COMMAND),
    "base.prefetch": ("features/test_vocabulary.py", "through the kernel, which does not compile without it"),
    "features.prepared": ("features/test_vocabulary.py", "through the engine, which gives its names on"),
    "features.sessions": ("features/test_vocabulary.py", "through the engine"),
    "features.users": ("features/test_engine.py", "through the engine, which keeps users in memory with it"),
    "features.windows": ("features/test_vocabulary.py", "through the engine"),
    "logs.longer": ("contract/test_log_publishing.py", "through the publication of a log"),
    "registry.bucket": ("contract/test_registry_in_s3.py", BY_CONTRACT),
    "runner.job": ("end_to_end/test_run.py", "in the source's process"),
    "source.generator_kernels": ("source/test_generator.py", "through the generator"),
    "streams.contract": ("contract/test_sqlite_streams.py", BY_CONTRACT),
    "streams.kafka_admin": ("contract/test_kafka_streams.py", BY_CONTRACT),
    "tables.contract": ("contract/test_sqlite_tables.py", BY_CONTRACT),
    "tables.redis": ("contract/test_redis_tables.py", BY_CONTRACT),
    "tables.redis_rows": ("contract/test_redis_tables.py", BY_CONTRACT),
    "tables.redis_scripts": ("contract/test_redis_tables.py", BY_CONTRACT),
    "tables.sqlite": ("contract/test_sqlite_tables.py", BY_CONTRACT),
    "tables.sqlite_rows": ("contract/test_sqlite_tables.py", BY_CONTRACT),
    "tables.v3io_features": ("contract/test_v3io_tables.py", BY_CONTRACT),
    "tables.v3io_rows": ("contract/test_v3io_tables.py", BY_CONTRACT),
    "training.drift.drift_plot": ("training/drift/test_drift.py", "through the page"),
    "training.drift.reference": ("training/drift/test_drift.py", BY_COMMAND),
    "training.snapshot.keeper": ("training/snapshot/test_snapshot.py", "through the snapshot"),
}
"""Take a module out as soon as a test imports it. A new entry is true if its test fails when the module is broken."""


def has_code(text: str) -> bool:
    """Tell whether a package's `__init__` holds more than its description and names."""
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(text).body)


def modules() -> set[str]:
    """Return the modules that a test has to import, without the library's name."""
    found = set()
    for path in (ROOT / LIBRARY).rglob("*.py"):
        parts = path.relative_to(ROOT / LIBRARY).with_suffix("").parts
        if parts[-1] != "__init__":
            found.add(".".join(parts))
        elif has_code(path.read_text("utf-8")):
            found.add(".".join(parts[:-1]))
    return found


def imported(text: str, known: Iterable[str]) -> set[str]:
    """Return those of the known modules that a test's text imports: itself, not what they import in their turn."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in known if f"{LIBRARY}.{name}" in names}


def problems(known: set[str], direct: set[str], covered: Covered, tests: set[str]) -> list[str]:
    """Return what is wrong with the table, in words."""
    told = [f"{name}: no test imports it, and it isn't said what covers it" for name in known - direct - set(covered)]
    told += [f"{name}: there is no such module any more" for name in set(covered) - known]
    told += [f"{name}: a test imports it, so it needs no entry" for name in set(covered) & direct]
    told += [f"{name}: there is no tests/{test}" for name, (test, _) in covered.items() if test not in tests]
    return sorted(told)


def test_every_module_is_imported_by_a_test_or_covered_by_one() -> None:
    files = {path for pattern in ("test_*.py", "*_contract.py") for path in (ROOT / "tests").rglob(pattern)}
    known = modules()
    direct = {name for path in files for name in imported(path.read_text("utf-8"), known)}
    assert len(direct) > 100
    tests = {str(path.relative_to(ROOT / "tests")) for path in files}
    assert problems(known, direct, COVERED, tests) == []


# The rules by themselves.


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import modelstream.a.b", {"a.b"}),
        ("from modelstream.a import b", {"a", "a.b"}),
        ("from modelstream.a.b import Name as Other", {"a.b"}),
        ("def f():\n    from modelstream.a.b import Name", {"a.b"}),
        ("from modelstream.a import Name", {"a"}),
        ("import modelstream.a.bc", set()),
        ("'modelstream.a.b'", set()),
        ("from tests.a.b import Name", set()),
    ],
)
def test_what_a_test_imports_is_read_from_its_text(text: str, found: set[str]) -> None:
    assert imported(text, ["a", "a.b"]) == found


@pytest.mark.parametrize(
    ("known", "direct", "covered", "said"),
    [
        ({"a", "b"}, {"a"}, {"b": ("test_b.py", "somehow")}, []),
        ({"a", "b"}, {"a"}, {}, ["b: no test imports it, and it isn't said what covers it"]),
        ({"a"}, {"a"}, {"b": ("test_b.py", "somehow")}, ["b: there is no such module any more"]),
        ({"a"}, {"a"}, {"a": ("test_b.py", "somehow")}, ["a: a test imports it, so it needs no entry"]),
        ({"a"}, set(), {"a": ("test_c.py", "somehow")}, ["a: there is no tests/test_c.py"]),
    ],
)
def test_what_is_wrong_is_told(known: set[str], direct: set[str], covered: Covered, said: list[str]) -> None:
    assert problems(known, direct, covered, {"test_b.py"}) == said


def test_a_package_of_names_alone_needs_no_test() -> None:
    assert not has_code('"""What it is."""\n\nfrom modelstream.a import b\n\n__all__ = ["b"]\n')
    assert has_code("def f(): ...")
