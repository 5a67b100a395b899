"""Why lookups found nothing: the keys that events asked for, from the log, beside those that the lookup table has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from modelstream.stores import Stores
from modelstream.tables import LookupTable
from modelstream.use_case.lookups import lookup_key, lookup_tables, mostly_missed
from modelstream.use_case.vocabulary import LookUp

SAMPLE = 200
"""Keys that are looked up again: enough to see a pattern, and few enough for a table that is asked key by key."""
MOST_ROWS = 2_000_000
"""Rows of the log that are searched for them: a second or two."""
MOST_ZEROS = 4


def lookup_warnings(stores: Stores, lookups: int, misses: int) -> list[str]:
    """Return what to tell if most lookups found nothing: how many, probably why, and what to do; otherwise nothing.

    An example would need a folder with a log of events: `tests/replay/test_misses.py` makes some.
    """
    tables = lookup_tables(stores.use_case)
    # Of several tables one may be missed mostly where others are found.
    if not tables or not misses or not mostly_missed(lookups, misses * len(tables)):
        return []
    if len(tables) == 1:
        ((table, features),) = tables.items()
        said = f"{misses:,} of {lookups:,} lookups in the table {table} found nothing: {_defaults(features)}. "
        return [said + why for why in _why(stores, table, features, sure=True)]
    said = f"{misses:,} of {lookups:,} lookups found nothing, many of them in the table "
    return [
        f"{said}{table}: {_defaults(features)}. {why}"
        for table, features in tables.items()
        for why in _why(stores, table, features, sure=False)
    ]


def _defaults(features: Mapping[str, LookUp]) -> str:
    return ", ".join(f"{name} is then the default, {lookup.otherwise:g}" for name, lookup in features.items())


def _why(stores: Stores, name: str, features: Mapping[str, LookUp], *, sure: bool) -> list[str]:
    """Return the likely reason why most lookups in a table find nothing; none if they don't, unless it is `sure`."""
    table, lookup = stores.lookups[name], next(iter(features.values()))
    if (empty := when_empty(name, table)) is not None:
        return [empty]
    asked = _asked(stores, lookup)
    if not asked:
        return [
            f"The events {'that register a user ' if lookup.at else ''}have no {lookup.by} → send it, or write in the "
            "use case (`by`) under which name it comes"
        ] * sure
    values = table.get_many(asked)
    missed = [key for key, value in zip(asked, values, strict=True) if value is None]
    if 2 * len(missed) <= len(asked):
        then = "users had registered, and a user" if lookup.at else "events had come, and an event"
        return [
            f"The table has most of these keys now: they were loaded after these {then} keeps the "
            "value of that moment → load the table before events are sent"
        ] * sure
    return [
        _zeros(lookup.by, table, missed)
        or f"For example {lookup.by} {missed[0]!r} was looked up, and the table has "
        f"{next(table.scan(1))[0][0].as_py()!r} → compare `python pipeline.py table {name}` with the events; if the "
        "keys are written in another way, write the CSV file anew and load it"
    ]


def when_empty(name: str, table: LookupTable) -> str | None:
    """Return what to tell if a lookup table has no rows, otherwise None.

    >>> from modelstream.tables import open_tables
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     print(when_empty("areas", tables.lookup("areas")))
    The table areas is empty → give its CSV file with --enrichment, or `python pipeline.py table load areas FILE`
    """
    if table.count():
        return None
    load = f"`python pipeline.py table load {name} FILE`"
    return f"The table {name} is empty → give its CSV file with --enrichment, or {load}"


def _asked(stores: Stores, lookup: LookUp) -> list[str]:
    """Return some of the keys that were looked up, each once, as the table would have them."""
    use_case = stores.use_case
    kind = use_case.fields[lookup.by]
    event = use_case.profile.event if use_case.profile else ""
    asking = [name for name, code in use_case.event_codes.items() if use_case.event_names[code] == event]
    keys: dict[str, None] = {}
    rows = 0
    for batch in stores.events_log.scan([use_case.type, lookup.by]):
        rows += batch.num_rows
        found = batch.column(lookup.by)
        if lookup.at:
            found = found.filter(pc.is_in(batch.column(use_case.type), value_set=pa.array(asking, pa.string())))
        keys |= dict.fromkeys(lookup_key(text, kind) for text in pc.unique(found).to_pylist() if text is not None)
        keys.pop("", None)
        if len(keys) >= SAMPLE or rows >= MOST_ROWS:
            break
    return list(keys)[:SAMPLE]


def _zeros(by: str, table: LookupTable, missed: Sequence[str]) -> str | None:
    """Return what to tell if the keys differ from those of the table in leading zeros, otherwise None."""
    without = {key.lstrip("0"): key for key in missed if key.startswith("0") and key.strip("0")}
    with_zeros = {"0" * zeros + key: key for key in missed for zeros in range(1, MOST_ZEROS + 1)}
    for others, how, remedy in (
        (
            without,
            "without their leading zeros",
            "write the CSV file's keys with their zeros, as text (pandas: dtype=str)",
        ),
        (with_zeros, "with leading zeros", f"send {by} as text, with its zeros; or write the CSV file without"),
    ):
        there = [key for key, value in zip(others, table.get_many(list(others)), strict=True) if value is not None]
        if there:
            return (
                f"{by} {others[there[0]]!r} was looked up, and the table has {there[0]!r}: of "
                f"{len(missed):,} such keys it has {len(there):,} {how} → {remedy}"
            )
    return None
