"""What every backend of streams promises. A test class of a backend inherits this and gives a `url`."""

from __future__ import annotations

import os
import select
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.streams import Message, Streams, open_streams

SHARDS = 3
MEGABYTE = 1 << 20
FOREVER = 1 << 62
"""A time that every message is older than."""


def read_all(streams: Streams, shard: int, at_once: int = 100) -> list[Message]:
    """Read a shard of `events` to its end, some messages at a time."""
    offset, end = streams.range("events", shard)
    messages: list[Message] = []
    while offset < end:
        found = streams.read("events", shard, offset, at_once, MEGABYTE)
        assert found, f"nothing at {offset} of {end}"
        messages += found
        offset = found[-1].offset + 1
    return messages


def append_numbered(url: str, writer: int, count: int) -> None:
    with open_streams(url) as streams:
        for number in range(count):
            # Every seventh is large, so that both ways of storing a body take turns.
            body = b"%d %d " % (writer, number) + b"x" * (200_000 if number % 7 == 0 else 10)
            offsets = streams.append("events", [(1, body)])
            assert streams.read("events", 1, offsets[0], 1, MEGABYTE)[0].body == body


def append_when_asked(url: str, asked: Any) -> None:
    asked.wait(30)
    with open_streams(url) as streams:
        streams.append("events", [(2, b"late")])


class StreamsContract:
    """Inherit it, and give `url`: where no stream is yet."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def streams(self, url: str) -> Iterator[Streams]:
        with open_streams(url) as streams:
            streams.create("events", SHARDS)
            yield streams

    def test_new_shard_is_empty(self, streams: Streams) -> None:
        first = streams.first_offset
        assert streams.range("events", 0) == (first, first)
        assert streams.read("events", 0, first, 10, MEGABYTE) == []

    def test_messages_come_back_in_order_with_rising_offsets(self, streams: Streams) -> None:
        first = streams.first_offset
        before = time.time_ns() // 1000
        given_offsets = streams.append("events", [(0, b"a"), (2, b"b"), (0, b"c")])
        given_offsets += streams.append("events", [(0, b"d")])
        assert given_offsets == [first, first, first + 1, first + 2]
        messages = read_all(streams, 0)
        assert [(m.shard, m.offset, m.body) for m in messages] == [
            (0, first, b"a"),
            (0, first + 1, b"c"),
            (0, first + 2, b"d"),
        ]
        assert [m.body for m in read_all(streams, 2)] == [b"b"]
        assert read_all(streams, 1) == []
        assert all(before - 1_000_000 <= m.appended_at <= time.time_ns() // 1000 + 1_000_000 for m in messages)

    def test_bodies_of_every_size_come_back_as_they_were(self, streams: Streams) -> None:
        sizes = [0, 1, 100, 4095, 4096, 60_000, 131_071, 131_072, 1_000_000, 3]
        bodies = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
        for body in bodies:
            streams.append("events", [(0, body)])
        streams.append("events", [(1, body) for body in bodies])
        assert [m.body for m in read_all(streams, 0)] == bodies
        assert [m.body for m in read_all(streams, 1)] == bodies

    def test_messages_are_there_for_others_and_later(self, streams: Streams, url: str) -> None:
        streams.append("events", [(0, b"small"), (0, b"l" * 300_000)])
        with open_streams(url) as others:
            assert [m.body for m in read_all(others, 0)] == [b"small", b"l" * 300_000]
            assert others.describe("events") == streams.describe("events")
        streams.close()
        assert streams.append("events", [(0, b"more")]) == [streams.first_offset + 2]

    def test_read_keeps_to_its_limits(self, streams: Streams) -> None:
        first = streams.first_offset
        streams.append("events", [(0, bytes(1000))] * 10)
        assert len(streams.read("events", 0, first, 3, MEGABYTE)) == 3
        assert [m.offset for m in streams.read("events", 0, first + 2, 100, 3999)] == [
            first + offset for offset in (2, 3, 4)
        ]
        assert len(streams.read("events", 0, first, 100, 4000)) == 4

    def test_a_look_at_one_message_leaves_no_trace(self, streams: Streams) -> None:
        """Whoever looks at one shard is still told of new messages in others, and reads on where it was."""
        first = streams.first_offset
        streams.append("events", [(0, b"a"), (0, b"b"), (1, b"c")])
        assert [m.body for m in streams.read_once("events", 0, first + 1, 1, 1)] == [b"b"]
        before = streams.version("events")
        streams.append("events", [(1, b"d")])
        deadline = time.monotonic() + 10
        while streams.version("events") == before:
            assert time.monotonic() < deadline, "nobody is told of the new message"
        assert [m.body for m in streams.read("events", 1, first, 1, MEGABYTE)] == [b"c"]
        assert [m.body for m in streams.read_once("events", 1, first + 1, 9, MEGABYTE)] == [b"d"]
        assert [m.body for m in streams.read("events", 1, first + 1, 1, MEGABYTE)] == [b"d"]

    def test_read_gives_a_first_message_of_any_size(self, streams: Streams) -> None:
        streams.append("events", [(0, bytes(500_000)), (0, b"next")])
        assert [len(m.body) for m in streams.read("events", 0, streams.first_offset, 10, 100)] == [500_000]

    def test_read_at_the_end_and_beyond_gives_nothing(self, streams: Streams) -> None:
        streams.append("events", [(0, b"a")])
        assert streams.read("events", 0, streams.first_offset + 1, 10, MEGABYTE) == []
        assert streams.read("events", 0, streams.first_offset + 1000, 10, MEGABYTE) == []

    def test_append_to_a_shard_that_is_not_there_appends_nothing(self, streams: Streams) -> None:
        for shard in (SHARDS, -1):
            with pytest.raises(ConfigurationError, match="shard"):
                streams.append("events", [(0, b"a"), (shard, b"b")])
        assert read_all(streams, 0) == []

    def test_append_of_nothing_is_allowed(self, streams: Streams) -> None:
        assert streams.append("events", []) == []

    def test_stream_that_is_not_there_is_named(self, streams: Streams) -> None:
        for action in (
            lambda: streams.append("evnets", [(0, b"a")]),
            lambda: streams.read("evnets", 0, 0, 1, 1),
            lambda: streams.range("evnets", 0),
            lambda: streams.describe("evnets"),
            lambda: streams.ack("group", "evnets", {0: 0}),
            lambda: streams.acked("group", "evnets"),
            lambda: streams.version("evnets"),
        ):
            with pytest.raises(ConfigurationError, match="evnets") as caught:
                action()
            assert caught.value.remedy

    def test_create_again_keeps_what_is_there(self, streams: Streams) -> None:
        streams.append("events", [(0, b"a")])
        info = streams.create("events", SHARDS)
        assert (info.name, info.shards, info.epoch) == ("events", SHARDS, 0)
        assert [m.body for m in read_all(streams, 0)] == [b"a"]

    def test_create_with_other_shards_or_epoch_is_refused(self, streams: Streams) -> None:
        with pytest.raises(ConfigurationError, match="3 shards") as caught:
            streams.create("events", SHARDS + 1)
        assert caught.value.remedy
        with pytest.raises(ConfigurationError, match="epoch"):
            streams.create("events", SHARDS, epoch=1)

    def test_create_refuses_what_can_not_be(self, streams: Streams) -> None:
        for name in ("", "a/b", "../a", "a b", ".a"):
            with pytest.raises(ConfigurationError, match="name"):
                streams.create(name, 1)
        for shards in (0, 65):
            with pytest.raises(ConfigurationError, match="shards"):
                streams.create("new", shards)

    def test_names_are_sorted(self, streams: Streams) -> None:
        streams.create("serving", 1, epoch=2)
        streams.create("dead-letters", 64)
        streams.ack("group", "events", {0: 0})
        assert streams.names() == ["dead-letters", "events", "serving"]
        assert streams.describe("serving").epoch == 2

    def test_acks_only_rise(self, streams: Streams, url: str) -> None:
        none = streams.first_offset - 1
        assert streams.acked("handler", "events") == dict.fromkeys(range(SHARDS), none)
        streams.ack("handler", "events", {1: 5})
        streams.ack("handler", "events", {1: 3})
        streams.ack("logger", "events", {1: 4})
        with open_streams(url) as others:
            assert others.acked("handler", "events") == {0: none, 1: 5, 2: none}
            assert others.acked("logger", "events") == {0: none, 1: 4, 2: none}

    def test_acks_of_streams_are_apart(self, streams: Streams) -> None:
        streams.create("other", SHARDS)
        streams.ack("handler", "other", {0: 9})
        assert streams.acked("handler", "events")[0] == streams.first_offset - 1

    def test_version_changes_with_every_append(self, streams: Streams, url: str) -> None:
        with open_streams(url) as others:
            versions = [streams.version("events")]
            assert streams.version("events") == versions[0]
            others.append("events", [(0, b"theirs")])
            versions.append(streams.version("events"))
            streams.append("events", [(0, b"ours")])
            versions.append(streams.version("events"))
            others.append("events", [(0, bytes(500_000))])
            versions.append(streams.version("events"))
        assert len(set(versions)) == 4

    def test_whoever_listens_is_told_of_what_others_append(self, streams: Streams, url: str) -> None:
        bell = streams.listen("events")
        if bell is None:
            return  # this backend can't wake anybody: its readers ask for the version
        assert streams.listen("events") == bell
        assert not select.select([bell], [], [], 0)[0]
        with open_streams(url) as others:
            others.append("events", [(0, b"theirs")])
            assert select.select([bell], [], [], 10)[0]
            os.read(bell, 100)
            others.create("others", SHARDS)
            others.append("others", [(0, b"not for us")])
        assert not select.select([bell], [], [], 0)[0]

    def test_reader_that_polls_sees_another_process_append(self, streams: Streams, url: str) -> None:
        asked = get_context("fork").Event()
        writer = get_context("fork").Process(target=append_when_asked, args=(url, asked))
        writer.start()
        before = streams.version("events")
        assert read_all(streams, 2) == []
        asked.set()
        deadline = time.monotonic() + 30
        while streams.version("events") == before:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert [m.body for m in read_all(streams, 2)] == [b"late"]
        writer.join()

    def test_writers_in_several_processes_lose_and_mix_nothing(self, streams: Streams, url: str) -> None:
        processes = [get_context("fork").Process(target=append_numbered, args=(url, writer, 60)) for writer in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        found = [tuple(map(int, m.body.split()[:2])) for m in read_all(streams, 1)]
        assert sorted(found) == [(writer, number) for writer in range(3) for number in range(60)]
        for writer in range(3):
            assert [number for who, number in found if who == writer] == list(range(60))

    def test_streams_opened_before_a_fork_work_in_both_processes(self, streams: Streams) -> None:
        streams.append("events", [(0, b"parent")])
        child = get_context("fork").Process(target=streams.append, args=("events", [(0, b"child" * 50_000)]))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        streams.append("events", [(0, b"parent again")])
        assert [m.body for m in read_all(streams, 0)] == [b"parent", b"child" * 50_000, b"parent again"]

    def test_shards_are_acknowledged_together_and_each_only_rises(self, streams: Streams) -> None:
        first = streams.first_offset
        streams.append("events", [(shard, b"%d" % number) for number in range(5) for shard in range(SHARDS)])
        streams.ack("handler", "events", {0: first + 2, 1: first + 1})
        assert streams.acked("handler", "events") == {0: first + 2, 1: first + 1, 2: first - 1}
        streams.ack("handler", "events", {0: first + 1, 1: first + 3, 2: first})
        assert streams.acked("handler", "events") == {0: first + 2, 1: first + 3, 2: first}
        streams.ack("handler", "events", {})
        with pytest.raises(ConfigurationError, match="shard"):
            streams.ack("handler", "events", {0: first + 4, SHARDS: first})
        assert streams.acked("handler", "events") == {0: first + 2, 1: first + 3, 2: first}

    def test_append_that_was_expected_is_like_any_other(self, streams: Streams) -> None:
        streams.expect_appends()
        streams.expect_appends()
        assert streams.append("events", [(0, b"a")]) == [streams.first_offset]

    def test_trim_deletes_what_all_groups_have_acknowledged(self, streams: Streams) -> None:
        first = streams.first_offset
        streams.append("events", [(0, b"%d" % number) for number in range(10)] + [(1, b"kept")])
        streams.ack("handler", "events", {0: first + 6})
        streams.ack("logger", "events", {0: first + 3})
        assert streams.trim("events", ["handler", "logger"], FOREVER) == 4
        assert streams.range("events", 0) == (first + 4, first + 10)
        assert [m.body for m in streams.read("events", 0, first, 2, MEGABYTE)] == [b"4", b"5"]
        assert [m.body for m in read_all(streams, 1)] == [b"kept"]
        assert streams.trim("events", ["handler", "logger"], FOREVER) == 0

    def test_trim_without_an_acknowledgement_or_groups_keeps_everything(self, streams: Streams) -> None:
        streams.append("events", [(0, b"a")])
        streams.ack("handler", "events", {0: streams.first_offset})
        assert streams.trim("events", ["handler", "logger"], FOREVER) == 0
        assert streams.trim("events", [], FOREVER) == 0
        assert len(read_all(streams, 0)) == 1

    def test_trim_keeps_what_is_young(self, streams: Streams) -> None:
        streams.append("events", [(0, b"old")])
        time.sleep(0.002)
        streams.append("events", [(0, b"young")])
        streams.ack("handler", "events", {0: streams.first_offset + 1})
        appended_at = read_all(streams, 0)[1].appended_at
        assert streams.trim("events", ["handler"], appended_at) == 1
        assert [m.body for m in read_all(streams, 0)] == [b"young"]

    def test_offsets_go_on_after_everything_was_trimmed(self, streams: Streams, url: str) -> None:
        first = streams.first_offset
        streams.append("events", [(0, b"a"), (0, bytes(300_000))])
        streams.ack("handler", "events", {0: first + 1})
        assert streams.trim("events", ["handler"], FOREVER) == 2
        streams.close()
        with open_streams(url) as others:
            assert others.range("events", 0) == (first + 2, first + 2)
            assert others.append("events", [(0, b"next")]) == [first + 2]
        assert [m.offset for m in read_all(streams, 0)] == [first + 2]

    def test_ranges_are_those_of_every_shard(self, streams: Streams) -> None:
        first = streams.first_offset
        streams.append("events", [(0, b"a"), (2, b"b"), (2, b"c")])
        streams.ack("handler", "events", {2: first})
        streams.trim("events", ["handler"], FOREVER)
        assert streams.ranges("events") == {0: (first, first + 1), 1: (first, first), 2: (first + 1, first + 2)}

    def test_rows_of_messages_are_counted_or_estimated(self, streams: Streams) -> None:
        streams.append("events", [(0, b"{}\n{}\n{}"), (0, b"{}\n{}\n{}"), (2, b"{}\n{}\n{}")])
        first = streams.first_offset
        assert streams.rows("events", {}) == streams.rows("events", {1: (first, first)}) == 0
        assert streams.rows("events", {0: (first, first + 2), 2: (first, first + 1)}) == 9
        streams.append("events", [(0, b"{}")])
        rows = streams.rows("events", {0: (first, first + 3)})
        assert rows == 7 if streams.counts_rows else rows >= 3, "at least one a message"
        assert len(read_all(streams, 0)) == 3, "the look at a message moved nothing"

    def test_messages_are_read_from_any_offset_in_any_order(self, streams: Streams) -> None:
        first = streams.first_offset
        streams.append("events", [(shard, b"%d" % number) for number in range(30) for shard in range(SHARDS)])
        for number, shard in ((20, 0), (3, 1), (21, 0), (5, 0), (29, 2), (4, 1), (22, 0), (0, 2)):
            found = streams.read("events", shard, first + number, 2, MEGABYTE)
            assert [int(m.body) for m in found] == list(range(number, min(number + 2, 30)))

    def test_removed_stream_can_be_made_anew(self, streams: Streams, url: str) -> None:
        streams.create("other", 1)
        streams.append("events", [(0, b"old"), (0, bytes(300_000))])
        streams.append("other", [(0, b"kept")])
        streams.ack("handler", "events", {0: streams.first_offset})
        streams.ack("handler", "other", {0: streams.first_offset})
        streams.remove("events")
        streams.remove("events")
        assert streams.names() == ["other"]
        with open_streams(url) as others:
            others.create("events", SHARDS + 1)
            assert others.acked("handler", "events") == dict.fromkeys(range(SHARDS + 1), streams.first_offset - 1)
            assert others.acked("handler", "other")[0] == streams.first_offset
            assert others.append("events", [(0, b"new")]) == [streams.first_offset]
            assert [m.body for m in read_all(others, 0)] == [b"new"]

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.one_of(
                st.tuples(
                    st.just("append"),
                    st.lists(st.tuples(st.integers(0, SHARDS - 1), st.sampled_from([0, 1, 5000, 140_000])), max_size=5),
                ),
                st.tuples(
                    st.just("ack"), st.tuples(st.sampled_from("ab"), st.integers(0, SHARDS - 1), st.integers(0, 12))
                ),
                st.tuples(st.just("trim"), st.none()),
                st.tuples(st.just("reopen"), st.none()),
            ),
            max_size=15,
        )
    )
    def test_any_sequence_agrees_with_lists(self, actions: list[tuple[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder, open_streams(self.url_in(folder)) as streams:
            streams.create("events", SHARDS)
            bodies: list[list[bytes]] = [[] for _ in range(SHARDS)]
            first, acked = [0] * SHARDS, {group: [-1] * SHARDS for group in "ab"}
            for action, value in actions:
                if action == "append":
                    records = [(shard, bytes([number]) * size) for number, (shard, size) in enumerate(value)]
                    offsets = streams.append("events", records)
                    for (shard, body), offset in zip(records, offsets, strict=True):
                        assert offset == streams.first_offset + len(bodies[shard])
                        bodies[shard].append(body)
                elif action == "ack":
                    group, shard, offset = value
                    offset = min(offset, len(bodies[shard]) - 1)
                    streams.ack(group, "events", {shard: streams.first_offset + offset})
                    acked[group][shard] = max(acked[group][shard], offset)
                elif action == "trim":
                    keep = [1 + min(acked[group][shard] for group in "ab") for shard in range(SHARDS)]
                    keep = [max(pair) for pair in zip(keep, first, strict=True)]
                    assert streams.trim("events", ["a", "b"], FOREVER) == sum(keep) - sum(first)
                    first = keep
                else:
                    streams.close()
            for shard in range(SHARDS):
                start = streams.first_offset
                assert streams.range("events", shard) == (start + first[shard], start + len(bodies[shard]))
                assert [m.body for m in read_all(streams, shard, at_once=2)] == bodies[shard][first[shard] :]

    def url_in(self, folder: str) -> str:
        """Return a URL without streams, for a test that needs many. The folder is new."""
        raise NotImplementedError
