"""Options that several commands share, with the same meaning everywhere."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from modelstream.base.command_line import work_on
from modelstream.errors import ConfigurationError

FLAG = ""
"""The metavar of a flag: empty, since Typer would show <bool>, as if the flag took a value."""
KEPT = "Where everything is kept"
"""The panel of options of commands that make a data folder."""
DATA = Path("data")

Data = Annotated[
    Path,
    typer.Option(metavar="FOLDER", callback=work_on, help="The folder in which `run` or `serve` keeps its data."),
]
KeptIn = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="FOLDER",
        callback=work_on,
        help="The folder in which all data is kept.",
        rich_help_panel=KEPT,
    ),
]
UseCaseFile = Annotated[
    Path | None,
    typer.Option(
        "--use-case",
        metavar="FILE",
        help="The use-case file (default: that of the data folder, or else the one that project.yaml names).",
        show_default=False,
    ),
]
Shards = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=64,
        help="Number of shards of every stream, fixed when the folder is made (default: 8, from project.yaml).",
        rich_help_panel=KEPT,
    ),
]
Streams = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Keep streams in Kafka or V3IO, such as kafka://127.0.0.1:9092/mine (default: in the data folder).",
        show_default=False,
        rich_help_panel=KEPT,
    ),
]
Tables = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Tables in Redis or V3IO, such as redis://127.0.0.1:6379/0?prefix=mine (default: in the folder).",
        show_default=False,
        rich_help_panel=KEPT,
    ),
]
Logs = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Parquet files in another folder or in s3://bucket/prefix (default: in the folder).",
        show_default=False,
        rich_help_panel=KEPT,
    ),
]
Enrichment = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="CSV file with a lookup table; its columns are named as in the use case, or key and value. May be given "
        "several times.",
    ),
]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, max=64, help="Processes per function; they share its shards.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar=FLAG, help="Don't show the live table.")]
AsJson = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print one JSON object instead of text.")]
Last = Annotated[int, typer.Option(metavar="N", min=1, help="Show this many of the newest.")]


def is_given(context: typer.Context, name: str) -> bool:
    """Return whether an option was given on the command line, even if its value is the default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def given_options(context: typer.Context, **instead: str) -> str:
    """Return the options that were given, as they are typed in a shell, some of them with another value."""
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if is_given(context, name):
            value = instead.get(name, context.params[name])
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [parameter.opts[0], *([] if one is True else [str(one)])]
    return shlex.join(words)


def check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    """Raise ConfigurationError for an unknown name, with a suggestion."""
    from modelstream.base.yamlfile import suggestion

    if name not in known:
        raise ConfigurationError(f"there is no {what} {name!r}", remedy=suggestion(name, known))
