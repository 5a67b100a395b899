"""A lookup table that remembers asks for each key once, for some seconds, and never keeps more than its bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pytest

from modelstream.tables import LookupTable, lookup_cache
from modelstream.tables.lookup_cache import CACHED_SECONDS, CachedLookup


class Slow(LookupTable):
    """A table that notes what it was asked."""

    def __init__(self) -> None:
        self.values: dict[str, float | None] = {"a": 1.0, "b": None}
        self.asked: list[list[str]] = []

    def load(self, batches: Iterable[pa.RecordBatch]) -> int:
        for batch in batches:
            self.values |= dict(zip(batch[0].to_pylist(), batch[1].to_pylist(), strict=True))
        return 0

    def get_many(self, keys: Sequence[str]) -> list[float | None]:
        self.asked.append(list(keys))
        return [self.values.get(key) for key in keys]

    def scan(self, batch_size: int = 10_000, after: str = "") -> Iterator[pa.RecordBatch]:
        return iter(())

    def count(self) -> int:
        return len(self.values)


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_keys_are_asked_for_once_also_those_that_are_not_there(slow: Slow) -> None:
    table = CachedLookup(slow, lambda: 0.0)
    assert table.get_many(["a", "x", "a", "b"]) == [1.0, None, 1.0, None]
    assert table.get_many(["b", "c", "a", "x"]) == [None, None, 1.0, None]
    assert slow.asked == [["a", "x", "b"], ["c"]]


def test_values_of_another_process_are_seen_after_some_seconds(slow: Slow) -> None:
    now = [0.0]
    table = CachedLookup(slow, lambda: now[0])
    table.get_many(["a"])
    slow.values["a"] = 2.0
    now[0] = CACHED_SECONDS - 0.1
    assert table.get_many(["a"]) == [1.0]
    now[0] = CACHED_SECONDS
    assert table.get_many(["a"]) == [2.0]


def test_what_is_loaded_here_is_seen_at_once(slow: Slow) -> None:
    table = CachedLookup(slow, lambda: 0.0)
    table.get_many(["a"])
    table.load([pa.record_batch({"key": ["a"], "value": [3.0]})])
    assert table.get_many(["a"]) == [3.0]


def test_memory_is_bounded(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_cache, "CACHED_KEYS", 10)
    table = CachedLookup(slow, lambda: 0.0)
    for first in range(0, 100, 5):
        table.get_many([str(first), "a"])
        assert len(table._values) <= 10
    keys = [str(number) for number in range(50)]
    assert table.get_many([*keys, "a"]) == [None] * 50 + [1.0], "more at once than fit"


def test_outage_leaves_nothing_behind(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    table = CachedLookup(slow, lambda: 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(slow, "get_many", lambda keys: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            table.get_many(["a"])
    assert table.get_many(["a"]) == [1.0]
