"""`pipeline.py table`: show or write a table, or load the lookup table from a CSV file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelstream.commands.endings import looking
from modelstream.commands.options import DATA, Data, check_name
from modelstream.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from modelstream.commands.view import View
    from modelstream.stores import Stores

MOST_ROWS = 20
"""Rows of a table that a terminal shows; `--format` gives all."""

app = typer.Typer(no_args_is_help=True)


@app.callback()
def table() -> None:
    """Show or write a table, or load one. `table NAME` is short for `table show NAME`.

    The options are those of `table show --help` and `table load --help`.

    Example: python pipeline.py table features --output features.parquet
    """


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A table of project.yaml: features (one row per user) or enrichment (the lookup table).",
        ),
    ],
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Only the row of this key.")] = None,
    format: Annotated[
        Literal["csv", "json", "parquet"] | None,
        typer.Option(
            metavar="FORMAT",
            help="csv, json or parquet (default: by the ending of --output; otherwise csv, or a table on a terminal).",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to this file instead of standard output.")
    ] = None,
    data: Data = DATA,
) -> None:
    """Show a table, or write it as CSV, JSON or Parquet.

    Example: python pipeline.py table show features --output features.parquet
    """
    with looking(data) as view:
        show_table(view, name, key=key, form=format, output=output)


@app.command()
def load(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The use case's lookup table, such as enrichment.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file whose first line names the columns.")],
    tables: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Load into these tables, such as redis://127.0.0.1:6379/0?prefix=mine (default: those of --data).",
            show_default=False,
        ),
    ] = "",
    data: Data = DATA,
) -> None:
    """Load the lookup table from a CSV file.

    If any line is wrong, nothing is loaded. A key that exists gets its new value; other
    keys are kept. A running pipeline sees the change within seconds.

    Example: python pipeline.py table load enrichment codes.csv
    """
    if not tables:
        with looking(data) as view:
            load_table(view, name, file)
        return
    from modelstream.project import load_project
    from modelstream.settings import StoreUrls
    from modelstream.stores import Stores

    with Stores.of_project(load_project(), StoreUrls(tables=tables)) as stores:
        load_table(stores, name, file)


def load_table(stores: Stores, name: str, file: Path) -> None:
    """Load a file into a lookup table, and say how many rows it has.

    Raises ConfigurationError for a table that the use case doesn't look up, and for a wrong line.
    """
    from modelstream.source.enrichment import load_enrichment

    lookup, table = stores.use_case.lookup, stores.enrichment
    if lookup is None or table is None or name != lookup.table:
        raise ConfigurationError(
            f"{name!r} is not the lookup table of the use case {stores.use_case.name}",
            remedy=f"give its table, {lookup.table}" if lookup else "this use case has no lookup table",
        )
    count = load_enrichment(file, stores.use_case, stores.tables)
    print(f"{count:,} rows loaded; {name} has {table.count():,}", file=sys.stderr)


def show_table(
    view: View, name: str, *, key: str | None = None, form: str | None = None, output: Path | None = None
) -> None:
    """Print or write a table, or one row of it. Raises ConfigurationError for an unknown table or key."""
    from modelstream.commands.output import is_terminal

    check_name("table", name, view.project.params.tables)
    schema, batches = _features(view, key) if name == view.names.features else _lookup(view, name, key)
    if form is None and output is None and is_terminal():
        first = [view.use_case.key, *view.use_case.computed]  # what tells most; the profile where there is room
        order = [column for column in first if column in schema.names]
        order += [column for column in schema.names if column not in first]
        _print((batch.select(order) for batch in batches), name)
        return
    from modelstream.commands.formats import format_of, write

    rows = write(batches, schema, format_of(output, form), output)
    if output is not None:
        print(f"{rows:,} rows in {output}", file=sys.stderr)


def _features(view: View, key: str | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    from modelstream.features.engine import features_of

    use_case, rows = view.use_case, view.features
    if key is None:
        return use_case.features_schema, (features_of(batch, use_case) for batch in rows.scan())
    found = rows.get(key)
    if not found.num_rows:
        raise ConfigurationError(
            f"the table {view.names.features} has no row for {use_case.key} {key!r}",
            remedy=f"`python pipeline.py explain {key}` shows what is known about it",
        )
    return use_case.features_schema, iter([features_of(found, use_case)])


def _lookup(view: View, name: str, key: str | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = view.tables.lookup(name)
    schema = pa.schema([("key", pa.string()), ("value", pa.float64())])
    if key is None:
        return schema, rows.scan()
    found = [batch.filter(pc.equal(batch.column("key"), key)) for batch in rows.scan()]
    if not any(batch.num_rows for batch in found):
        raise ConfigurationError(
            f"the table {name} has no row for {key!r}", remedy=f"`python pipeline.py table {name}` lists all"
        )
    return schema, iter(found)


def _print(batches: Iterator[pa.RecordBatch], name: str) -> None:
    from modelstream.base.times import rows_of
    from modelstream.commands.output import console, fitting_table

    rows: list[dict[str, Any]] = []
    total = 0
    for batch in batches:
        total += batch.num_rows
        rows += rows_of(batch.slice(0, max(0, MOST_ROWS - len(rows))))
    out = console()
    title = f"{name}: {total:,} rows"
    if total > len(rows):
        title += f", the first {len(rows)} (--format csv gives all)"
    out.print(fitting_table(rows, out.width, title))
