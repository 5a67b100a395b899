"""A key of the lookup table has one writing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelstream.use_case.declared import FieldType
from modelstream.use_case.lookups import lookup_key


@given(st.integers(), st.integers(1, 3), st.text(" \t", max_size=2))
def test_every_integer_has_one_key_however_it_is_written(number: int, zeros: int, blanks: str) -> None:
    written = (str(number), f"{number}.{'0' * zeros}", f"{blanks}{number}{blanks}")
    assert {lookup_key(text, FieldType.IDENTIFIER) for text in written} == {str(number)}


@given(st.text(), st.sampled_from(["text", "key", "identifier"]))
def test_a_key_stays_as_it_is_when_it_is_taken_again(text: str, kind: str) -> None:
    once = lookup_key(text, FieldType(kind))
    assert lookup_key(once, FieldType(kind)) == once
