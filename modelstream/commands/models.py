"""`pipeline.py models`: the versions of the model, and which of them serves."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from modelstream.commands.output import console
from modelstream.errors import ModelstreamError
from modelstream.project import load_project
from modelstream.registry import registry as registries
from modelstream.registry.registry import Registered, Registry
from modelstream.use_case.file import load_use_case

CARD = "README.md"


def open_registry(name: str = "") -> Registry:
    """Return the registry of the project's model, or of another one by name."""
    project = load_project()
    use_case = load_use_case(project.use_case_file)
    return registries.of_project(project, use_case, name)


def list_versions(registry: Registry, *, as_json: bool) -> None:
    """Print all versions."""
    found = registry.versions()
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    measures = list(dict.fromkeys(name for one in found for name in one.metrics))
    for title in ("version", "", "registered", "algorithm", *measures, "sha256"):
        table.add_column(title, header_style="bold", justify="right" if title in measures else "left")
    for one in found:
        table.add_row(*_cells(one, measures))
    nothing = f"{registry.name}: no version in {escape(registry.place())}"
    parts: list[RenderableType] = [table if found else nothing]
    parts += [Text(f"{one.version}: {one.problem}", style="red") for one in found if one.problem]
    console().print(Group(*parts))


def _cells(one: Registered, measures: list[str]) -> list[str | Text]:
    state = "serves" if one.current else ""
    created = one.created[:16].replace("T", " ") or ("with the project" if one.shipped else "")
    numbers = [f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in measures]
    return [one.version, Text(state, style="green"), created, one.algorithm, *numbers, one.sha256[:12]]


def show_version(registry: Registry, version: str, *, as_json: bool) -> None:
    """Print what is known of a version, and its card."""
    place = registry.place_of(version)
    found = next(one for one in registry.versions() if one.folder == place)
    model = registry.load(version)
    if as_json:
        print(msgspec.json.encode({**_plain(found), "features": model.spec.features}).decode())
        return
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in found.metrics.items())
    state = "serves" if found.current else "does not serve"
    lines = [
        f"[bold]{escape(registry.name)} {version}[/]: {escape(found.algorithm or 'a model')}, {state}",
        f"metrics    {metrics or 'none'}",
        f"features   {escape(', '.join(model.spec.features))}",
        f"sha256     {found.sha256}",
        f"folder     {escape(found.folder)}",
    ]
    console().print("\n".join(lines), soft_wrap=True)
    try:
        card = registry.read(version, CARD).decode("utf-8", "replace")
    except ModelstreamError:
        return
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        console().print(Markdown(card))
    else:
        print(f"\n{card}")


def _plain(found: Registered) -> Mapping[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(found)
    return plain


def promote(registry: Registry, version: str) -> None:
    """Let a version serve."""
    before = registry.current() or registry.shipped_version()
    registry.promote(version)
    print(f"{registry.name} {version} serves from now on{_instead(before, version)}. {_WHEN}")


def rollback(registry: Registry) -> None:
    """Let the version serve that did before."""
    before = registry.current() or registry.shipped_version()
    version = registry.rollback()
    print(f"{registry.name} {version} serves again{_instead(before, version)}. {_WHEN}")


_WHEN = "A pipeline that runs takes it within 5 s (`python pipeline.py status`)."


def _instead(before: str, version: str) -> str:
    return f", instead of {before}" if before and before != version else ""
