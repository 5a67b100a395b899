"""Everybody opens streams, tables and logs in one way, and counts in one way what waits and what was counted."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.logs import open_log
from modelstream.messages.dead_letters import encode_letters, letter
from modelstream.messages.identity import Checkpoint
from modelstream.project import load_project
from modelstream.settings import StoreNames, StoreUrls
from modelstream.stores import Stores
from modelstream.streams import open_streams
from tests.streams.wrapped import WrappedStreams

ROOT = Path(__file__).parents[1]
PROJECT = load_project(ROOT / "project.yaml")
SHARDS = 3


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with Stores.of_project(PROJECT, StoreUrls().within(tmp_path)) as made:
        yield made


def letters(*positions: int) -> list[tuple[int, bytes]]:
    made = [letter("not JSON", "file", position, ("generated", 0, 0), b"x") for position in positions]
    return [(0, body) for body in encode_letters(made)]


# What waits.

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, SHARDS - 1), st.integers(1, 4)),
        st.tuples(st.sampled_from(["ack", "other"]), st.integers(0, SHARDS - 1), st.integers(0, 9)),
    ),
    max_size=20,
)


class FromOne(WrappedStreams):
    """Streams that count from 1, as V3IO does."""

    first_offset = 1

    def range(self, name: str, shard: int) -> tuple[int, int]:
        first, end = super().range(name, shard)
        return first + 1, end + 1

    def ranges(self, name: str) -> dict[int, tuple[int, int]]:
        return {shard: self.range(name, shard) for shard in range(SHARDS)}

    def rows(self, name: str, parts: Mapping[int, tuple[int, int]]) -> int:
        return super().rows(name, {shard: (first - 1, end - 1) for shard, (first, end) in parts.items()})

    def ack(self, group: str, name: str, offsets: Mapping[int, int]) -> None:
        super().ack(group, name, {shard: offset - 1 for shard, offset in offsets.items()})

    def acked(self, group: str, name: str) -> dict[int, int]:
        return {shard: offset + 1 for shard, offset in super().acked(group, name).items()}


@settings(max_examples=50)
@given(STEPS, st.booleans())
def test_lag_is_the_number_of_rows_after_the_last_message_that_was_acknowledged(
    steps: list[tuple[str, int, int]], from_one: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder, open_streams(f"sqlite://{folder}") as plain:
        streams = FromOne(plain) if from_one else plain
        streams.create("serving", SHARDS)
        stores = Stores(StoreUrls(), StoreNames(), PROJECT.use_case_file)
        stores.streams = streams
        waiting: list[list[int]] = [[] for _ in range(SHARDS)]
        sent, acked = Counter[int](), dict.fromkeys(range(SHARDS), -1)
        rows: dict[tuple[int, int], int] = {}
        for what, shard, number in steps:
            if what == "append":
                streams.append("serving", [(shard, b"x\n" * number)] * number)
                rows |= dict.fromkeys(((shard, sent[shard] + i) for i in range(number)), number)
                waiting[shard] += range(sent[shard], sent[shard] + number)
                sent[shard] += number
            elif sent[shard]:
                place = min(number, sent[shard] - 1)
                group = "model-server" if what == "ack" else "another"
                streams.ack(group, "serving", {shard: place + streams.first_offset})
                if what == "ack":
                    acked[shard] = max(acked[shard], place)
        expected = [rows[shard, place] for shard in range(SHARDS) for place in waiting[shard] if place > acked[shard]]
        assert stores.lag("model-server", "serving") == sum(expected)
        assert stores.lag("new", "serving") == sum(rows.values())


def test_lags_are_of_the_functions_between_streams_in_their_order(stores: Stores) -> None:
    assert stores.lags(PROJECT) == dict.fromkeys(PROJECT.chain.consumers, 0), "no stream is made"
    assert stores.streams.names() == []
    list(stores.make(PROJECT, SHARDS))
    stores.streams.append("serving", [(1, b"x"), (2, b"y")])
    stores.streams.ack("model-server", "serving", {2: 0})
    found = stores.lags(PROJECT)
    assert [*found.items()] == [
        ("event-handler", 0),
        ("stream-to-features", 0),
        ("model-server", 1),
        ("inference-logger", 0),
    ]


def test_what_was_acknowledged_of_an_older_stream_is_no_negative_lag(stores: Stores) -> None:
    class Remade(WrappedStreams):
        def acked(self, group: str, name: str) -> dict[int, int]:
            return dict.fromkeys(range(SHARDS), 10)

    stores.streams.create("serving", SHARDS)
    stores.streams.append("serving", [(0, b"x")] * 12)
    stores.streams = Remade(stores.streams)
    assert stores.lag("model-server", "serving") == 1


# What was counted.


@settings(max_examples=20)
@given(st.lists(st.dictionaries(st.sampled_from(["vectors", "late", "unknown"]), st.integers(0, 99)), max_size=SHARDS))
def test_counters_are_the_sums_over_all_shards_by_name(counted: list[dict[str, int]]) -> None:
    urls = StoreUrls()
    with tempfile.TemporaryDirectory() as folder, Stores.of_project(PROJECT, urls.within(Path(folder))) as stores:
        nobody = pa.RecordBatch.from_pylist([], stores.use_case.row_schema)
        for shard, counters in enumerate(counted):
            stores.features.commit(shard, nobody, Checkpoint(0, counters=counters))
        found = stores.counters(SHARDS)
    expected: dict[str, int] = {}
    for counters in counted:
        for name, number in counters.items():
            expected[name] = expected.get(name, 0) + number
    assert [*found.items()] == sorted(expected.items())


def test_a_dead_letter_that_was_sent_twice_counts_once(stores: Stores) -> None:
    list(stores.make(PROJECT, SHARDS))
    stores.streams.append("dead-letters", [*letters(1, 2), *letters(2, 3)])
    assert stores.dead_letter_count() == 3
    assert sorted(one.position for one in stores.dead_letters()) == [1, 2, 3]
    assert list(stores.dead_letters(since=2**60)) == []


# Opening.


def test_tables_of_another_definition_are_refused_with_the_difference(tmp_path: Path, stores: Stores) -> None:
    list(stores.make(PROJECT, SHARDS))
    text = PROJECT.use_case_file.read_text()
    changed, remark = tmp_path / "changed.yaml", tmp_path / "remark.yaml"
    changed.write_text(text.replace("at: profile}", "at: profile, otherwise: 3}"))
    remark.write_text(text + "# a remark\n")
    urls = StoreUrls().within(tmp_path)
    with Stores(urls, PROJECT.names, remark) as same:
        assert same.features.count() == 0
    for _ in range(2):
        with (
            Stores(urls, PROJECT.names, changed) as others,
            pytest.raises(ConfigurationError, match="otherwise: ") as told,
        ):
            others.features.count()
        assert "0 before, 3 now" in str(told.value) and str(tmp_path) in str(told.value)


def test_another_column_is_told_in_words_too(tmp_path: Path, stores: Stores) -> None:
    list(stores.make(PROJECT, SHARDS))
    changed = tmp_path / "changed.yaml"
    changed.write_text(PROJECT.use_case_file.read_text().replace("value: bet_amount", "value: amount"))
    with (
        Stores(StoreUrls().within(tmp_path), PROJECT.names, changed) as others,
        pytest.raises(ConfigurationError, match="bet_amount before, amount now"),
    ):
        others.features.count()


def test_tables_made_before_definitions_were_kept_are_taken_for_those_of_today(tmp_path: Path) -> None:
    urls = StoreUrls().within(tmp_path)
    with Stores(urls, PROJECT.names, PROJECT.use_case_file) as old:
        old.tables.features(old.use_case.row_schema)
        assert old.tables.definition() == ""
    with Stores(urls, PROJECT.names, PROJECT.use_case_file) as new:
        assert new.features.count() == 0
        assert '"purchase"' in new.tables.definition()


def test_stores_are_made_once_and_kept_as_they_are(stores: Stores, tmp_path: Path) -> None:
    made = list(stores.make(PROJECT, SHARDS))
    assert [(info.name, info.shards, info.epoch) for info in made] == [(n, SHARDS, 0) for n in PROJECT.params.streams]
    stores.streams.append("serving", [(0, b"kept")])
    assert list(stores.make(PROJECT, SHARDS)) == made
    assert stores.streams.range("serving", 0) == (0, 1)
    assert {path.name for path in (tmp_path / "tables").glob("*.db")} >= {"features.db", "registry.db"}
    with pytest.raises(ConfigurationError, match=f"{SHARDS} shards"):
        list(stores.make(PROJECT, SHARDS + 1))


@pytest.mark.parametrize("known", [("features", "enrichments"), ("enrichment",)])
def test_lookup_of_a_table_that_the_project_does_not_name_is_told_before_anything_is_made(
    tmp_path: Path, known: tuple[str, ...]
) -> None:
    names = StoreNames(features="enrichment") if known == ("enrichment",) else PROJECT.names
    project = msgspec.structs.replace(PROJECT, params=msgspec.structs.replace(PROJECT.params, tables=known))
    stores = Stores(StoreUrls().within(tmp_path), names, PROJECT.use_case_file)
    with (
        stores,
        pytest.raises(ConfigurationError, match=r"looks up the table 'enrichment', which project\.yaml") as told,
    ):
        list(stores.make(project, SHARDS))
    suggested = "known: none" if known == ("enrichment",) else "did you mean 'enrichments'? known: enrichments"
    assert told.value.remedy == suggested
    assert not (tmp_path / "streams").exists()


def test_another_thread_opens_the_same_stores_for_itself(stores: Stores) -> None:
    list(stores.make(PROJECT, SHARDS))
    stores.streams.append("serving", [(0, b"x")])
    found: list[int] = []

    def look() -> None:
        with stores.again() as again:
            assert again.streams is not stores.streams and again.use_case == stores.use_case
            found.append(again.lag("model-server", "serving"))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [1]
    assert stores.lag("model-server", "serving") == 1, "what the other has closed was its own"


def test_closed_stores_are_opened_again_when_they_are_used(stores: Stores) -> None:
    list(stores.make(PROJECT, SHARDS))
    before = (stores.streams, stores.tables, stores.features, stores.lookups)
    stores.close()
    stores.close()
    assert stores.lag("model-server", "serving") == 0
    assert stores.features.count() == 0
    after = (stores.streams, stores.tables, stores.features, stores.lookups)
    assert all(new is not old for new, old in zip(after, before, strict=True))


def test_epoch_is_the_one_of_the_tables_when_it_is_first_asked_for(stores: Stores) -> None:
    stores.tables.raise_epoch()
    assert stores.epoch == 1
    stores.tables.raise_epoch()
    assert (stores.epoch, stores.again().epoch) == (1, 2)
    assert next(stores.make(PROJECT, SHARDS)).epoch == 1


def test_logs_are_where_the_urls_say_under_their_names(tmp_path: Path) -> None:
    names = StoreNames(events_log="kept", inference_log="answers")
    with Stores(StoreUrls(logs=str(tmp_path / "l")).within(tmp_path), names, PROJECT.use_case_file) as stores:
        assert {name: log.place() for name, log in stores.parquet_logs.items()} == {
            "kept": str(tmp_path / "l" / "kept"),
            "answers": str(tmp_path / "l" / "answers"),
        }
        assert [log.place() for log in stores.logs(PROJECT)] == [str(tmp_path / "l" / n) for n in PROJECT.params.logs]


# Removing.


@pytest.mark.parametrize("kinds", [set[str](), {"streams"}, {"tables"}, {"logs"}, {"streams", "tables", "logs"}])
def test_what_has_a_url_is_removed_and_nothing_else(tmp_path: Path, kinds: set[str]) -> None:
    everything = StoreUrls().within(tmp_path)
    with Stores.of_project(PROJECT, everything) as stores:
        list(stores.make(PROJECT, SHARDS))
        stores.streams.create("another", SHARDS)
        rows = pa.Table.from_pylist([], stores.use_case.events_log_schema)
        stores.events_log.append(0, rows, Checkpoint(0))
    other = open_log(str(tmp_path), "another", pa.schema([]), 0)
    other.append(0, pa.table({}), Checkpoint(0))
    given_ = StoreUrls(**{kind: getattr(everything, kind) for kind in kinds})
    with Stores.of_project(PROJECT, given_) as stores:
        told = list(stores.remove(PROJECT))
    assert told == [
        *(f"stream {name}" for name in PROJECT.params.streams if "streams" in kinds),
        *(f"tables at {everything.tables}" for _ in range("tables" in kinds)),
        *(f"log {tmp_path / name}" for name in PROJECT.params.logs if "logs" in kinds),
    ]
    with open_streams(everything.streams) as streams:
        left = {"another"} if "streams" in kinds else {"another", *PROJECT.params.streams}
        assert set(streams.names()) == left
    assert bool([*(tmp_path / "tables").glob("*.db")]) == ("tables" not in kinds)
    assert bool([*(tmp_path / "events").rglob("*.parquet")]) == ("logs" not in kinds)
    assert other.files(), "not of this project"
