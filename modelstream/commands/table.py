"""`table load`: a lookup table from a person's own file."""

from __future__ import annotations

import sys
from pathlib import Path

from modelstream.errors import ConfigurationError
from modelstream.project import Project
from modelstream.settings import StoreUrls
from modelstream.source.enrichment import load_enrichment
from modelstream.stores import Stores
from modelstream.tables import Tables
from modelstream.use_case.declared import UseCase


def load_into(url: str, project: Project, name: str, file: Path) -> int:
    """Load a file into a lookup table behind a URL; see `load`."""
    with Stores.of_project(project, StoreUrls(tables=url)) as stores:
        return load(stores.tables, stores.use_case, name, file)


def load(tables: Tables, use_case: UseCase, name: str, file: Path) -> int:
    """Load a file into a lookup table, say how many rows it has, and return the exit status.

    Raises ConfigurationError for a table that the use case doesn't look up, and for a wrong line.
    """
    lookup = use_case.lookup
    if lookup is None or name != lookup.table:
        raise ConfigurationError(
            f"the use case {use_case.name} looks nothing up in a table {name!r}",
            remedy=f"give its table, {lookup.table}" if lookup else "there is no table to load",
        )
    table = tables.lookup(name)
    count = load_enrichment(file, lookup, table)
    print(f"{count:,} rows loaded; {name} has {table.count():,}", file=sys.stderr)
    return 0
