"""A use case that passes the check can be used, and one that can't is told with a place, a problem and a remedy."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.events.parsing import Checker, LineParser
from modelstream.features.engine import FeatureEngine, no_rows
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import mistakes, parse_use_case
from modelstream.use_case.meaning import differences, meaning_of, use_case_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "use_cases"
CHURN: dict[str, Any] = yaml.safe_load((ROOT / "tests" / "use_cases" / "churn_version_1.yaml").read_text("utf-8"))
BOILERS: dict[str, Any] = yaml.safe_load((ROOT / "tests" / "use_cases" / "boilers.yaml").read_text("utf-8"))
CARDS: dict[str, Any] = yaml.safe_load((ROOT / "tests" / "use_cases" / "cards.yaml").read_text("utf-8"))


def without_features(data: dict[str, Any]) -> None:
    data["statistics"] = []
    data.pop("lookup")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data.update(predict_on=["bet", "win", "bet"]), "predict_on: 'bet' is listed twice; keep one"),
        (lambda data: data["profile"]["fields"].append("label"), "profile.fields: 'label' is listed twice; keep one"),
        (lambda data: data.pop("profile"), "there is no profile; add `profile`"),
        (without_features, "events: there is no feature; give an event a `value`, and list `statistics`"),
        (lambda data: data["events"]["bet"].update(aliases=[""]), "events.bet.aliases: an empty name; remove it"),
        (lambda data: data["events"]["bet"].update(aliases=["win"]), "events.win: 'win'"),
        (lambda data: data["events"]["bet"].update(aliases=["bet"]), "events.bet: 'bet'"),
    ],
)
def test_what_does_not_fit_is_told(change: Callable[[dict[str, Any]], object], problem: str) -> None:
    data = copy.deepcopy(CHURN)
    change(data)
    with pytest.raises(ConfigurationError) as told:
        parse_use_case(yaml.safe_dump(data), "it.yaml")
    assert problem in f"{told.value}; {told.value.remedy}"
    assert str(told.value).startswith("it.yaml, line ")


# Anything.

NAMES = [*CHURN["fields"], *CHURN["events"], *CHURN["statistics"], *CARDS["fields"], *CARDS["features"]]
NAMES += ["position", "Applied", "extra", "a-b", "x", ""]
TYPES = ["text", "number", "integer", "boolean", "time", "identifier", "key"]
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([*NAMES, *TYPES]),
    st.sampled_from([0, 1, -1, 0.5, 24, 10**7, float("nan"), float("inf"), True, None, [], {}]),
    st.lists(st.sampled_from(NAMES), max_size=3),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(TYPES), max_size=3),
    st.sampled_from(["all time", "1h", "0s", "3d", "this", "amount", "merchant", "spend_sum / 2", "a b", "2"]),
    st.sampled_from([{"last": 2}, {"last": "2m", "steps": 2}, {"session": "1s"}, {"from": "payment", "for": "1s"}]),
    st.sampled_from([*CARDS["features"].values(), {"is": 1}, {"in": ["DE"]}, {"above": -1.5}, {"country": "DE"}]),
    st.lists(st.sampled_from(["sum", "count", "distinct", "since", "rate", "share", {"last": 1}]), max_size=3),
    st.fixed_dictionaries({"value": st.sampled_from(NAMES), "aliases": st.lists(st.sampled_from(NAMES), max_size=2)}),
)


def places(data: object) -> list[tuple[Any, ...]]:
    """Return every place in a file: of names and of items."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in entries for place in [(key,), *((key, *rest) for rest in places(value))]]


@st.composite
def use_cases(draw: st.DrawFn) -> Any:
    """Return a use case with one or two things that are others, gone, or called otherwise."""
    data: Any = copy.deepcopy(draw(st.sampled_from([CHURN, BOILERS, CARDS, CARDS])))
    for _ in range(draw(st.integers(1, 2))):
        *above, last = draw(st.sampled_from(places(data)))
        part: Any = data
        for key in above:
            part = part[key]
        how = draw(st.sampled_from(["gone", "gone", "other", "renamed"]))
        value = part.pop(last)
        if how == "other":
            value = copy.deepcopy(draw(VALUES))
        if how != "gone" and isinstance(part, list):
            part.insert(last, value)
        elif how != "gone":
            part[last if how == "other" else draw(st.sampled_from(NAMES))] = value
    return data


def line_of(use_case: UseCase, event: str) -> bytes:
    samples = {"key": "u1", "text": "a", "identifier": "7", "time": "2026-01-01 00:00:00", "number": 1.5}
    samples |= {"integer": 1, "boolean": True}
    return json.dumps({name: samples[kind] for name, kind in use_case.fields.items()} | {use_case.type: event}).encode()


@settings(max_examples=300)
@given(use_cases())
def test_use_case_that_passes_can_be_used_and_the_others_are_told(data: Any) -> None:
    text = yaml.safe_dump(data, sort_keys=False)
    try:
        use_case = parse_use_case(text, "it.yaml", FOLDER)
    except ConfigurationError as error:
        assert str(error).startswith("it.yaml") and error.remedy
        assert str(error) in map(str, mistakes(text, "it.yaml", FOLDER))
        return
    assert mistakes(text, "it.yaml", FOLDER) == []
    stored = msgspec.json.encode(meaning_of(use_case))
    again = use_case_of(msgspec.json.decode(stored))
    assert differences(again, use_case) == [] and msgspec.json.encode(meaning_of(again)) == stored
    lines = [line_of(use_case, event) for event in use_case.event_names]
    parsed = LineParser(use_case).parse(lines, np.arange(len(lines)), ingested_at=1_800_000_000_000_000)
    assert parsed.rejects == []
    assert list(Checker(use_case).check(parsed.events)) == []
    engine = FeatureEngine(use_case)
    engine.load(engine.missing(["u1"]), no_rows(use_case))
    engine.apply(parsed.events, np.arange(len(lines)), lambda _, keys: [1.0 for _ in keys])
    assert set(use_case.features) <= set(use_case.vector_schema.names)
    assert all(name in use_case.fields for name in (use_case.key, use_case.time, use_case.type))
    for schema in (use_case.event_schema, use_case.row_schema, use_case.inference_log_schema):
        names = [name.lower() for name in schema.names]
        assert len(set(names)) == len(names)
