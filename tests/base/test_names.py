"""A plain name can stand in a path, a topic, a key and a URL as it is."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.base.names import PLAIN_NAME


@pytest.mark.parametrize("name", ["events", "incoming-events", "A_1", "0"])
def test_plain_names_are_taken(name: str) -> None:
    assert PLAIN_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", ".hidden", "-option", "_own", "a/b", "../up", "a b", "a\n", "ä", "a.b"])
def test_other_names_are_not(name: str) -> None:
    assert not PLAIN_NAME.fullmatch(name)


@given(st.from_regex(PLAIN_NAME, fullmatch=True))
def test_a_plain_name_needs_no_quoting(name: str) -> None:
    assert quote(name, safe="") == name
