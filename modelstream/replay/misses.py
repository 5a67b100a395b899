"""Why lookups found nothing: the keys that events asked for, from the log, beside those that the lookup table has."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from modelstream.stores import Stores
from modelstream.tables import LookupTable
from modelstream.use_case.declared import Lookup
from modelstream.use_case.lookups import lookup_key, lookup_key_type, mostly_missed

SAMPLE = 200
"""Keys that are looked up again: enough to see a pattern, and few enough for a table that is asked key by key."""
MOST_ROWS = 2_000_000
"""Rows of the log that are searched for them: a second or two."""
MOST_ZEROS = 4


def lookup_warnings(stores: Stores, lookups: int, misses: int) -> list[str]:
    """Return what to tell if most lookups found nothing: how many, probably why, and what to do; otherwise nothing.

    An example would need a folder with a log of events: `tests/replay/test_misses.py` makes some.
    """
    lookup, table = stores.use_case.lookup, stores.enrichment
    if lookup is None or table is None or not mostly_missed(lookups, misses):
        return []
    said = (
        f"{misses:,} of {lookups:,} lookups in the table {lookup.table} found nothing: {lookup.value} is then the "
        f"default, {lookup.default:g}. "
    )
    return [said + _why(stores, lookup, table)]


def _why(stores: Stores, lookup: Lookup, table: LookupTable) -> str:
    if (empty := when_empty(lookup, table)) is not None:
        return empty
    asked = _asked(stores, lookup)
    if not asked:
        return (
            f"The events that register a user have no {lookup.by} → send it, or write in the use case "
            "(`lookup: by`) under which name it comes"
        )
    values = table.get_many(asked)
    missed = [key for key, value in zip(asked, values, strict=True) if value is None]
    if 2 * len(missed) <= len(asked):
        return (
            "The table has most of these keys now: they were loaded after these users had registered, and a user keeps "
            "the value of that moment → load the table before events are sent"
        )
    return _zeros(lookup, table, missed) or (
        f"For example {lookup.by} {missed[0]!r} was looked up, and the table has {next(table.scan(1))[0][0].as_py()!r} "
        f"→ compare `python pipeline.py table {lookup.table}` with the events; if the keys are written in another way, "
        "write the CSV file anew and load it"
    )


def when_empty(lookup: Lookup, table: LookupTable) -> str | None:
    """Return what to tell if a lookup table has no rows, otherwise None.

    >>> from modelstream.tables import open_tables
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_tables(f"sqlite://{folder}") as tables:
    ...     print(when_empty(Lookup(table="areas", by="area", value="index"), tables.lookup("areas")))
    The table areas is empty → give its CSV file with --enrichment, or `python pipeline.py table load areas FILE`
    """
    if table.count():
        return None
    return (
        f"The table {lookup.table} is empty → give its CSV file with --enrichment, "
        f"or `python pipeline.py table load {lookup.table} FILE`"
    )


def _asked(stores: Stores, lookup: Lookup) -> list[str]:
    """Return some of the keys that were looked up, each once, as the table would have them."""
    use_case = stores.use_case
    kind = lookup_key_type(use_case)
    event = use_case.profile.event if use_case.profile else ""
    registering = [name for name, code in use_case.event_codes.items() if use_case.event_names[code] == event]
    keys: dict[str, None] = {}
    rows = 0
    for batch in stores.events_log.scan([use_case.type, lookup.by]):
        rows += batch.num_rows
        chosen = pc.is_in(batch.column(use_case.type), value_set=pa.array(registering, pa.string()))
        found = batch.column(lookup.by).filter(chosen)
        keys |= dict.fromkeys(lookup_key(text, kind) for text in pc.unique(found).to_pylist() if text is not None)
        keys.pop("", None)
        if len(keys) >= SAMPLE or rows >= MOST_ROWS:
            break
    return list(keys)[:SAMPLE]


def _zeros(lookup: Lookup, table: LookupTable, missed: Sequence[str]) -> str | None:
    """Return what to tell if the keys differ from those of the table in leading zeros, otherwise None."""
    without = {key.lstrip("0"): key for key in missed if key.startswith("0") and key.strip("0")}
    with_zeros = {"0" * zeros + key: key for key in missed for zeros in range(1, MOST_ZEROS + 1)}
    for others, how, remedy in (
        (
            without,
            "without their leading zeros",
            "write the CSV file's keys with their zeros, as text (pandas: dtype=str)",
        ),
        (with_zeros, "with leading zeros", f"send {lookup.by} as text, with its zeros; or write the CSV file without"),
    ):
        there = [key for key, value in zip(others, table.get_many(list(others)), strict=True) if value is not None]
        if there:
            return (
                f"{lookup.by} {others[there[0]]!r} was looked up, and the table has {there[0]!r}: of "
                f"{len(missed):,} such keys it has {len(there):,} {how} → {remedy}"
            )
    return None
