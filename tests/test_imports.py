"""Who may import whom: downwards only, and nowhere in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from modelstream import notebooks

ROOT = Path(__file__).parents[1]
LIBRARY = "modelstream"

LEVELS = (
    ("errors", "base"),
    ("use_case", "project", "settings", "notebooks", "clients"),
    ("messages", "features"),
    ("streams", "tables", "logs", "model", "events"),
    ("stores", "registry", "source", "replay"),
    ("stages", "training", "cluster"),
    ("runner",),
    ("http",),
    ("commands",),
    ("pipeline", "workflow", "project_setup", "functions"),  # beside the library
)
"""The rooms from the bottom to the top: a module imports from its own level and from those below."""
AT_THE_ROOT = {"errors", "settings", "notebooks", "project", "stores"}
"""The rooms that are a file; all others of the library are folders."""
ARRAYS_ONLY = {"events", "features", "model"}
"""They take and return arrays, and reach no store by whatever way."""
STORES = {"clients", "streams", "tables", "logs", "stores"}
ENTRY = "pipeline"
"""The only one who imports a command."""

_NAMED = rf"{LIBRARY}(\.\w+)+\.?"
"""A text that names a module, as `importlib`, `python -m` or the handler of a job is given it."""
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

Graph = Mapping[str, Collection[str]]
"""What each module imports."""


# Reading


def sources() -> Iterator[tuple[str, str, bool]]:
    """Yield every module of the project that isn't a test or a benchmark: name, text, and whether it is a package."""
    for path in sorted((ROOT / LIBRARY).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if package else parts), path.read_text("utf-8"), package
    for path in sorted(ROOT.glob("*.py")):
        yield path.stem, path.read_text("utf-8"), False
    for path in sorted((ROOT / "functions").glob("*.ipynb")):
        yield f"functions.{path.stem}", notebooks.code(path), False


def imports_of(name: str, text: str, modules: Collection[str], package: bool = False) -> set[str]:
    """Return the modules, of those given, that a module's text names: at its head, in functions, and as a string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {_module(alias.name, modules) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = name.split(".")[: len(name.split(".")) - node.level + package] if node.level else []
            source = ".".join([*start, *filter(None, [node.module])])
            found |= {_module(f"{source}.{alias.name}", modules) for alias in node.names}
        elif isinstance(node, ast.Constant) and re.fullmatch(_NAMED, str(node.value)):
            found.add(_module(str(node.value), modules))
    return found - {"", name}


def _module(name: str, modules: Collection[str]) -> str:
    """Return the module that a dotted name is, or is in; "" if it is none of those."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def graph_of(read: Iterable[tuple[str, str, bool]]) -> dict[str, set[str]]:
    found = list(read)
    modules = {name for name, _, _ in found}
    return {name: imports_of(name, text, modules, package) for name, text, package in found}


# Checking


def room_of(module: str) -> str:
    """Return a module's room; "" for the library's own `__init__`."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == LIBRARY else first


def is_folder(module: str, graph: Graph) -> bool:
    return any(other.startswith(f"{module}.") for other in graph)


def folder_of(module: str, graph: Graph) -> str:
    """Return the folder that a module is in; a file at the root stands for itself."""
    return module if module.count(".") < 2 or is_folder(module, graph) else module.rpartition(".")[0]


def violations(graph: Graph) -> list[str]:
    """Return what is against the rules, in words."""
    return [*_strangers(graph), *_upwards(graph), *_commands(graph), *_stores(graph), *_circles(graph)]


def _strangers(graph: Graph) -> Iterator[str]:
    for module in graph:
        room = room_of(module)
        if room and room not in LEVEL_OF:
            yield f"{module} belongs to no room of the list"
        elif module == f"{LIBRARY}.{room}" and room not in AT_THE_ROOT and not is_folder(module, graph):
            yield f"{module} is a file at the root of the library"


def _upwards(graph: Graph) -> Iterator[str]:
    for module, imported in graph.items():
        for other in sorted(imported):
            if LEVEL_OF.get(room_of(other), -1) > LEVEL_OF.get(room_of(module), -1):
                yield f"{module} imports {other}, which stands above it"


def _commands(graph: Graph) -> Iterator[str]:
    for module, imported in graph.items():
        for other in sorted(imported):
            if room_of(other) == "commands" and room_of(module) not in ("commands", ENTRY):
                yield f"{module} imports the command {other}"


def _stores(graph: Graph) -> Iterator[str]:
    for module in graph:
        if room_of(module) not in ARRAYS_ONLY:
            continue
        ways, seen = [[module]], {module}
        for way in ways:
            for other in sorted(graph.get(way[-1], ())):
                if room_of(other) in STORES:
                    yield f"{' → '.join([*way, other])}: {room_of(module)} takes and returns arrays"
                elif other not in seen:
                    seen.add(other)
                    ways.append([*way, other])


def _circles(graph: Graph) -> Iterator[str]:
    for what, merged in (
        ("modules", {module: module for module in graph}),
        ("folders", {module: folder_of(module, graph) for module in graph}),
        ("rooms", {module: room_of(module) for module in graph}),
    ):
        joined: dict[str, set[str]] = {}
        for module, imported in graph.items():
            joined.setdefault(merged[module], set()).update(merged[other] for other in imported)
        try:
            TopologicalSorter({name: others - {name} for name, others in joined.items()}).prepare()
        except CycleError as error:
            yield f"a circle of {what}: {' → '.join(reversed(error.args[1]))}"


# The project


def test_the_project_keeps_the_rules() -> None:
    graph = graph_of(sources())
    assert len(graph) > 150
    assert sum(map(len, graph.values())) > 500
    assert violations(graph) == []


# The checker


def test_the_table_of_levels_in_the_docs_is_this_one() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE)
    levels = {
        int(number): {name.removesuffix(".py") for name in re.findall("`([^`]+)`", named)} for number, named in rows
    }
    assert levels.pop(len(LEVELS)) == set(LEVELS[-1]) - {"functions"}  # it says "the notebooks"
    assert levels == {number: set(rooms) for number, rooms in enumerate(LEVELS[:-1], 1)}


HOUSE: dict[str, set[str]] = {
    "modelstream": set(),
    "modelstream.errors": set(),
    "modelstream.base.times": {"modelstream.errors"},
    "modelstream.clients.sqlite": {"modelstream.errors"},
    "modelstream.messages.codec": {"modelstream.base.times"},
    "modelstream.features.engine": {"modelstream.base.times"},
    "modelstream.streams": {"modelstream.streams.contract", "modelstream.streams.sqlite"},
    "modelstream.streams.contract": {"modelstream.messages.codec"},
    "modelstream.streams.sqlite": {"modelstream.streams.contract", "modelstream.clients.sqlite"},
    "modelstream.model.onnx": {"modelstream.errors"},
    "modelstream.stages.base": {"modelstream.streams", "modelstream.features.engine"},
    "modelstream.training.train": {"modelstream.training.judge.early", "modelstream.model.onnx"},
    "modelstream.training.judge.early": {"modelstream.training.snapshot.examples"},
    "modelstream.training.judge.segments": set(),
    "modelstream.training.snapshot.examples": set(),
    "modelstream.training.snapshot.keeper": {"modelstream.training.snapshot.examples"},
    "modelstream.commands.run": {"modelstream.stages.base", "modelstream.commands.output"},
    "modelstream.commands.output": {"modelstream.errors"},
    "pipeline": {"modelstream.commands.run"},
    "functions.event-handler": {"modelstream.stages.base"},
}
"""A small house in order."""


def test_a_house_in_order_has_no_violation() -> None:
    assert violations(HOUSE) == []


@pytest.mark.parametrize(
    ("module", "imported", "said"),
    [
        (
            "modelstream.messages.codec",
            "modelstream.stages.base",
            "imports modelstream.stages.base, which stands above",
        ),
        (
            "modelstream.errors",
            "modelstream.base.times",
            "circle of modules: modelstream.errors → modelstream.base.times",
        ),
        ("modelstream", "modelstream.errors", "modelstream imports modelstream.errors, which stands above it"),
        ("modelstream.streams.contract", "modelstream.streams.sqlite", "a circle of modules: "),
        ("modelstream.streams.sqlite", "modelstream.streams", "a circle of modules: "),
        (
            "modelstream.training.snapshot.keeper",
            "modelstream.training.judge.segments",
            "a circle of folders: modelstream.training.",
        ),
        ("modelstream.model.onnx", "modelstream.streams.contract", "streams.contract: model takes and returns arrays"),
        ("modelstream.base.times", "modelstream.clients.sqlite", "times → modelstream.clients.sqlite: features takes"),
        ("functions.event-handler", "modelstream.commands.run", "imports the command modelstream.commands.run"),
        ("modelstream.commands.output", "pipeline", "imports pipeline, which stands above it"),
        ("modelstream.local.run", "modelstream.errors", "modelstream.local.run belongs to no room of the list"),
        ("modelstream.helpers", "modelstream.errors", "modelstream.helpers belongs to no room of the list"),
        ("modelstream.http", "modelstream.errors", "modelstream.http is a file at the root of the library"),
    ],
)
def test_an_import_against_the_rules_is_found(module: str, imported: str, said: str) -> None:
    more = HOUSE | {module: HOUSE.get(module, set()) | {imported}}
    assert any(said in found for found in violations(more)), violations(more)


def test_a_circle_of_rooms_of_one_level_is_found() -> None:
    """No module is in a circle, and no sub-folder: only the rooms are."""
    more = HOUSE | {
        "modelstream.stages.base": HOUSE["modelstream.stages.base"] | {"modelstream.training.judge.segments"},
        "modelstream.training.snapshot.keeper": {"modelstream.stages.labels"},
        "modelstream.stages.labels": set(),
    }
    assert [found for found in violations(more) if "rooms" in found] != []


MODULES = ("modelstream", "modelstream.streams", "modelstream.streams.sqlite", "modelstream.errors")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import modelstream.streams.sqlite as backend", {"modelstream.streams.sqlite"}),
        ("from modelstream.streams import Streams", {"modelstream.streams"}),
        ("from modelstream.streams import Streams, sqlite", {"modelstream.streams", "modelstream.streams.sqlite"}),
        ("from modelstream import errors, __version__", {"modelstream.errors", "modelstream"}),
        ("def opened():\n    from modelstream.streams.sqlite import File", {"modelstream.streams.sqlite"}),
        ("if TYPE_CHECKING:\n    from modelstream.errors import Error", {"modelstream.errors"}),
        ("from ..errors import Error", {"modelstream.errors"}),
        ("from . import sqlite", {"modelstream.streams.sqlite"}),
        ("importlib.import_module('modelstream.streams.sqlite')", {"modelstream.streams.sqlite"}),
        ("run(python, '-m', 'modelstream.errors')", {"modelstream.errors"}),
        ("handler = f'modelstream.errors.{name}'", {"modelstream.errors"}),
        ("import json, modelstream_contrib\nprint('see modelstream.errors, and more')", set()),
    ],
)
def test_an_import_is_seen_in_whatever_form(text: str, expected: set[str]) -> None:
    assert imports_of("modelstream.streams.kafka", text, MODULES) == expected


def test_relative_imports_of_a_package_begin_at_itself() -> None:
    assert imports_of("modelstream.streams", "from .sqlite import File", MODULES, package=True) == {
        "modelstream.streams.sqlite"
    }
