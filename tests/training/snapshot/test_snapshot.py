"""A snapshot: what was served, as it was served, and nothing that came later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from modelstream.errors import ConfigurationError
from modelstream.logs.parquet import ParquetLog
from modelstream.model.onnx import as_input
from modelstream.stores import Stores
from modelstream.training.snapshot import snapshot as snapshots
from modelstream.training.snapshot.data import Data, open_data
from modelstream.training.snapshot.examples import Examples
from modelstream.training.snapshot.labels import NEVER, Labels
from modelstream.training.snapshot.selection import Selection
from modelstream.training.snapshot.snapshot import ParityError, Snapshot
from modelstream.use_case.declared import Label
from tests.training.folder import USE_CASE, generated, opened, settings

HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    with opened(generated(tmp_path_factory.mktemp("run"))) as found:
        yield found


def take(data: Data, labels: Labels | None = None, **selection: object) -> Snapshot:
    return snapshots.take(data, labels, Selection(**selection), lambda *_: None)  # type: ignore[arg-type]


def served(data: Data) -> pa.Table:
    """Return the inference log: the oracle."""
    return pa.Table.from_batches(list(data.stores.inference_log.scan()))


def rows_of(examples: Examples) -> list[tuple[str, int, bytes]]:
    keys = [examples.keys[user] for user in examples.users]
    vectors = [vector.tobytes() for vector in examples.vectors]
    return sorted(zip(keys, examples.moments.tolist(), vectors, strict=True))


def rows_in(table: pa.Table) -> list[tuple[str, int, bytes]]:
    vectors = as_input([table[name].to_numpy() for name in USE_CASE.features])
    times = table[USE_CASE.time].cast(pa.int64()).to_pylist()
    found = zip(table[USE_CASE.key].to_pylist(), times, (vector.tobytes() for vector in vectors), strict=True)
    return sorted(found)


def test_test_users_have_every_vector_as_served_and_no_user_is_on_both_sides(data: Data) -> None:
    found = take(data)
    test_keys = {found.test.keys[user] for user in found.test.users}
    learn_keys = {found.learn.keys[user] for user in found.learn.users}
    assert not test_keys & learn_keys
    table = served(data)
    assert test_keys | learn_keys == set(table[USE_CASE.key].to_pylist())
    mine = pc.is_in(table[USE_CASE.key], value_set=pa.array(test_keys))
    assert rows_of(found.test) == rows_in(table.filter(mine))
    assert found.vectors == table.num_rows == found.parity.vectors  # type: ignore[union-attr]
    assert len(found.test) > 500


def test_first_vectors_of_a_user_are_all_learned_from_and_later_ones_ever_more_rarely(data: Data) -> None:
    everything, sample = take(data, first=10**9).learn, take(data, first=5).learn
    assert set(rows_of(sample)) < set(rows_of(everything))
    for user in np.unique(everything.users)[:20]:
        times = everything.moments[everything.users == user]
        kept = sample.moments[sample.users == user]
        assert times[:5].tolist() == kept[:5].tolist()
        assert len(kept) < len(times) or len(times) <= 6
    expected = Selection(first=5).expected(np.bincount(everything.users)).sum()
    assert len(sample) == pytest.approx(expected, rel=0.1)


def test_final_rows_are_the_last_vectors_of_the_users_to_learn_from(data: Data) -> None:
    found = take(data)
    assert rows_of(found.final) == rows_of(take(data, first=10**9).learn.final())
    assert set(found.final.users) == set(found.learn.users)


def test_labels_hours_and_types_are_those_of_the_event(data: Data) -> None:
    found = take(data).test
    table = pa.Table.from_batches(list(data.stores.events_log.scan()))
    registered = table.filter(pc.equal(table["event_type"], "registration"))
    label = dict(zip(registered["user_id"].to_pylist(), registered["label"].to_pylist(), strict=True))
    bought = table.filter(pc.equal(table["event_type"], "purchase"))
    opened_at: dict[str, int] = {}
    for key, time in zip(bought["user_id"].to_pylist(), bought["event_time"].cast("int64").to_pylist(), strict=True):
        opened_at.setdefault(key, time)
    for row in range(0, len(found), 50):
        key = found.keys[found.users[row]]
        assert found.labels[row] == label[key]
        assert found.hours[row] == pytest.approx((found.moments[row] - opened_at[key]) / HOUR, abs=1e-5)
    bets = found.kinds == USE_CASE.predict_on.index("bet")
    assert 0.8 < bets.mean() < 1


def test_both_sources_give_the_same_to_the_bit(data: Data) -> None:
    one, other = take(data), take(data, source="inference")
    for name in ("learn", "test", "final"):
        for field in ("vectors", "labels", "users", "kinds", "moments", "hours"):
            ours, theirs = getattr(getattr(one, name), field), getattr(getattr(other, name), field)
            assert ours.tobytes() == theirs.tobytes(), (name, field)
    assert one.histograms.result() == other.histograms.result()
    assert other.parity is None


@pytest.mark.parametrize("source", ["events", "inference"])
def test_how_the_log_is_cut_into_batches_changes_nothing(
    data: Data, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = take(data, source=source)
    scan = ParquetLog.scan

    def slowly(*args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        for batch in scan(*args, **options):
            yield from (batch.slice(start, 97) for start in range(0, batch.num_rows, 97))

    monkeypatch.setattr(ParquetLog, "scan", slowly)
    cut = take(data, source=source)
    for name in ("learn", "test", "final"):
        assert rows_of(getattr(cut, name)) == rows_of(getattr(whole, name))
        assert getattr(cut, name).labels.tolist() == getattr(whole, name).labels.tolist()
    assert (cut.vectors, cut.first, cut.last) == (whole.vectors, whole.first, whole.last)


def test_same_seed_takes_the_same_and_another_one_does_not(data: Data) -> None:
    assert rows_of(take(data).learn) == rows_of(take(data).learn)
    assert rows_of(take(data).learn) != rows_of(take(data, seed=2).learn)


@pytest.mark.parametrize("source", ["events", "inference"])
def test_no_vector_is_from_outside_of_the_time_asked_for(data: Data, source: str) -> None:
    times = served(data)[USE_CASE.time].cast(pa.int64()).to_numpy()
    since, until = (int(time) for time in np.quantile(times, [0.3, 0.8]))
    found = take(data, source=source, since=since, until=until)
    for examples in (found.learn, found.test, found.final):
        assert len(examples)
        assert since <= examples.moments.min() <= examples.moments.max() <= until
    assert (
        found.vectors
        == np.count_nonzero((times >= since) & (times <= until))
        == found.histograms.result()[USE_CASE.features[0]].total
    )
    assert since <= found.first <= found.last <= until


def test_memory_is_bounded_by_taking_fewer(data: Data) -> None:
    found = take(data, most=2000)
    assert 1200 < len(found.learn) < 3000 < len(take(data).learn)
    assert len(take(data, most=2000).test) <= 2000
    assert found.vectors == data.stores.inference_log.count(), "all are counted"


def test_feature_from_the_future_is_found_by_the_parity_check(data: Data) -> None:
    """The leak: a hook that gives each vector the number of bets that its user will have at the end."""
    last = dict(zip(*(served(data)[name].to_pylist() for name in ("user_id", "bet_count")), strict=True))

    def leak(batch: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
        future = pa.array([last[key] for key in vectors.column("user_id").to_pylist()])
        return vectors.set_column(vectors.schema.get_field_index("bet_count"), "bet_count", future)

    with pytest.raises(ParityError, match="bet_count was served as") as raised:
        take(replace(data, derive=leak))
    assert "from later events" in raised.value.remedy


def test_difference_of_one_bit_is_found(data: Data) -> None:
    def nudge(batch: pa.RecordBatch, vectors: pa.RecordBatch) -> pa.RecordBatch:
        values = vectors.column("bet_mean").to_numpy().copy()
        values[-1] = np.nextafter(values[-1], np.inf)
        return vectors.set_column(vectors.schema.get_field_index("bet_mean"), "bet_mean", pa.array(values))

    with pytest.raises(ParityError, match="bet_mean was served as"):
        take(replace(data, derive=nudge))


def test_labels_of_a_file_go_before_the_logs(data: Data) -> None:
    keys = sorted(set(served(data)["user_id"].to_pylist()))
    given = {key: (place % 2, NEVER) for place, key in enumerate(keys[:100])}
    found = take(data, Labels(dict(given)))
    for examples in (found.learn, found.test):
        assert [given[examples.keys[user]][0] for user in examples.users] == examples.labels.tolist()
    labelled = pc.is_in(served(data)["user_id"], value_set=pa.array(given))
    assert found.unlabelled == data.stores.inference_log.count() - pc.sum(labelled).as_py()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (Labels({"nobody": (1, NEVER)}), "none of the 150 users has a label"),
        (Labels({f"{key}": (1, NEVER) for key in range(9)}), "none of the 150 users has a label"),
    ],
)
def test_labels_of_nobody_are_refused(data: Data, labels: Labels, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as raised:
        take(data, labels)
    assert "--labels" in raised.value.remedy


def test_one_class_or_too_few_users_are_refused(data: Data) -> None:
    keys = sorted(set(served(data)["user_id"].to_pylist()))
    with pytest.raises(ConfigurationError, match=r"only one class: all .* users to learn from are positive"):
        take(data, Labels(dict.fromkeys(keys, (1, NEVER))))
    with pytest.raises(ConfigurationError, match=r"too few users: 150 in the log, 1\d with a known outcome"):
        take(data, Labels({key: (place % 2, NEVER) for place, key in enumerate(keys[:20])}))
    with pytest.raises(ConfigurationError, match=r"none of the .* events in the log .* in the time asked for"):
        take(data, until=0)


def of_use_case(data: Data, **changes: Any) -> Data:
    stores = data.stores
    return replace(data, stores=Stores(stores.urls, stores.names, msgspec.structs.replace(data.use_case, **changes)))


def test_use_case_without_a_label_is_refused(data: Data) -> None:
    unlabelled = of_use_case(data, label=None)
    with pytest.raises(ConfigurationError, match="declares no label"):
        take(unlabelled)


def test_label_event_that_never_came_makes_all_negative(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wait: nobody withdrew, so all vectors old enough are negative, and that is one class only."""
    monkeypatch.setattr("modelstream.stores.check_meaning", lambda *_: None)  # the rows were made with another label
    label = Label("label", 1, event="purchase", wait="30m")
    waiting = of_use_case(data, label=label)
    with pytest.raises(ConfigurationError, match=r"only one class: all .* are negative"):
        take(waiting)


def test_unknown_source_is_refused(data: Data) -> None:
    with pytest.raises(ConfigurationError, match="no source 'event'") as raised:
        take(data, source="event")
    assert "did you mean 'events'" in raised.value.remedy


def test_folder_without_a_log_or_with_an_empty_one_is_refused(tmp_path: Path) -> None:
    view = generated(tmp_path / "run", users=1, events=1)
    here = settings(view)
    with open_data(here) as data, pytest.raises(ConfigurationError, match="none of the 2 events in the log"):
        take(data)
    for log in ("events", "inference"):
        for file in (view.path / log).glob("0*.parquet"):
            file.unlink()
    with open_data(here) as data, pytest.raises(ConfigurationError, match="holds nothing to learn from"):
        take(data)
    for log in ("events", "inference"):
        (view.path / log).rename(tmp_path / log)
    with open_data(here) as data, pytest.raises(ConfigurationError, match="holds nothing to learn from"):
        take(data)
