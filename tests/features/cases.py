"""Use cases of version 2 for tests, built from their parts, and events for them, by a generator of random choices."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from modelstream.use_case.columns import INGESTED_AT
from modelstream.use_case.declared import Clock, Event, FieldType, ModelDeclaration, Profile, UseCase
from modelstream.use_case.vocabulary import (
    AllTime,
    Condition,
    Form,
    From,
    Group,
    LookUp,
    Recent,
    Session,
    Sliding,
    Statistic,
    Window,
)

FIELDS = {
    "user": FieldType.KEY,
    "at": FieldType.TIME,
    "kind": FieldType.TEXT,
    "id": FieldType.IDENTIFIER,
    "x": FieldType.NUMBER,
    "y": FieldType.NUMBER,
    "shop": FieldType.IDENTIFIER,
    "n": FieldType.INTEGER,
    "ok": FieldType.BOOLEAN,
}
EVENTS = {"pay": Event(("paid", "payment"), ("x",)), "back": Event(), "look": Event(), "hello": Event()}
OF_NUMBERS = ("sum", "mean", "count", "var", "std", "min", "max", "first", "last")
LOOKED_UP = {("shops", "a"): 1.5, ("shops", "b"): -0.0, ("towns", "a"): 7.0}
SLIDING = [("1h", 6), ("10s", 10), ("64s", 64), ("1h", 1), ("2s", 2), ("3m", 3), ("10m", 4), ("7d", 28)]


def case(forms: Mapping[str, Form], **parts: Any) -> UseCase:
    """Return a use case with some features, of the fields and events above.

    >>> case({"spent": Group(("pay",), "x", give=(Statistic.SUM,))}).features
    ('spent_sum',)
    """
    whole: dict[str, Any] = {
        "version": 2,
        "name": "shops",
        "key": "user",
        "written_time": Clock("at"),
        "type": "kind",
        "written": FIELDS,
        "events": EVENTS,
        "predict_on": ("pay", "look"),
        "forms": dict(forms),
        "model": ModelDeclaration("m", "p"),
    }
    return UseCase(**(whole | parts))


def some(rng: random.Random, choices: Sequence[Any], least: int = 1, most: int = 99) -> list[Any]:
    """Return some of the choices, each once, in any order."""
    return rng.sample(list(choices), rng.randint(min(least, len(choices)), min(most, len(choices))))


def random_case(rng: random.Random, groups: int = 4) -> UseCase:
    """Return a random use case with one to `groups` groups."""
    forms: dict[str, Form] = {f"g{i}": random_group(rng) for i in range(rng.randint(1, groups))}
    parts: dict[str, Any] = {}
    if rng.random() < 0.4:
        parts["profile"] = Profile("hello", "known_at", ("shop",))
        forms["found"] = LookUp("shops", "shop", "profile", -2.5)
        if rng.random() < 0.5:
            forms = {"town": LookUp("towns", "shop", "profile"), **forms}
    if rng.random() < 0.3:
        parts["window"] = From("pay", rng.choice(["1m", "6h"]), rng.random() < 0.5)
    if rng.random() < 0.5:
        parts["id"] = "id"
    ahead, late = rng.choice([None, "10m", "24h"]), rng.choice([None, None, "30s", "6h"])
    parts["written_time"] = Clock("at", ahead, late)
    return case(forms, predict_on=tuple(some(rng, ["pay", "back", "look", "hello"])), **parts)


def random_group(rng: random.Random) -> Group:
    """Return a random group of statistics."""
    windows: list[Window] = some(
        rng, [AllTime(), From("pay", "1m", rng.random() < 0.5), From("back", "6h", rng.random() < 0.5)], 0, 1
    )
    sliding = dict(some(rng, SLIDING, 0 if windows else 1, 3))
    windows += [Sliding(text, steps) for text, steps in sliding.items()]
    windows += [Session(gap) for gap in some(rng, ["5s", "10m"], 0, 2)]
    rng.shuffle(windows)
    value = rng.choice(["x", "x", "y", None, "shop", "n", "ok"])
    choices = ["count", "rate", "since"]
    if value in {"x", "y"}:
        choices += OF_NUMBERS[:2] + OF_NUMBERS[3:]
    if value is not None:
        choices += ["distinct", "unseen"]
    if not sliding:
        choices.append("since_open")
    share = random_conditions(rng) if rng.random() < 0.4 else {}
    give: list[Statistic | Recent] = [Statistic(name) for name in some(rng, choices + ["share"] * bool(share))]
    if value in {"x", "y"} and all(isinstance(window, AllTime | From) for window in windows) and rng.random() < 0.5:
        give.insert(rng.randint(0, len(give)), Recent(rng.randint(1, 4)))
    return Group(
        of=tuple(some(rng, ["pay", "back", "look"])),
        value=value,
        where=random_conditions(rng) if rng.random() < 0.3 else {},
        windows=tuple(windows),
        give=tuple(give),
        share=share,
        at_most=rng.choice([1, 2, 3, 5, 64]),
        without=rng.choice([None, "this"]),
        otherwise=rng.choice([0.0, -1.5]),
    )


def random_conditions(rng: random.Random) -> dict[str, Condition]:
    """Return one or two random conditions."""
    choices = {
        "shop": [Condition(is_="a"), Condition(is_not="a"), Condition(in_=("a", "ü"))],
        "kind": [Condition(is_="pay"), Condition(is_not="back"), Condition(in_=("look", "pay"))],
        "x": [Condition(above=0.5), Condition(below=2.0), Condition(is_=1.0), Condition(above=-1.0, below=2.0)],
        "n": [Condition(is_=3), Condition(in_=(1, 2)), Condition(above=1.5), Condition(is_not=0)],
        "ok": [Condition(is_=True), Condition(is_=False), Condition(is_not=True)],
    }
    return {field: rng.choice(choices[field]) for field in some(rng, list(choices), 1, 2)}


class RandomEvents:
    """Events of some users, whose times go forward, with late, repeated and too early ones among them."""

    def __init__(self, rng: random.Random, use_case: UseCase, users: int, pause: float, begin: int) -> None:
        self._rng = rng
        self._case = use_case
        self._users = [f"u{i}" for i in range(users)]
        self._clock = dict.fromkeys(self._users, begin)
        self._pause = pause
        self._ids = 0

    def one(self) -> dict[str, Any]:
        """Return the next event; its times are microseconds."""
        rng = self._rng
        user = rng.choice(self._users)
        clock, luck = self._clock[user], rng.random()
        time = clock + int(self._lengths() * self._pause)
        if luck < 0.15:
            time = clock - int(self._lengths() * self._pause * rng.choice([1, 10, 100]))
        elif luck < 0.25:
            time -= time % 1_000_000  # a boundary of steps
        elif luck < 0.27:
            time += rng.choice([5_000_000, 3_600_000_000, 700_000_000_000])
        self._clock[user] = max(clock, time)
        event: dict[str, Any] = {"user": user, "at": time, "kind": self._kind()}
        if luck > 0.97:
            event[INGESTED_AT] = time - 90_000_000_000
        elif luck > 0.1:
            event[INGESTED_AT] = time + 1
        self._ids += rng.random() < 0.9
        if rng.random() < 0.9:
            event["id"] = str(self._ids if rng.random() < 0.9 else max(0, self._ids - rng.randint(1, 70)))
        if event["kind"] in {"pay", "paid", "payment"} or rng.random() < 0.7:
            event["x"] = self._number()
        if rng.random() < 0.6:
            event["y"] = self._number()
        if rng.random() < 0.8:
            event["shop"] = rng.choice(["a", "b", "c", "ü", "e", "f", ""])
        if rng.random() < 0.8:
            event["n"] = rng.randint(0, 5)
        if rng.random() < 0.8:
            event["ok"] = rng.random() < 0.5
        return event

    def _lengths(self) -> float:
        return min(20.0, self._rng.expovariate(1.0))

    def _kind(self) -> str:
        return self._rng.choice(["pay", "pay", "paid", "payment", "back", "look", "look", "hello", "nonsense"])

    def _number(self) -> float:
        rng = self._rng
        return rng.choice(
            [
                rng.uniform(-3.0, 3.0),
                rng.uniform(0.0, 1.0) * 10.0 ** rng.randint(-6, 6),
                float(rng.randint(-2, 3)),
                -0.0,
            ]
        )


def batch_of(events: Sequence[Mapping[str, Any]], use_case: UseCase) -> pa.RecordBatch:
    """Return events as a batch, without the columns that no event has anything for."""
    there = {name for event in events for name in event} | {use_case.key, use_case.time, use_case.type}
    wanted = [column for column in use_case.event_schema if column.name in there]
    arrays = [pa.array([event.get(column.name) for event in events], column.type) for column in wanted]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(wanted))
