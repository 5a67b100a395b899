"""Every line is sent with its identity, in order, once it is due, and again until that is sure."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.errors import UnavailableError
from modelstream.messages.codec import decode
from modelstream.messages.identity import bucket_of
from modelstream.messages.json_text import key_of
from modelstream.source import sender as module
from modelstream.source.lines import Chunk, InputLines, LineSplitter, Progress
from modelstream.source.readers import Source
from modelstream.source.sender import Clock, Sender, Sent, Watcher, messages
from modelstream.streams import Streams, open_streams
from tests.streams.wrapped import WrappedStreams

SHARDS = 4


class FakeClock(Clock):
    """A clock that only waiting moves on; `stop_at` is when it says stop."""

    def __init__(self, stop_at: float = 1e9) -> None:
        super().__init__(lambda: self.time >= stop_at)
        self.time = 100.0
        self.waits: list[float] = []

    def now_us(self) -> int:
        return int(self.time * 1e6)

    def monotonic(self) -> float:
        return self.time

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.time += seconds
        return self.stopped()


class Log(Watcher):
    def __init__(self) -> None:
        self.counts: list[int] = []
        self.reasons: list[str] = []

    def sent(self, lines: int, expected: int) -> None:
        self.counts.append(lines)

    def waits(self, why: str) -> None:
        self.reasons.append(why)


class ListSource(Source):
    """Chunks of so many lines each."""

    origin = "a.ndjson"

    def __init__(self, texts: Sequence[bytes], size: int = 1000) -> None:
        self._texts = texts
        self._size = size

    def chunks(self, stopped: Callable[[], bool]) -> Iterator[Chunk]:
        splitter = LineSplitter("id")
        for first in range(0, len(self._texts), self._size):
            yield splitter.feed(b"\n".join(self._texts[first : first + self._size]) + b"\n")
            if stopped():
                return
        yield splitter.feed(b"", last=True)


class Stage:
    """A sender on a real stream, with everything that it tells."""

    def __init__(self, streams: Streams, **options: float) -> None:
        self.clock = FakeClock(options.pop("stop_at", 1e9))
        self.log = Log()
        self.saved: list[Progress] = []
        self.streams = streams
        self.sender = Sender(
            streams, "generated", self.save, clock=self.clock, watcher=self.log, rate=options.pop("rate", 0.0)
        )

    def save(self, progress: Progress) -> None:
        self.saved.append(progress)

    def run(self, texts: Sequence[bytes], size: int = 1000) -> Sent:
        return self.sender.run(ListSource(texts, size))


@pytest.fixture
def streams(tmp_path: Path) -> Iterator[Streams]:
    with open_streams(f"sqlite://{tmp_path}") as streams:
        streams.create("generated", SHARDS)
        yield streams


def event(number: int) -> bytes:
    return b'{"id": %d, "n": %d}' % (number % 23, number)


EVENTS = [event(number) for number in range(5000)]


def read(streams: Streams, shard: int) -> list[tuple[str, int, bytes, dict[str, str]]]:
    """Origin, position, line and metadata of all rows of a shard, in order."""
    result = []
    for message in streams.read("generated", shard, 0, 10_000, 1 << 30):
        rows = decode(message.body)
        assert rows.kind == "lines"
        columns = rows.batch.to_pydict()
        result += [
            (rows.origin, position, line, dict(rows.metadata))
            for position, line in zip(columns["position"], columns["line"], strict=True)
        ]
    return result


def received(streams: Streams) -> list[tuple[int, bytes]]:
    """All rows in the order of their positions; checks shards and the order in them."""
    everything = []
    for shard in range(SHARDS):
        rows = [(position, line) for _, position, line, _ in read(streams, shard)]
        assert rows == sorted(rows)
        assert all(bucket_of(key_of(line, "id")) % SHARDS == shard for _, line in rows)
        everything += rows
    return sorted(everything)


def test_all_lines_arrive_in_their_shards_in_order(streams: Streams) -> None:
    stage = Stage(streams)
    texts = [*EVENTS[:2000], b"", b" ", b"no json", *EVENTS[2000:]]
    sent = stage.run(texts)
    assert received(streams) == [(i, text) for i, text in enumerate(texts) if text.strip()]
    assert (sent.lines, sent.finished) == (5001, True)
    assert sent.messages == sum(streams.range("generated", shard)[1] for shard in range(SHARDS))
    assert stage.saved[-1].lines == 5003
    assert stage.saved[-1].finished
    assert stage.log.counts[-1] == 5001


def test_a_message_tells_origin_and_time(streams: Streams) -> None:
    Stage(streams).run(EVENTS[:1])
    ((origin, position, line, metadata),) = [row for shard in range(SHARDS) for row in read(streams, shard)]
    assert (origin, position, line, metadata) == ("a.ndjson", 0, event(0), {"ingested_at": "100000000"})


def lines_of(content: bytes, max_line: int = 1_000_000) -> InputLines:
    return LineSplitter("id", max_line=max_line).feed(content, last=True).lines


def test_cut_lines_are_listed_with_their_size() -> None:
    long = b'{"id": 1, "x": "' + b"y" * 10_000 + b'"}'
    content = b"\n".join([event(0), long, event(2), b"z" * 20_000])
    found: dict[str, int] = {}
    for _, body in messages(lines_of(content, max_line=5000), 64, "o", 0):
        rows = decode(body)
        cut = json.loads(rows.metadata.get("truncated", "{}"))
        assert set(map(int, cut)) <= set(rows.batch["position"].to_pylist())
        found |= cut
    assert found == {"1": len(long), "3": 20_000}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([10, 100, 300_000, 900_000, 999_990]), min_size=1, max_size=12), st.integers(1, 64))
def test_a_message_fits_every_backend(sizes: list[int], shards: int) -> None:
    content = b"\n".join(b'{"id": %d, "x": "%s"}' % (i % 3, b"y" * (size - 20)) for i, size in enumerate(sizes))
    records = messages(lines_of(content), shards, "o", 0)
    batches = [decode(body).batch for _, body in records]
    assert sorted(p for batch in batches for p in batch["position"].to_pylist()) == list(range(len(sizes)))
    for (_, body), batch in zip(records, batches, strict=True):
        assert len(body) < 1_002_000
        assert batch.num_rows == 1 or batch.nbytes <= 1_000_000


def test_a_message_has_at_most_ten_thousand_events() -> None:
    content = b"".join(b'{"id": 1}\n' for _ in range(25_000))
    counts = [decode(body).batch.num_rows for _, body in messages(lines_of(content), 8, "o", 0)]
    assert counts == [8334, 8333, 8333]


def test_a_message_has_at_most_ten_thousand_events_however_small_they_are() -> None:
    content = b'{"id": 1}\n' * 12_000 + b'{"id": 1, "x": "%s"}' % (b"y" * 500_000)
    counts = [decode(body).batch.num_rows for _, body in messages(lines_of(content), 8, "o", 0)]
    assert counts == [10_000, 2001]


class Flaky(WrappedStreams):
    """Streams that fail: before an append, or after it was made (the outcome is unknown)."""

    def __init__(self, streams: Streams, failures: dict[int, str]) -> None:
        super().__init__(streams)
        self._failures = failures
        self._calls = 0
        self.appended: list[list[tuple[int, bytes]]] = []
        self.pending: list[tuple[int, bytes]] | None = None

    def append(self, name: str, records: Sequence[tuple[int, bytes]]) -> list[int]:
        self._calls += 1
        failure = self._failures.get(self._calls)
        if self.pending is not None:
            assert list(records) == self.pending, "something else than the unconfirmed records was sent"
        if failure == "before":
            self.pending = list(records)
            raise UnavailableError("the disk is full")
        offsets = super().append(name, records)
        if failure == "after":
            self.pending = list(records)
            raise UnavailableError("no answer")
        self.pending = None
        return offsets


def test_an_outage_is_waited_for_and_told_and_nothing_is_lost(streams: Streams) -> None:
    stage = Stage(Flaky(streams, {2: "before", 3: "before", 4: "before"}))
    sent = stage.run(EVENTS)
    assert received(streams) == list(enumerate(EVENTS))
    assert sent.finished
    assert stage.clock.waits == [0.1, 0.2, 0.4]
    assert "can't append: the disk is full; trying again in 0.1 s" in stage.log.reasons[0]
    assert stage.log.reasons[-1] == ""


def test_records_whose_outcome_is_unknown_are_sent_again_unchanged(streams: Streams) -> None:
    stage = Stage(Flaky(streams, {1: "after", 2: "before", 4: "after"}))
    stage.run(EVENTS)
    twice = [position for shard in range(SHARDS) for _, position, _, _ in read(streams, shard)]
    assert sorted(set(twice)) == list(range(len(EVENTS)))
    assert len(twice) == len(EVENTS) + 2000


def test_backoff_grows_to_five_seconds(streams: Streams) -> None:
    stage = Stage(Flaky(streams, dict.fromkeys(range(1, 10), "before")))
    stage.run(EVENTS[:10])
    assert stage.clock.waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]


def test_progress_is_saved_only_when_its_lines_are_durable(streams: Streams) -> None:
    stage = Stage(streams)

    def save(progress: Progress) -> None:
        assert [position for position, _ in received(streams)] == list(range(progress.lines))
        stage.saved.append(progress)
        stage.clock.time += module.SAVE_SECONDS

    stage.clock.time += 1
    stage.sender = Sender(streams, "generated", save, clock=stage.clock)
    stage.clock.time += 1
    stage.run(EVENTS)
    assert [progress.lines for progress in stage.saved] == [1000, 5000]
    assert stage.saved[-1].finished


def test_a_save_that_fails_is_tried_again(streams: Streams) -> None:
    failures = [UnavailableError("locked"), UnavailableError("locked")]
    saved: list[Progress] = []

    def save(progress: Progress) -> None:
        if failures:
            raise failures.pop()
        saved.append(progress)

    clock = FakeClock()
    assert Sender(streams, "generated", save, clock=clock).run(ListSource(EVENTS)).finished
    assert clock.waits == [0.1, 0.2]
    assert saved[-1].lines == len(EVENTS)


def test_a_stop_lets_the_chunk_in_hand_end_and_saves(streams: Streams) -> None:
    stage = Stage(streams)
    stage.clock.stopped = lambda: bool(stage.log.counts)
    sent = stage.run(EVENTS)
    assert received(streams) == list(enumerate(EVENTS[:1000]))
    assert not sent.finished
    assert [progress.lines for progress in stage.saved] == [1000]


def test_a_stop_in_an_outage_ends_without_saving(streams: Streams) -> None:
    stage = Stage(Flaky(streams, dict.fromkeys(range(2, 100), "before")), stop_at=103)
    sent = stage.run(EVENTS)
    assert not sent.finished
    assert received(streams) == list(enumerate(EVENTS[:1000]))
    assert all(progress.lines == 1000 for progress in stage.saved)


def test_a_rate_is_kept_and_each_line_is_a_message(streams: Streams) -> None:
    stage = Stage(streams, rate=100.0)
    sent = stage.run(EVENTS[:500])
    assert stage.clock.time - 100 == pytest.approx(4.99, abs=0.02)
    assert sent.messages == 500
    assert received(streams) == list(enumerate(EVENTS[:500]))
    times = sorted(int(metadata["ingested_at"]) for shard in range(SHARDS) for *_, metadata in read(streams, shard))
    assert np.diff(times).max() <= 20_001


def test_a_high_rate_is_kept_with_few_appends(streams: Streams) -> None:
    stage = Stage(streams, rate=100_000.0)
    sent = stage.run(EVENTS * 10, size=1000)
    assert stage.clock.time - 100 == pytest.approx(0.5, abs=0.02)
    assert sent.messages < 100 * SHARDS + 50 * SHARDS
    assert len(received(streams)) == 50_000


def test_after_an_outage_the_rate_is_not_made_up_for(streams: Streams) -> None:
    stage = Stage(Flaky(streams, dict.fromkeys(range(2, 10), "before")), rate=10.0)
    stage.run(EVENTS[:100])
    outage = sum(wait for wait in stage.clock.waits if wait in (0.2, 0.4, 0.8, 1.6, 3.2, 5))
    assert stage.clock.time - 100 > outage + 8


def test_a_stop_at_a_low_rate_comes_at_once_and_saves_the_lines_sent(streams: Streams) -> None:
    stage = Stage(streams, rate=10.0, stop_at=102.05)
    sent = stage.run(EVENTS[:100])
    assert 19 <= sent.lines <= 22
    assert stage.saved[-1].lines == sent.lines
    assert received(streams) == list(enumerate(EVENTS[: sent.lines]))


@pytest.mark.parametrize("rate", [0.0, 1000.0])
def test_after_a_stop_nothing_follows_even_from_a_source_that_goes_on(streams: Streams, rate: float) -> None:
    class Stubborn(ListSource):
        def chunks(self, stopped: Callable[[], bool]) -> Iterator[Chunk]:
            del stopped
            return super().chunks(lambda: False)

    stage = Stage(streams, rate=rate)
    stage.clock.stopped = lambda: bool(stage.log.counts and stage.log.counts[-1] >= 150)
    sent = stage.sender.run(Stubborn(EVENTS, size=200))
    assert received(streams) == list(enumerate(EVENTS[: sent.lines]))
    assert sent.lines <= 200
    assert not sent.finished


def test_waiting_ends_soon_after_a_stop() -> None:
    stop = threading.Event()
    clock = Clock(stop.is_set)
    threading.Timer(0.05, stop.set).start()
    begun = time.monotonic()
    assert clock.wait(60)
    assert time.monotonic() - begun < 30
    assert not Clock().wait(0.001)
