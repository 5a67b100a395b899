"""Generated events are those of the original generator in kind, and the same ones every time."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream import notebooks
from modelstream.base.times import parse_times
from modelstream.errors import ConfigurationError
from modelstream.events.parsing import Checker, LineParser
from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import key_of
from modelstream.source import generator
from modelstream.source.distributions import Distributions, Group, Pause
from modelstream.source.generator import GeneratorOptions, GeneratorSource, enrichment_table
from modelstream.use_case.file import load_use_case, parse_use_case

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden"
USE_CASE = load_use_case(ROOT / "use_cases" / "churn.yaml")
DISTRIBUTIONS: Distributions = notebooks.load(ROOT / "functions" / "data-generator.ipynb").DISTRIBUTIONS
END = 1_795_176_000_123_456  # 2026-11-20 12:00:00.123456, as in the reference
PLAIN = dataclasses.replace(
    DISTRIBUTIONS, profile={name: draw for name, draw in DISTRIBUTIONS.profile.items() if not callable(draw)}
)
"""The same without Faker, whose pools take 0.2 s to fill."""
SMALL = GeneratorOptions(users=20, events_per_user=60, seed=1, end=END)
REFERENCE_SIZE = GeneratorOptions(users=40, events_per_user=300, seed=1, end=END)
LARGE = GeneratorOptions(users=600, events_per_user=300, seed=1, end=END)


def source(size: GeneratorOptions = SMALL, **options: Any) -> GeneratorSource:
    distributions = options.pop("distributions", DISTRIBUTIONS)
    return GeneratorSource(options.pop("use_case", USE_CASE), distributions, size, **options)


def texts(size: GeneratorOptions = SMALL, **options: Any) -> list[bytes]:
    return b"".join(source(size, **options).texts()).splitlines()


@functools.cache
def plain_texts() -> list[bytes]:
    return texts(distributions=PLAIN)


@functools.cache
def events(size: GeneratorOptions | None) -> list[dict[str, Any]]:
    """The events of a size; of the reference for None."""
    lines = (GOLDEN / "reference_events.ndjson").read_bytes().splitlines() if size is None else texts(size)
    return [json.loads(line) for line in lines]


def by_user(size: GeneratorOptions | None) -> dict[str, list[dict[str, Any]]]:
    result = defaultdict(list)
    for event in events(size):
        result[event["user_id"]].append(event)
    return result


def seconds(user: list[dict[str, Any]]) -> Any:
    return parse_times(_strings([event["event_time"] for event in user])) / 1e6


def _strings(values: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(values)


# The same lines every time.


@settings(deadline=None, max_examples=25)
@given(st.integers(0, SMALL.lines), st.integers(1, 200))
def test_lines_are_the_same_wherever_one_starts_and_however_they_are_cut(start: int, size: int) -> None:
    chunks = list(source(start=start, chunk_lines=size, distributions=PLAIN).chunks(lambda: False))
    found = [row for chunk in chunks for row in zip(chunk.lines.positions.tolist(), chunk.lines.texts(), strict=True)]
    assert found == list(enumerate(plain_texts()))[start:]
    assert max(len(chunk.lines) for chunk in chunks) <= size
    assert [chunk.progress_at(len(chunk.lines)).finished for chunk in chunks][-1]


@pytest.mark.parametrize("rows", [1, 64, 300])
def test_lines_do_not_depend_on_the_slices_of_time(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = plain_texts()
    monkeypatch.setattr(generator, "SLICE_ROWS", rows)
    assert texts(distributions=PLAIN) == expected


def test_lines_stay_what_they_were() -> None:
    # A change here means other data for the same seed: raise generator.MECHANICS with it.
    digest = hashlib.sha256(b"\n".join(texts(distributions=PLAIN))).hexdigest()
    assert (generator.MECHANICS, digest[:16]) == (2, "6ea0738d4a5a6590")


def test_seed_and_end_change_the_lines() -> None:
    others = [
        texts(dataclasses.replace(SMALL, seed=2), distributions=PLAIN),
        texts(dataclasses.replace(SMALL, end=END + 1_000_000), distributions=PLAIN),
    ]
    for lines in others:
        assert not set(lines) & set(plain_texts())


def test_users_are_the_same_among_more_users() -> None:
    few, many = by_user(SMALL), by_user(dataclasses.replace(SMALL, users=50))
    assert len(many) == 50
    assert all(many[key] == own for key, own in few.items())


def test_the_fingerprint_tells_other_distributions() -> None:
    def changed(**fields: Any) -> str:
        return source(distributions=dataclasses.replace(PLAIN, **fields)).fingerprint

    first, second = PLAIN.groups
    more_wins = {**first.mix, "bet": 0.88, "win": 0.02}
    fingerprints = [
        changed(),
        changed(spread=(60, 141)),
        changed(values={**PLAIN.values, "bet": 11}),
        changed(step_seconds=(5, 101)),
        changed(first_hours_ago=(48, 90)),
        changed(groups=(dataclasses.replace(first, mix=more_wins), second)),
        changed(groups=(first, dataclasses.replace(second, pause=None))),
        changed(groups=(first, dataclasses.replace(second, fields={"label": 2}))),
        changed(profile={**PLAIN.profile, "city": lambda fake: fake.state()}),
        changed(profile={**PLAIN.profile, "city": lambda fake: fake.city()}),
        changed(profile={**PLAIN.profile, "home": lambda fake: fake.city()}),
        changed(enrichment=dataclasses.replace(PLAIN.enrichment, draws=(3334, 3335))),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert source(start=5, chunk_lines=3, distributions=PLAIN).fingerprint == fingerprints[0]


def test_plain_python_gives_the_same_lines() -> None:
    script = (
        "from tests.source.test_generator import *\n"
        "from modelstream.source.key_finder import KeyFinder\n"
        "block = (GOLDEN / 'edge_events.ndjson').read_bytes()[:9_000].rpartition(b'\\n')[0] + b'\\n'\n"
        "found = KeyFinder('user_id').find(block)\n"
        "few = texts(GeneratorOptions(users=4, events_per_user=20, seed=1, end=END), distributions=PLAIN)\n"
        "content = [*few, found.buckets.tobytes(), found.starts.tobytes(), found.ends.tobytes()]\n"
        "print(hashlib.sha256(b'\\n'.join(content)).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "MODELSTREAM_NUMBA": mode},
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for mode in ("0", "1")
    }
    assert len(digests) == 1


# The identity and order of lines.


def test_lines_come_in_order_of_time_and_registrations_first() -> None:
    times = seconds(events(LARGE))
    assert (np.diff(times) >= 0).all()
    for user in by_user(LARGE).values():
        assert [event["event_type"] for event in user].index("registration") == 0
        assert Counter(event["event_type"] for event in user)["registration"] == 1
        assert len(user) == LARGE.events_per_user + 1
    assert len(by_user(LARGE)) == LARGE.users


def test_buckets_are_those_of_the_keys() -> None:
    for chunk in source().chunks(lambda: False):
        keys = [key_of(text, "user_id") for text in chunk.lines.texts()]
        assert chunk.lines.buckets.tolist() == [bucket_of(key) for key in keys]
        assert all(str(uuid.UUID(key, version=4)) == key for key in keys)


def test_a_source_stops_when_asked() -> None:
    asked = iter([False, False, True])
    chunks = list(source(chunk_lines=100).chunks(lambda: next(asked)))
    assert [chunk.progress_at(100).lines for chunk in chunks] == [100, 200]
    assert not chunks[-1].progress_at(100).finished


def test_an_order_that_is_done_is_finished_at_once() -> None:
    (chunk,) = source(start=SMALL.lines).chunks(lambda: False)
    assert len(chunk.lines) == 0
    assert chunk.progress_at(0).finished


@pytest.mark.parametrize("count", [1, 3])
def test_few_users_and_few_events_do(count: int) -> None:
    lines = texts(GeneratorOptions(users=count, events_per_user=count, seed=0, end=0), distributions=PLAIN)
    assert len(lines) == count * (count + 1)


def test_half_a_million_users_have_their_buckets() -> None:
    population = generator.Population(PLAIN, GeneratorOptions(users=500_000, events_per_user=1, seed=1, end=END))
    last = population.keys[-1].tobytes().decode()
    assert (len(population.buckets), population.buckets[-1]) == (500_000, bucket_of(last))


# The data of the original generator.


def shape(event: dict[str, Any]) -> Any:
    """An event's fields in order, with the types of their values."""
    return tuple((name, type(value).__name__) for name, value in event.items())


def test_events_look_like_the_reference() -> None:
    assert {shape(event) for event in events(REFERENCE_SIZE)} == {shape(event) for event in events(None)}
    ours, theirs = (texts(REFERENCE_SIZE), (GOLDEN / "reference_events.ndjson").read_bytes().splitlines())
    blank = functools.partial(re.sub, rb"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+", b"#")
    plain = [{blank(line) for line in lines if b"registration" not in line} for lines in (ours, theirs)]
    assert plain[0] == plain[1]


def test_every_event_is_readable() -> None:
    lines = texts(REFERENCE_SIZE)
    parsed = LineParser(USE_CASE).parse(lines, np.arange(len(lines)), ingested_at=1_800_000_000_000_000)
    assert not parsed.rejects
    assert not list(Checker(USE_CASE).check(parsed.events))
    assert parsed.events["extra"].null_count == len(lines)


def label_of(user: list[dict[str, Any]]) -> int:
    return int(user[0]["label"])


def measures(size: GeneratorOptions | None) -> dict[str, float]:
    """The numbers that describe events, from the events alone."""
    result: dict[str, float] = {}
    users = by_user(size).values()
    labels = [label_of(user) for user in users]
    result["churners"] = float(np.mean(labels))
    for label in (0, 1):
        mine = [user for user in users if label_of(user) == label]
        types = Counter(event["event_type"] for user in mine for event in user[1:])
        for kind in ("purchase", "bet", "win"):
            result[f"{label} {kind}"] = types[kind] / types.total()
        steps = np.concatenate([np.diff(seconds(user)) for user in mine])
        result[f"{label} step"] = float(steps[steps <= 100].mean())
        result[f"{label} remainder 0"] = float(np.mean([user[0]["postcode"] % 3 == 0 for user in mine]))
        result[f"{label} foreign remainder"] = float(
            np.mean([user[0]["postcode"] % 3 == (2 if label else 1) for user in mine])
        )
    for field in ("amount", "bet_amount", "win_amount"):
        values = np.array([event[field] for event in events(size) if field in event])
        result[f"{field} mean"], result[f"{field} deviation"] = float(values.mean()), float(values.std())
    return result


TOLERANCES = {"amount": 0.03, "step": 0.03, "deviation": 0.06, "purchase": 0.01, "bet": 0.01, "win": 0.005}
"""Relative for values and steps, absolute for shares: three standard errors of the reference, about."""


def test_distributions_are_those_of_the_reference() -> None:
    ours, reference = measures(LARGE), measures(None)
    for name, theirs in reference.items():
        unit = name.split()[-1]
        if "amount" in name or unit == "step":
            assert ours[name] == pytest.approx(theirs, rel=TOLERANCES.get(unit, 0.03)), name
        elif unit in TOLERANCES:
            assert ours[name] == pytest.approx(theirs, abs=TOLERANCES[unit] * 1.5), name
        elif name.endswith("foreign remainder"):
            assert ours[name] == theirs == 0, name
        else:  # shares of 40 users: a standard error of 7 to 14 %
            assert ours[name] == pytest.approx(theirs, abs=0.3), name


def test_distributions_are_those_declared() -> None:
    ours = measures(LARGE)
    expected = {
        "churners": 0.7,
        "0 remainder 0": 0.5,
        "1 remainder 0": 0.5,
        "1 purchase": 0.10,
        "1 bet": 0.89,
        "1 win": 0.01,
        "0 purchase": 0.10,
        "0 bet": 0.85,
        "0 win": 0.05,
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=0.08 if name[-1] in "s0" else 0.005), name
    assert ours["0 step"] == pytest.approx(52.5, abs=0.3)


def test_ranges_are_used_to_both_ends() -> None:
    users = by_user(LARGE).values()
    steps = Counter(step for user in users for step in np.diff(seconds(user)).tolist())
    assert {step for step in steps if step <= 100} == set(range(5, 101))
    hours = Counter(((END / 1e6 - seconds(user)[0]) / 3600).item() for user in users)
    assert set(hours) == set(range(48, 97))
    for field, low, high in (("amount", 30, 70), ("bet_amount", 6, 14), ("win_amount", 120, 280)):
        values = {event[field] for event in events(LARGE) if field in event}
        assert (min(values), max(values)) == (low, high)
    assert all(10_002 <= user[0]["postcode"] <= 100_001 for user in users)


def test_stayers_pause_while_thirty_hours_are_left() -> None:
    pauses, chances = [], 0
    for user in by_user(LARGE).values():
        times = seconds(user)
        steps, left = np.diff(times), (END / 1e6 - times[:-1]) / 3600
        breaks = np.flatnonzero(steps > 100)
        if label_of(user) == 1:
            assert not len(breaks)
            continue
        chances += int((left >= 30).sum())
        pauses += [steps[i] / 3600 for i in breaks]
        assert all(left[i] >= 30 for i in breaks)
    assert set(pauses) == set(range(15, 25))
    assert len(pauses) / chances == pytest.approx(0.005, rel=0.15)


def test_no_event_is_after_the_end_and_users_who_would_overrun_it_do_the_same_only_earlier() -> None:
    long = GeneratorOptions(users=20, events_per_user=5_000, seed=1, end=END)  # about 73 hours of events
    drawn = GeneratorSource(USE_CASE, PLAIN, long)
    users = drawn._population.fresh()
    moved = users.shifts > 0
    assert 3 < moved.sum() < 20
    free = GeneratorSource(USE_CASE, PLAIN, long)
    free._population._users.times[:] += users.shifts
    free._population._users.shifts[:] = 0
    rows, unmoved = np.concatenate(list(drawn._slices())), np.concatenate(list(free._slices()))
    rows, unmoved = (each[np.lexsort((each[:, 0], each[:, 1]))] for each in (rows, unmoved))
    assert (unmoved - rows == np.eye(4, dtype=np.int64)[0] * users.shifts[rows[:, 1], None]).all()
    last = np.array([rows[rows[:, 1] == user, 0].max() for user in range(20)])
    assert (last[moved] == END // 1_000_000).all()
    assert (last[~moved] <= END // 1_000_000).all()


def test_profiles_vary_and_look_like_the_reference() -> None:
    ours, theirs = ([user[0] for user in by_user(size).values()] for size in (LARGE, None))
    for field in ("name", "street_address", "city", "country", "affiliate_url", "campaign", "date_of_birth"):
        assert len({profile[field] for profile in ours}) > 100, field
    for profile in ours + theirs:
        assert re.fullmatch(r"(19|20)\d\d-\d\d-\d\d", profile["date_of_birth"])
        assert re.fullmatch(r"\d{8}", profile["campaign"])
        assert profile["affiliate_url"].startswith("https://")


def test_the_enrichment_table_follows_the_postcode() -> None:
    rows = enrichment_table(DISTRIBUTIONS.enrichment, seed=1).to_pydict()
    assert rows["key"] == [str(postcode) for postcode in range(10_000, 99_999)]
    found: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for key, value in zip(rows["key"], rows["value"], strict=True):
        found[int(key) % 3][value] += 1
    assert {rest: set(counts) for rest, counts in found.items()} == {0: {3, 4, 5}, 1: {1, 2, 3}, 2: {5, 6, 7}}
    assert all(9500 < count < 10_500 for counts in found.values() for count in counts.values())
    assert rows == enrichment_table(DISTRIBUTIONS.enrichment, seed=1).to_pydict()
    assert rows != enrichment_table(DISTRIBUTIONS.enrichment, seed=2).to_pydict()


def test_times_are_written_as_python_writes_them() -> None:
    import datetime

    for end in (END, 951_868_800_000_000, 4_107_542_400_000_001, 0):  # 2026, leap day 2000, 2100, 1970
        base = datetime.datetime(1970, 1, 1)
        options = GeneratorOptions(users=30, events_per_user=100, seed=1, end=end)
        found = [json.loads(line)["event_time"] for line in texts(options, distributions=PLAIN)]
        fraction = datetime.timedelta(microseconds=end % 1_000_000)
        for text in found:
            whole = base + datetime.timedelta(seconds=int(np.floor(parse_times(_strings([text]))[0] / 1e6)))
            assert text == (whole + fraction).isoformat(" ", "microseconds")


# What can't be used is said.


def group(**fields: Any) -> dict[str, Any]:
    first, second = DISTRIBUTIONS.groups
    return {"groups": (dataclasses.replace(first, **fields), second)}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"values": {**DISTRIBUTIONS.values, "login": 1}}, "no event 'login' with a value"),
        ({"values": {"bet": 1, "win": 1}}, "'purchase' has no value"),
        ({"step_seconds": (0, 10)}, "step_seconds"),
        ({"step_seconds": (10, 5)}, "step_seconds"),
        (group(share=0.6), "shares"),
        (group(mix={"bet": 1.5, "win": -0.5}), "mix"),
        (group(remainders=(3,)), "remainders"),
        (group(remainders=()), "remainders"),
        (group(fields={}), "label"),
        (group(pause=Pause(0.1, (0, 1), 0)), "pause"),
    ],
)
def test_distributions_that_make_no_sense_are_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refused:
        source(distributions=dataclasses.replace(DISTRIBUTIONS, **changed))
    assert "data-generator.ipynb" in refused.value.remedy


def test_generator_of_another_use_case_says_whose_events_it_makes_and_what_to_do() -> None:
    with pytest.raises(
        ConfigurationError, match=r"another use case \(purchase, bet, win\); those of boilers are"
    ) as told:
        DISTRIBUTIONS.check(load_use_case(Path(__file__).parents[1] / "use_cases" / "boilers.yaml"))
    assert "--input FILE" in told.value.remedy


def test_a_use_case_without_a_lookup_is_refused() -> None:
    bare = parse_use_case(
        "{version: 1, name: bare, key: k, time: t, type: e, fields: {k: key, t: time, e: text, x: number},"
        " events: {bet: {value: x}}, predict_on: [bet], model: {name: m, prediction: p}}"
    )
    with pytest.raises(ConfigurationError, match="bare needs a profile and a lookup"):
        source(use_case=bare)


def test_another_use_case_has_its_own_names() -> None:
    other = parse_use_case("""
    {version: 1, name: shop, key: "who", time: at, type: "what", fields: {who: key, at: time, what: text,
     price: number, greeting: text, area: identifier}, events: {hello: , buy: {value: price}},
     profile: {event: hello, time: met},
     lookup: {table: areas, by: area, value: wealth}, predict_on: [buy], model: {name: m, prediction: p}}
    """)
    shop = Distributions(
        groups=(Group(share=1.0, mix={"buy": 1.0}, remainders=(0,), fields={}),),
        values={"buy": 3},
        spread=(100, 100),
        first_hours_ago=(1, 1),
        step_seconds=(1, 1),
        profile={"greeting": lambda _: "ü"},
        enrichment=DISTRIBUTIONS.enrichment,
    )
    options = GeneratorOptions(users=1, events_per_user=2, seed=1, end=3_600_000_000)
    found = [json.loads(line) for line in texts(options, use_case=other, distributions=shop)]
    key = found[0]["who"]
    assert found == [
        {"who": key, "what": "hello", "at": "1970-01-01 00:00:00.000000", "greeting": "ü"},
        {"who": key, "what": "buy", "at": "1970-01-01 00:00:01.000000", "price": 3},
        {"who": key, "what": "buy", "at": "1970-01-01 00:00:02.000000", "price": 3},
    ]
