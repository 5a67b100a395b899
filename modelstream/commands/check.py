"""`pipeline.py check`: every mistake in a use-case file, and what becomes of a sample of events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelstream.base.words import counted
from modelstream.commands.options import AsJson

if TYPE_CHECKING:
    from modelstream.errors import ConfigurationError
    from modelstream.runner.trial import Trial
    from modelstream.use_case.declared import UseCase

File = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="The use-case file (default: the one that project.yaml names)."),
]
Sample = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Events as JSON lines, of which the first 10,000 are tried: what is refused, what counts."
    ),
]


def check(file: File = None, sample: Sample = None, as_json: AsJson = False) -> None:
    """Check a use-case file: every mistake at once, with its line and what to do.

    With --sample the first 10,000 events of a file are tried, without a pipeline: what
    would be refused and why, what would count, how long an event takes. The hooks of the
    notebooks are not called, and nothing is looked up. The exit status is 1 if there is a
    mistake, or if no event of the sample counts.

    Example: python pipeline.py check use_cases/mine.yaml --sample events.ndjson
    """
    from modelstream.commands.output import print_json
    from modelstream.features.layout import row_bytes
    from modelstream.project import load_project
    from modelstream.use_case.file import load_use_case

    path = shown(file or load_project().use_case_file)
    wrong = _mistakes(path)
    if wrong:
        _tell(wrong, as_json)
        raise typer.Exit(1)
    use_case = load_use_case(path)
    found: dict[str, Any] = {
        "use_case": use_case.name,
        "version": use_case.version,
        "features": list(use_case.features),
        "bytes_per_user": row_bytes(use_case),
    }
    tried = None
    if sample is not None:
        from modelstream.runner.trial import try_lines

        tried = try_lines(use_case, sample)
        found["sample"] = tried
    if as_json:
        print_json(found)
    else:
        print(summary(use_case, str(path), row_bytes(use_case)))
        if tried is not None:
            print("\n" + told(tried, use_case, str(sample)))
    raise typer.Exit(0 if tried is None or tried.counted else 1)


def shown(path: Path) -> Path:
    """Return a path as a person writes it from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _mistakes(path: Path) -> list[ConfigurationError]:
    """Return every mistake in a file. Raises ConfigurationError if it can't be read."""
    from modelstream.errors import ConfigurationError
    from modelstream.features.layout import check_row
    from modelstream.use_case.file import load_use_case, mistakes, read_text

    wrong = mistakes(read_text(path), str(path), path.parent)
    if wrong:
        return wrong
    try:
        check_row(load_use_case(path))
    except ConfigurationError as error:
        return [error]
    return []


def _tell(wrong: list[ConfigurationError], as_json: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    from modelstream.commands.output import print_json

    if as_json:
        print_json({"mistakes": [{"mistake": str(one), "remedy": one.remedy} for one in wrong]})
        return
    console = Console(stderr=True, soft_wrap=True)
    for one in wrong:
        console.print(f"[bold red]error:[/] {escape(str(one))}\n[bold]→[/] {escape(one.remedy)}")
    if len(wrong) > 1:
        console.print(f"{counted(len(wrong), 'mistake')}.")


def summary(use_case: UseCase, path: str, parts: dict[str, int]) -> str:
    """Return what a use case without mistakes is, as a person reads it."""
    size = sum(parts.values())
    largest = [f"{name} {number:,}" for name, number in sorted(parts.items(), key=lambda one: -one[1]) if number]
    lines = [
        f"{path}: no mistake.",
        f"  {counted(len(use_case.features), 'feature')}, after each counted {' and '.join(use_case.predict_on)}",
        f"  {size:,} bytes a user, besides texts: {', '.join(largest[:4])}{', …' if len(largest) > 4 else ''}",
    ]
    if tables := sorted({form.look_up for form in (*_lookups(use_case),)}):
        lines.append(f"  looked up: {', '.join(tables)}")
    if use_case.label is None:
        lines.append("  no label: events are processed, but no model can be trained")
    if use_case.derived:
        lines.append(f"  from the notebook's derive: {', '.join(use_case.derived)}")
    return "\n".join(lines)


def _lookups(use_case: UseCase) -> list[Any]:
    return [*use_case.profile_lookups.values(), *use_case.event_lookups.values()]


def told(tried: Trial, use_case: UseCase, path: str) -> str:
    """Return what became of a sample, as a person reads it."""
    from modelstream.use_case.reasons import explained

    events = sum(tried.events.values())
    kinds = ", ".join(f"{name} {number:,}" for name, number in tried.events.items())
    lines = [f"{path}: the first {counted(tried.lines, 'line')}"]
    lines.append(f"  {counted(events, 'event')} of {counted(tried.users, 'user')}{f': {kinds}' if kinds else ''}")
    if tried.refused_lines:
        lines.append(f"  {tried.refused_lines:,} refused:")
        lines += [f"    {number:,} × {reason}" for reason, number in tried.refused.items()]
    if tried.not_counted:
        lines.append(f"  {sum(tried.not_counted.values()):,} not counted:")
        reasons = explained(tried.not_counted, use_case)
        lines += [f"    {number:,} × {said}" for number, said in zip(tried.not_counted.values(), reasons, strict=True)]
    lines.append(f"  {counted(tried.vectors, 'feature vector')}, {tried.micros:.1f} µs of CPU an event")
    if tried.empty_fields:
        lines.append(f"  no event has a value in: {', '.join(tried.empty_fields)}")
    if not tried.counted:
        lines.append("No event counts: compare `key`, `time`, `type` and `events` with a line of the file.")
    return "\n".join(lines)
