"""Every mistake in a YAML file is told with its file, its line, its place and what to do."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.base.yamlfile import Place, YamlFile, suggestion
from modelstream.errors import ConfigurationError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(msgspec.Struct, forbid_unknown_fields=True, rename={"kind": "class"}):
    size: int
    kind: str = ""
    colour: Colour = Colour.RED


class Whole(msgspec.Struct, forbid_unknown_fields=True):
    parts: list[Part]
    by_name: dict[str, Part] = {}


def told(text: str, kind: type = Whole) -> str:
    with pytest.raises(ConfigurationError) as raised:
        file = YamlFile(text, "it.yaml")
        file.convert(file.data, kind)
    return f"{raised.value}; {raised.value.remedy}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parts:\n- size: 1\n- {size: x}", "it.yaml, line 3, parts.1.size: expected int, got str; give a value of"),
        ("parts:\n- size: 1\n  siez: 2", "it.yaml, line 3, parts.0.siez: unknown name; mend it, or leave it"),
        ("parts:\n- size: 1\n- size: 1\n  colour: rod", "it.yaml, line 4, parts.1.colour: invalid enum value 'rod'"),
        ("\n\nparts:\n- {class: a}", "it.yaml, line 4, parts.0: 'size' is missing; add a line `size: …`"),
        ("part: []", "it.yaml, line 1, part: unknown name; did you mean 'parts'? known: parts, by_name"),
        ("parts: 3", "it.yaml, line 1, parts: expected array, got int; give a value of the right type"),
        ("parts: []\nby_name:\n  a:\n    size: [1]", "it.yaml, line 2, by_name.....size: expected int, got array"),
        (
            "parts: []\nby_name:\n  no: {size: 1}",
            "it.yaml, line 2, by_name: holds a name that is not text; put the name",
        ),
        ("parts: []\nby_name: {a: 3}", "it.yaml, line 2, by_name....: expected object, got int; give a value"),
        ("a: 1\nb: 2\na: 3", "it.yaml, line 3, a: appears here a second time; keep one of the two"),
        ("a:\n  b: 1\n  b: 1", "it.yaml, line 3, a.b: appears here a second time"),
        ("a:\n- {b: 1, b: 2}", "it.yaml, line 2, a.0.b: appears here a second time"),
        (
            "a: [1\nb: 2",
            "it.yaml, line 2: not YAML: expected ',' or ']', but got ':'; correct this line, or the one befor",
        ),
        ("a: 2026-99-99", "it.yaml: not YAML: month must be in 1..12"),
        ("a: !!python/object:os.system {}", "it.yaml, line 1: not YAML: could not determine a constructor"),
        ("a: \x01", "it.yaml: not YAML: "),
        ("", "it.yaml: the file is not a mapping of names to values; write lines such as `version: 1`"),
        ("- a", "it.yaml: the file is not a mapping of names to values"),
        ("a", "it.yaml: the file is not a mapping of names to values"),
        ("[" * 3000, "it.yaml: nested too deeply; write it flat"),
        ("a: &x [*x]", "it.yaml: "),
    ],
)
def test_mistake_is_told_with_its_place_and_a_remedy(text: str, expected: str) -> None:
    assert told(text).startswith(expected) or expected in told(text)


def test_a_name_that_is_none_of_an_enum_is_told_with_those_there_are() -> None:
    file = YamlFile("a: 1\ncolour: rod", "it.yaml")
    with pytest.raises(ConfigurationError, match=r"it\.yaml, line 2, colour: 'rod' is unknown") as raised:
        file.convert("rod", Colour, ("colour",))
    assert raised.value.remedy == "did you mean 'red'? known: red, blue"


def test_a_name_that_is_unknown_is_told_with_those_there_are() -> None:
    file = YamlFile("part:\n  klass: a", "it.yaml")
    with pytest.raises(ConfigurationError, match=r"it\.yaml, line 2, part\.klass: unknown name") as raised:
        file.convert(file.data["part"], Part, ("part",))
    assert raised.value.remedy == "did you mean 'class'? known: size, class, colour"


def test_what_is_missing_is_told_on_the_line_of_what_should_hold_it() -> None:
    file = YamlFile("a: 1\nb:\n  c: 2", "it.yaml")
    assert str(file.error(("b", "d", "e"), "missing", "")) == "it.yaml, line 2, b.d.e: missing"
    assert str(file.error(("z",), "missing", "")) == "it.yaml, z: missing"
    assert str(file.error((), "wrong", "")) == "it.yaml: wrong"


def test_what_is_read_is_converted() -> None:
    file = YamlFile("parts: [{size: 1, class: a, colour: blue}]", "it.yaml")
    assert file.convert(file.data, Whole) == Whole([Part(1, "a", Colour.BLUE)])
    assert file.convert(file.data["parts"][0]["size"], int, ("parts", 0, "size")) == 1


PLAIN = st.one_of(st.integers(-9, 9), st.booleans(), st.none(), st.text("ab: #-\n", max_size=5))
NESTED = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
)


def written(value: object, place: Place = (), indent: str = "") -> Iterator[tuple[str, list[Place]]]:
    """Yield the lines of a block of YAML, with the places whose line each is."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        at = (*place, key)
        start = f"{indent}{key}:" if isinstance(value, dict) else f"{indent}-"
        if not inner or not isinstance(inner, dict | list):
            yield f"{start} {json.dumps(inner)}", [at]
            continue
        lines = [*written(inner, at, indent + "  ")]
        if isinstance(value, list):  # what stands in a list is where its own first line is
            lines[0][1].append(at)
        yield start, [at] if isinstance(value, dict) else []
        yield from lines


@given(st.dictionaries(st.text("abc", min_size=1), NESTED, min_size=1))
def test_every_value_has_the_line_on_which_it_stands(data: dict[str, object]) -> None:
    lines = [*written(data)]
    file = YamlFile("\n".join(text for text, _ in lines), "it.yaml")
    assert file.data == data
    for number, (_, places) in enumerate(lines, 1):
        for place in places:
            told = str(file.error(place, "wrong", ""))
            assert told == f"it.yaml, line {number}, {'.'.join(map(str, place))}: wrong"


def test_suggestions_are_of_what_is_close_and_tell_what_is_known() -> None:
    assert suggestion("zebra", ["sum", "mean"]) == "known: sum, mean"
    assert suggestion(1, [10, 2]) == "did you mean '10'? known: 10, 2"
    assert suggestion("x", []) == "known: none"
