"""`pipeline.py table` shows and writes what the tables hold."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from modelstream.base.timestamps import LAST, TIMESTAMP
from modelstream.commands import output
from modelstream.commands.explain import print_explanation
from modelstream.commands.peek import print_last
from modelstream.commands.table import Page, show_table
from modelstream.commands.view import View
from modelstream.errors import ConfigurationError
from modelstream.features.engine import features_of
from modelstream.replay.compare import compare
from modelstream.replay.explain import explain
from tests.commands.small import ENRICHMENT, LINES, small_folder
from tests.runner.folders import PROJECT, SHARDS, make_folder


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with small_folder(tmp_path / "data") as view:
        yield view


def features(view: View) -> pd.DataFrame:
    batches = [features_of(batch, view.use_case) for batch in view.features.scan()]
    found: pd.DataFrame = pa.Table.from_batches(batches).to_pandas()
    return found


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_features_come_out_as_they_are_stored(view: View, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"rows.{form}"
    show_table(view, "features", output=file)
    expected = features(view)
    assert len(expected) == 3
    if form == "parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(file), expected)
        return
    written = pd.read_csv(file) if form == "csv" else pd.DataFrame(json.loads(file.read_bytes()))
    assert written["user_id"].astype(str).tolist() == expected["user_id"].tolist()
    found = written[list(view.use_case.features)].to_numpy(np.float64)
    wanted = expected[list(view.use_case.features)].to_numpy()
    finite = np.isfinite(wanted)
    assert np.array_equal(found[finite], wanted[finite])
    times = pd.to_datetime(written["registration_time"], utc=True, format="ISO8601")
    assert (times == expected["registration_time"]).all()


def test_a_table_goes_to_standard_output_as_csv(view: View, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show_table(view, "enrichment")
    frame = pd.read_csv(io.BytesIO(capfdbinary.readouterr().out), dtype={"key": str})
    assert dict(zip(frame["key"], frame["value"], strict=True)) == ENRICHMENT


def test_one_key_is_one_row(view: View, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show_table(view, "features", Page(key="7"), form="json")
    (row,) = json.loads(capfdbinary.readouterr().out)
    assert (row["user_id"], row["socioeconomic_idx"], row["purchase_sum"], row["win_sum"]) == ("7", 4.0, 1e308, None)
    show_table(view, "enrichment", Page(key="20000"), form="csv")
    assert capfdbinary.readouterr().out.splitlines()[1:] == [b'"20000",2.5']


@pytest.mark.parametrize(("name", "key"), [("features", "nobody"), ("enrichment", "1")])
def test_a_key_that_is_not_there_is_an_error(view: View, name: str, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the table {name} has no row"):
        show_table(view, name, Page(key=key), form="csv")


def csv_of(view: View, name: str, page: Page, capture: pytest.CaptureFixture[bytes]) -> pd.DataFrame:
    show_table(view, name, page, form="csv")
    return pd.read_csv(io.BytesIO(capture.readouterr().out), dtype={"user_id": str, "key": str})


def test_pages_follow_each_other_in_the_order_of_the_keys(
    view: View, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for name, keys in (("features", ["7", "anna", "bert"]), ("enrichment", ["10001", "20000"])):
        found, after = [], ""
        for _ in keys:
            page = csv_of(view, name, Page(limit=1, after=after), capfdbinary)
            found += page.iloc[:, 0].tolist()
            after = found[-1]
        assert found == keys
        assert csv_of(view, name, Page(after=after), capfdbinary).empty


def test_by_a_column_gives_the_highest_first(view: View, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert csv_of(view, "features", Page(by="purchase_sum", limit=2), capfdbinary)["user_id"].tolist() == ["7", "anna"]
    assert csv_of(view, "enrichment", Page(by="value", limit=1), capfdbinary)["key"].tolist() == ["10001"]


@pytest.mark.parametrize("by", ["probability", "about_to_churn_probability"])
def test_by_probability_gives_each_users_latest_prediction_beside_its_features(
    view: View, capfdbinary: pytest.CaptureFixture[bytes], by: str
) -> None:
    found = csv_of(view, "features", Page(by=by), capfdbinary)
    assert found["user_id"].tolist() == ["anna", "7"], "bert was never predicted"
    columns = ["about_to_churn_probability", "about_to_churn", "model_version", "bet_sum"]
    assert found[columns].to_numpy().tolist() == [[0.75, 1, 1, 33.5], [0.25, 0, 1, 0.0]]
    assert found["predicted_at"].notna().all()


@pytest.mark.parametrize(("unanswered", "remedy"), [(0, "send events that call for one (bet"), (4, "train --promote")])
def test_where_nobody_was_predicted_it_says_how_to_get_predictions(
    view: View, monkeypatch: pytest.MonkeyPatch, unanswered: int, remedy: str
) -> None:
    monkeypatch.setattr("modelstream.commands.ranking.latest_rows", lambda *_: iter(()))
    monkeypatch.setattr(view, "unanswered", lambda: unanswered)
    with pytest.raises(ConfigurationError, match="no prediction yet") as caught:
        show_table(view, "features", Page(by="probability"), form="csv")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("page", "said"), [(Page(by="bets"), "no column 'bets'"), (Page(by="bet_sum", after="a"), "--by shows the rows")]
)
def test_what_can_not_be_shown_is_told(view: View, page: Page, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        show_table(view, "features", page, form="csv")


@pytest.mark.parametrize(
    ("page", "shown", "told"),
    [
        (Page(), 3, ["features: 3 rows"]),
        (Page(limit=2), 2, ["features: 3 rows, 2 of them", "… 1 more. Next page: --after anna;"]),
        (Page(limit=1, after="7"), 1, ["1 of them after 7", "… more. Next page: --after anna"]),
        (Page(by="probability", limit=1), 1, ["the 1 with the highest probability", "0.75"]),
    ],
)
def test_a_terminal_gets_a_page_and_is_told_how_to_go_on(
    view: View,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    page: Page,
    shown: int,
    told: list[str],
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    show_table(view, "features", page)
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert sum(line.startswith("│") for line in lines) == shown
    assert max(len(line) for line in lines if not line.startswith("…")) <= 80
    assert [part for part in told if part not in " ".join(text.split())] == []


def test_an_unknown_table_is_an_error_with_what_was_meant(view: View) -> None:
    with pytest.raises(ConfigurationError) as caught:
        show_table(view, "feature")
    assert "did you mean 'features'?" in caught.value.remedy


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(view: View, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be written"):
        show_table(view, "features", output=tmp_path / "missing" / "rows.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigurationError, match="can't be written"):
        show_table(view, "features", output=tmp_path / "folder.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "folder.csv"]


def test_an_empty_table_has_its_columns_in_every_format(tmp_path: Path) -> None:
    empty = make_folder(tmp_path / "data", [], {})
    for form in ("csv", "json", "parquet"):
        show_table(empty, "features", form=form, output=tmp_path / form)
    assert pd.read_csv(tmp_path / "csv").columns.tolist() == empty.use_case.features_schema.names
    assert json.loads((tmp_path / "json").read_bytes()) == []
    assert pq.read_schema(tmp_path / "parquet").names == empty.use_case.features_schema.names


# What an earlier version took.


def never(events: pa.RecordBatch) -> pa.RecordBatch:
    """Return events that happen in the year 10000, as in .NET's "never" in New York."""
    place = events.schema.get_field_index("event_time")
    micros = pc.add(events.column(place).cast(pa.int64()), LAST)
    return events.set_column(place, events.schema.field(place), micros.cast(TIMESTAMP))


def test_tools_show_times_that_no_datetime_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Earlier versions took them, so a folder may hold some; now they are dead letters."""
    lines = [line for line in LINES if b"anna" in line and line.endswith(b"}")]
    with make_folder(tmp_path / "data", lines, ENRICHMENT, change=never) as view:
        for form in ("json", "csv"):
            show_table(view, "features", output=tmp_path / f"rows.{form}")
            assert b"10056-11-" in (tmp_path / f"rows.{form}").read_bytes()
        show_table(view, "features", Page(key="anna"))
        print_last(view, "incoming-events", 10, as_json=True)
        assert capsys.readouterr().out.count("10056-1") == 1 + len(lines)
        found = explain(view, PROJECT, SHARDS, "anna", 3)
        print_explanation(found, view.use_case, "features")
        assert "10056-1" in capsys.readouterr().out
        assert found.row and found.row["registration_time"].startswith("10056-11-")
        assert compare(view, PROJECT).equal
