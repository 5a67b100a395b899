"""`pipeline.py models`: the versions of the model, and which of them serves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelstream.base.command_line import pipeline
from modelstream.base.words import counted
from modelstream.commands.options import FLAG, AsJson, UseCaseFile
from modelstream.errors import ModelstreamError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from modelstream.project import Project
    from modelstream.registry.registry import Registered, Registry
    from modelstream.training.promotion import Comparison

Name = Annotated[
    str,
    typer.Option(metavar="NAME", help="Which model (default: the use case's).", show_default=False),
]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="A version, as `models list` shows it.")]

app = typer.Typer(invoke_without_command=True)


@app.callback()
def models(context: typer.Context) -> None:
    """List the versions of the model, show one, or choose the one that serves.

    Without a command: `list`. The options are those of the command, such as
    `models list --help`.

    Example: python pipeline.py models
    """
    if context.invoked_subcommand is None:
        list_versions()


@app.command("list")
def list_versions(name: Name = "", use_case: UseCaseFile = None, as_json: AsJson = False) -> None:
    """List all versions: the one that comes with the project, and the registered ones.

    Example: python pipeline.py models list --json
    """
    from rich.console import Group, RenderableType
    from rich.markup import escape
    from rich.text import Text

    from modelstream.commands.output import console, no_model_yet, plain_table, print_json

    registry = open_registry(name, use_case=use_case)
    found = registry.versions()
    if as_json:
        print_json(found)
        return
    measures = list(dict.fromkeys(name for one in found for name in one.metrics))
    titles = ("version", "", "registered", "algorithm", *measures, "sha256")
    parts: list[RenderableType] = [f"{registry.name}: {no_model_yet()} (no version in {escape(registry.place())})"]
    if found:
        parts = [plain_table(titles, [_cells(one, measures) for one in found], right=measures)]
    if found and not any(one.current for one in found):
        parts.append(Text(f"None of them serves yet → {pipeline('models promote VERSION')}"))
    if registry.aside:
        parts.append(Text(registry.aside))
    parts += [Text(f"{one.version}: {one.problem}", style="red") for one in found if one.problem]
    console().print(Group(*parts))


@app.command("show")
def show_version(version: Version, name: Name = "", use_case: UseCaseFile = None, as_json: AsJson = False) -> None:
    """Show a version and its model card.

    Example: python pipeline.py models show 2
    """
    from rich.markup import escape

    from modelstream.commands.output import console, print_json

    registry = open_registry(name, use_case=use_case)
    place = registry.place_of(version)
    found = next(one for one in registry.versions() if one.folder == place)
    features = registry.load(version).spec.features
    if as_json:
        print_json({**_plain(found), "features": features})
        return
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in found.metrics.items())
    state = "serves" if found.current else "does not serve"
    lines = [
        f"[bold]{escape(registry.name)} {version}[/]: {escape(found.algorithm or 'a model')}, {state}",
        f"metrics    {metrics or 'none'}",
        f"features   {escape(', '.join(features))}",
        f"sha256     {found.sha256}",
        f"folder     {escape(found.folder)}",
    ]
    console().print("\n".join(lines), soft_wrap=True)
    _print_card(registry, version)


@app.command()
def promote(
    version: Version,
    name: Name = "",
    use_case: UseCaseFile = None,
    force: Annotated[
        bool, typer.Option("--force", metavar=FLAG, help="Also if it is worse than the one that serves: don't ask.")
    ] = False,
) -> None:
    """Serve this version from now on.

    It is compared with the version that serves, on the users that the newer of the
    two was tested on. If it is worse beyond chance, or can't be compared, this asks,
    or wants --force. A running pipeline switches to it within 5 s and loses nothing.

    Example: python pipeline.py models promote 2
    """
    from modelstream.runner.chosen import project_for

    if not promote_compared(project_for(use_case=use_case), name, version, force=force):
        raise typer.Exit(1)


def promote_compared(project: Project, name: str, version: str, *, force: bool) -> bool:
    """Promote a version, and print how it compares with the one that serves; return whether it was promoted.

    If it is worse or can't be compared, ask on a terminal. Raises ModelstreamError where nobody can be asked.
    """
    from rich.markup import escape

    from modelstream.commands.output import console
    from modelstream.training.promotion import decide, in_doubt
    from modelstream.use_case.file import load_use_case

    registry = open_registry(name, project)
    before = registry.current() or registry.shipped_version()
    found = decide(registry, version, load_use_case(project.use_case_file).threshold)
    if found.comparison is not None:
        console().print(_compared(found.comparison))
    elif found.unknown:
        console().print(f"[yellow]{escape(found.unknown[0].upper() + found.unknown[1:])}.[/]", soft_wrap=True)
    if found.doubt and not force:
        if not sys.stdin.isatty():
            raise in_doubt(version, found)
        if not typer.confirm(f"Let version {version} serve all the same?"):
            print(f"{registry.name} {before} still serves.")
            return False
    registry.promote(version)
    print(f"{registry.name} {version} serves from now on{_instead(before, version)}. {_when()}")
    return True


def _compared(found: Comparison) -> Group:
    """Return a comparison as a person reads it."""
    from rich.console import Group
    from rich.text import Text

    from modelstream.commands.output import plain_table

    first = f"On {counted(found.metrics.vectors, 'vector')} of {counted(found.metrics.users, 'user')} "
    first += f"that version {found.tested} was tested on, and did not learn from (95 % intervals over users):"
    rows = [
        (what, str(getattr(found.of_serving, name)), str(getattr(found.metrics, name)))
        for name, what in (("log_loss", "log loss"), ("auc", "AUC"), ("accuracy", "accuracy"))
    ]
    titles = ("", f"version {found.serving}, serves", f"version {found.version}")
    lines = [Text(found.told(), style="bold red" if found.worse else "")]
    if found.seen:
        lines.append(Text(f"Version {found.seen} may have learned from some of these users, and look better for it."))
    return Group(first, plain_table(titles, rows, right=titles[1:]), *lines)


@app.command()
def rollback(name: Name = "", use_case: UseCaseFile = None) -> None:
    """Serve the previous version again.

    Example: python pipeline.py models rollback
    """
    registry = open_registry(name, use_case=use_case)
    before = registry.current() or registry.shipped_version()
    version = registry.rollback()
    print(f"{registry.name} {version} serves again{_instead(before, version)}. {_when()}")


def _when() -> str:
    return f"A running pipeline switches to it within 5 s (`{pipeline('status')}`)."


def open_registry(name: str = "", project: Project | None = None, use_case: Path | None = None) -> Registry:
    """Return the registry of the model of a use case, or of another one by name."""
    from modelstream.registry.registry import Registry
    from modelstream.runner.chosen import project_for
    from modelstream.use_case.file import load_use_case

    project = project or project_for(use_case=use_case)
    return Registry.of_project(project, load_use_case(project.use_case_file), name)


def _cells(one: Registered, measures: list[str]) -> list[str | Text]:
    from rich.text import Text

    state = "serves" if one.current else ""
    created = one.created[:16].replace("T", " ") or ("with the project" if one.shipped else "")
    numbers = [f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in measures]
    return [one.version, Text(state, style="green"), created, one.algorithm, *numbers, one.sha256[:12]]


def _plain(found: Registered) -> dict[str, object]:
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(found)
    return plain


def _print_card(registry: Registry, version: str) -> None:
    from modelstream.training.report.card import README_FILE

    try:
        card = registry.read(version, README_FILE).decode("utf-8", "replace")
    except ModelstreamError:
        return
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        from modelstream.commands.output import console

        console().print(Markdown(card))
    else:
        print(f"\n{card}")


def _instead(before: str, version: str) -> str:
    return f", instead of {before}" if before and before != version else ""
