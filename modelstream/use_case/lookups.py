"""What holds for every lookup: when two keys are the same, in CSV files and events, and when misses are too many."""

from __future__ import annotations

import re

from modelstream.use_case.declared import FieldType, UseCase
from modelstream.use_case.vocabulary import LookUp

_WHOLE = re.compile(r"(0|-?[1-9][0-9]*)\.0+")
"""A number without a fraction, as pandas writes a column of integers in which some are missing."""


def lookup_key(text: str, kind: FieldType) -> str:
    """Return a key as the lookup table has it; empty if it is blank. `kind` is the type of the field `lookup.by`.

    Blanks around a key don't count. Where an identifier may be a number, one without a fraction is an integer. Leading
    zeros stay: they are what tells a code from a number.

    >>> [lookup_key(text, FieldType.IDENTIFIER) for text in (" 10000.0", "10000", "02139", "02139.0", "1.5", "  ")]
    ['10000', '10000', '02139', '02139.0', '1.5', '']
    >>> lookup_key("10000.0 ", FieldType.TEXT)
    '10000.0'
    """
    text = text.strip()
    if kind == FieldType.TEXT:
        return text
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def mostly_missed(lookups: int, misses: int) -> bool:
    """Tell whether most lookups found nothing, which hardly anybody wants.

    >>> mostly_missed(lookups=10, misses=5), mostly_missed(lookups=10, misses=6), mostly_missed(lookups=0, misses=0)
    (False, True, False)
    """
    return 2 * misses > lookups


def lookup_tables(use_case: UseCase) -> dict[str, dict[str, LookUp]]:
    """Return the tables that a use case looks up: for each what is looked up there, by the name of the feature.

    >>> from types import SimpleNamespace
    >>> index, risk = LookUp("areas", by="area", at="profile"), LookUp("terminals", by="terminal")
    >>> use_case = SimpleNamespace(profile_lookups={"index": index}, event_lookups={"risk": risk})
    >>> {table: list(features) for table, features in lookup_tables(use_case).items()}
    {'areas': ['index'], 'terminals': ['risk']}
    """
    found: dict[str, dict[str, LookUp]] = {}
    for name, lookup in (*use_case.profile_lookups.items(), *use_case.event_lookups.items()):
        found.setdefault(lookup.look_up, {})[name] = lookup
    return found
