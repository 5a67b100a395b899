"""`pipeline.py table`: show or write a table, or load the lookup table from a CSV file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelstream.base.words import counted
from modelstream.commands.endings import looking
from modelstream.commands.options import DATA, Data, check_name
from modelstream.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from modelstream.commands.view import View
    from modelstream.stores import Stores
    from modelstream.use_case.declared import UseCase
    from modelstream.use_case.vocabulary import LookUp

PAGE_ROWS = 20
"""Rows of a table that a terminal shows, and that `--by` gives, unless --limit says how many."""
PROBABILITY = ("probability",)
"""What `--by` takes for the model's probability, besides the name of its column."""

app = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True)
class Page:
    """Which rows of a table to show."""

    key: str | None = None
    after: str = ""
    """Only keys after this one."""
    by: str = ""
    """A column: the rows with its highest values, instead of all rows in the order of their keys."""
    limit: int | None = None

    @property
    def batch_size(self) -> int:
        """How many rows to read at once: no more than are shown."""
        return min(10_000, self.limit + 1) if self.limit else 10_000


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
            help="A table of project.yaml: features (one row per user), or one that is looked up, such as enrichment.",
        ),
    ],
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Only the row of this key.")] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="The rows with the highest values of this column, highest first. `probability` gives the users whose "
            "latest prediction has the highest one, with that prediction.",
            show_default=False,
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="At most N rows (default: 20 on a terminal and with --by; otherwise all)."
        ),
    ] = None,
    after: Annotated[
        str, typer.Option(metavar="KEY", help="Only rows after this key: the next page.", show_default=False)
    ] = "",
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
    """Show a table in the order of its keys, or write it as CSV, JSON or Parquet.

    Example: python pipeline.py table show features --by probability --limit 10
    """
    with looking(data) as view:
        show_table(view, name, Page(key, after, by, limit), form=format, output=output)


@app.command()
def load(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A table that the use case looks up, such as enrichment.")
    ],
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
    """Load a lookup table from a CSV file.

    If any line is wrong, nothing is loaded. A key that exists gets its new value; other
    keys are kept. It may be loaded while a pipeline runs: users who register from then on
    get the new values (in Redis and V3IO, within 10 s), and those who have registered
    keep theirs. What is looked up at each event is in the same way that of its moment.

    Example: python pipeline.py table load enrichment codes.csv
    """
    if not tables:
        with looking(data) as view:
            load_table(view, name, file, runs=view.holder() is not None)
        return
    from modelstream.project import load_project
    from modelstream.settings import StoreUrls
    from modelstream.stores import Stores

    with Stores.of_project(load_project(), StoreUrls(tables=tables)) as stores:
        load_table(stores, name, file)


def load_table(stores: Stores, name: str, file: Path, *, runs: bool = False) -> None:
    """Load a file into a lookup table, and say how many rows it has, and who sees them when.

    `runs` says that a pipeline runs on the data folder.

    Raises ConfigurationError for a table that the use case doesn't look up, and for a wrong line.
    """
    from modelstream.source.enrichment import load_enrichment
    from modelstream.use_case.lookups import lookup_tables

    use_case = stores.use_case
    known = lookup_tables(use_case)
    if name not in known:
        one = len(known) == 1
        raise ConfigurationError(
            f"{name!r} is not {'the' if one else 'a'} lookup table of the use case {use_case.name}",
            remedy=f"give {'its table' if one else 'one of its tables'}, {', '.join(known)}"
            if known
            else "this use case has no lookup table",
        )
    count = load_enrichment(file, use_case, stores.tables, name)
    table = stores.lookups[name]
    print(f"{counted(count, 'row')} loaded; {name} has {table.count():,}", file=sys.stderr)
    when = f"within {table.delay:g} s" if table.delay else "at once"
    print(
        f"The pipeline that {'runs on this folder' if runs else 'uses this table'} sees them {when}, "
        f"{_for_whom(use_case, known[name])}",
        file=sys.stderr,
    )


def _for_whom(use_case: UseCase, features: Mapping[str, LookUp]) -> str:
    """Return whose values change when a table is loaded."""
    profile, event = ([n for n, one in features.items() if bool(one.at) is kept] for kept in (True, False))
    told = []
    if profile:
        told.append(
            f"for users who register from then on. A user who has registered keeps the {' and '.join(profile)} of that "
            f"moment until a new {use_case.profile.event if use_case.profile else 'profile'} event."
        )
    if event:
        told.append(f"for events that come from then on. An event keeps the {' and '.join(event)} of its moment.")
    return " ".join([told[0], *(text[0].upper() + text[1:] for text in told[1:])])


def show_table(
    view: View, name: str, page: Page | None = None, *, form: str | None = None, output: Path | None = None
) -> None:
    """Print or write a table, or a part of it. Raises ConfigurationError for an unknown table, key or column."""
    from modelstream.commands.output import is_terminal

    page = page or Page()
    check_name("table", name, tuple(view.table_names(view.project)))
    if page.by and (page.key is not None or page.after):
        raise ConfigurationError(
            "--by shows the rows with the highest values, wherever their keys stand",
            remedy="leave out --key and --after",
        )
    schema, batches = _features(view, page) if name == view.names.features else _lookup(view, name, page)
    if form is None and output is None and is_terminal():
        _print(view, name, page, batches)
        return
    from modelstream.commands.formats import format_of, write

    rows = write(first_rows(batches, page.limit), schema, format_of(output, form), output)
    if output is not None:
        print(f"{counted(rows, 'row')} in {output}", file=sys.stderr)


def first_rows(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """Yield the first `limit` rows of some batches, or all; no more batches are read than that takes."""
    left = limit
    for batch in batches:
        yield batch if left is None else batch.slice(0, left)
        if left is not None:
            left -= batch.num_rows
            if left <= 0:
                return


def _features(view: View, page: Page) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    from modelstream.features.engine import features_of

    use_case, rows = view.use_case, view.features
    schema: pa.Schema = use_case.features_schema
    if page.by:
        from modelstream.commands.ranking import highest, most_probable

        limit = page.limit or PAGE_ROWS
        if page.by in PROBABILITY or page.by == use_case.probability:
            found = most_probable(view, limit)
            if not found.num_rows:
                raise ConfigurationError("there is no prediction yet", remedy=_how_to_predict(view))
            return found.schema, iter([found])
        check_name("column", page.by, (*PROBABILITY, *schema.names))
        ranked = highest((features_of(batch, use_case) for batch in rows.scan()), schema, page.by, limit)
        return schema, iter([ranked])
    if page.key is None:
        return schema, (features_of(batch, use_case) for batch in rows.scan(page.batch_size, page.after))
    found = rows.get(page.key)
    if not found.num_rows:
        raise ConfigurationError(
            f"the table {view.names.features} has no row for {use_case.key} {page.key!r}",
            remedy=f"`python pipeline.py explain {page.key}` shows what is known about it",
        )
    return schema, iter([features_of(found, use_case)])


def _how_to_predict(view: View) -> str:
    """Return what leads to predictions: a model if there are vectors, and otherwise events that call for one."""
    from modelstream.base.command_line import pipeline

    if view.unanswered():
        return f"`{pipeline('train --promote')}` trains a model, and a pipeline that runs then answers new events"
    on = ", ".join(view.use_case.predict_on)
    return f"send events that call for one ({on}); `{pipeline('status')}` tells why events made no vector"


def _lookup(view: View, name: str, page: Page) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = view.lookups[name]
    schema = pa.schema([("key", pa.string()), ("value", pa.float64())])
    if page.by:
        from modelstream.commands.ranking import highest

        check_name("column", page.by, tuple(schema.names))
        return schema, iter([highest(rows.scan(), schema, page.by, page.limit or PAGE_ROWS)])
    if page.key is None:
        return schema, rows.scan(page.batch_size, page.after)
    found = [batch.filter(pc.equal(batch.column("key"), page.key)) for batch in rows.scan()]
    if not any(batch.num_rows for batch in found):
        raise ConfigurationError(
            f"the table {name} has no row for {page.key!r}", remedy=f"`python pipeline.py table {name}` lists all"
        )
    return schema, iter(found)


def _print(view: View, name: str, page: Page, batches: Iterator[pa.RecordBatch]) -> None:
    """Print a page for a person, and how to see the next one."""
    from modelstream.base.timestamps import rows_of
    from modelstream.commands.output import console, fitting_table

    use_case = view.use_case
    limit = page.limit or PAGE_ROWS
    rows = [row for batch in first_rows(batches, limit + 1) for row in rows_of(batch)]
    more, rows = len(rows) > limit, rows[:limit]
    if not page.by:  # what tells most; the profile where there is room
        first = [use_case.key, *use_case.computed]
        rows = [{column: row[column] for column in dict.fromkeys((*first, *row)) if column in row} for row in rows]
    total = view.features.count() if name == view.names.features else view.lookups[name].count()
    title = f"{name}: {counted(total, 'row')}"
    if page.by:
        title += f", the {len(rows)} with the highest {page.by}"
    elif page.after or more:
        title += f", {len(rows)} of them" + (f" after {page.after}" if page.after else "")
    out = console()
    out.print(fitting_table(rows, out.width, title))
    if more:
        last = next(iter(rows[-1].values()))
        hidden = f"{total - len(rows):,} more" if not page.after else "more"
        out.print(
            f"… {hidden}. Next page: --after {shlex.quote(str(last))}; longer pages: --limit N; all: --format csv"
        )
