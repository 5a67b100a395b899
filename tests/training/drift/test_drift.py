"""Drift compares what was served with the card, and says so to a person and a shell."""

from __future__ import annotations

import ast
import importlib.util
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelstream.base.times import time_given
from modelstream.commands.view import View
from modelstream.errors import ConfigurationError
from modelstream.messages.dead_letters import encode_letters, letter
from modelstream.messages.identity import Checkpoint
from modelstream.model.onnx import as_input
from modelstream.training.drift import drift_page
from modelstream.training.drift.drift import (
    DETECTED,
    FEW,
    FEW_USERS,
    NO_MODEL,
    POSSIBLE,
    Drift,
    ServedCounts,
    Verdict,
    drift,
    judge,
)
from modelstream.training.report.card import ModelCard
from modelstream.training.snapshot.histograms import Histograms, of_probabilities
from modelstream.use_case.columns import MODEL_VERSION, PREDICTED_AT, TIME
from tests.command_line import pipeline
from tests.runner.folders import PROJECT, SHARDS, make_folder
from tests.training.synthetic import USE_CASE, Floats, card, write_card

FEATURES = list(USE_CASE.features)
PROBABILITY = USE_CASE.probability
BEFORE, FAR = (time_given(text, "--since") for text in ("2020-01-01", "2099-01-01"))


def batch(
    vectors: Floats, probabilities: Floats, versions: list[str], at: npt.NDArray[np.int64], users: int = FEW_USERS
) -> pa.RecordBatch:
    columns = {name: pa.array(vectors[:, i].astype(np.float64)) for i, name in enumerate(FEATURES)}
    columns |= {USE_CASE.key: pa.array([f"u{row % users}" for row in range(len(versions))], pa.string())}
    columns |= {PROBABILITY: pa.array(probabilities), MODEL_VERSION: pa.array(versions, pa.string())}
    return pa.record_batch({**columns, PREDICTED_AT: pa.array(at, pa.int64()).cast(TIME)})


def vectors_of(seed: int, rows: int = 2000) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    draw = np.random.default_rng(seed)
    return draw.lognormal(size=(rows, len(FEATURES))).astype(np.float32), draw.random(rows)


def card_of(vectors: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float64]) -> ModelCard:
    histograms = Histograms(FEATURES)
    histograms.update(vectors)
    return msgspec.structs.replace(CARD, features=histograms.result(), prediction=of_probabilities(probabilities))


CARD = card()
VECTORS, PROBABILITIES = vectors_of(1)
REFERENCE = card_of(VECTORS, PROBABILITIES)


def served(vectors: Floats, probabilities: npt.NDArray[np.float64], users: int = FEW_USERS) -> ServedCounts:
    found = ServedCounts(REFERENCE, USE_CASE)
    found.add(batch(vectors, probabilities, ["1"] * len(vectors), np.arange(len(vectors)), users))
    return found


def test_the_same_vectors_have_not_drifted() -> None:
    found = judge(served(VECTORS, PROBABILITIES), 0, 2000)
    assert found.verdict is Verdict.NONE and not found.reasons and not found.few
    assert all(one.psi == one.total_variation == 0 for one in [*found.features, found.prediction])
    assert found.mean < 1e-6


def test_other_vectors_of_the_same_kind_have_hardly_drifted() -> None:
    found = judge(served(*vectors_of(2)), 0, 2000)
    assert found.verdict is Verdict.NONE
    assert 0 < max(one.value for one in found.features) < 0.1


def test_one_broken_feature_is_drift_that_the_mean_would_hide() -> None:
    vectors = VECTORS.copy()
    vectors[:, 3] = 0
    found = judge(served(vectors, PROBABILITIES), 0, 2000)
    assert found.mean < POSSIBLE
    assert found.verdict is Verdict.DRIFT
    assert [one.verdict for one in found.features].count(Verdict.DRIFT) == 1
    assert found.reasons == [f"{FEATURES[3]}: 1.00"]
    # No row lies where the others do: both distances are at their maximum.
    assert (found.features[3].total_variation, found.features[3].hellinger) == (1, 1)


def test_a_prediction_that_is_always_the_same_is_drift() -> None:
    found = judge(served(VECTORS, np.ones(len(VECTORS))), 0, 2000)
    assert (found.verdict, found.prediction.verdict) == (Verdict.DRIFT, Verdict.DRIFT)
    assert all(one.verdict is Verdict.NONE for one in found.features)


@pytest.mark.parametrize(
    ("letters", "verdict"),
    [(0, Verdict.NONE), (9, Verdict.NONE), (10, Verdict.POSSIBLE), (49, Verdict.POSSIBLE), (50, Verdict.DRIFT)],
)
def test_more_dead_letters_are_drift(letters: int, verdict: Verdict) -> None:
    assert judge(served(VECTORS, PROBABILITIES), letters, 1000).verdict is verdict


def test_as_many_dead_letters_as_ever_are_none() -> None:
    used = msgspec.structs.replace(REFERENCE, data=msgspec.structs.replace(CARD.data, dead_letter_share=0.3))
    found = ServedCounts(used, USE_CASE)
    found.add(batch(VECTORS, PROBABILITIES, ["1"] * 2000, np.arange(2000)))
    assert judge(found, 300, 1000).verdict is Verdict.NONE


ROWS = st.lists(st.tuples(st.sampled_from(["1", "2"]), st.integers(0, 20)), max_size=60)


@pytest.mark.parametrize(("rows", "users"), [(FEW - 1, FEW_USERS), (2000, FEW_USERS - 1), (1, 1), (0, 1)])
def test_few_vectors_or_users_are_too_few_to_tell_however_far_they_are(rows: int, users: int) -> None:
    found = judge(served(VECTORS[:rows] * 0, np.ones(rows), users), 0, max(rows, 1))
    assert (found.verdict, found.reasons, found.few) == (Verdict.FEW, [], True)
    assert {one.verdict for one in [*found.features, found.prediction]} == {Verdict.FEW}
    text = shown(drift_page.table(found))
    assert f"Too few to tell: {rows:,} vectors" in text and "Drift:" not in text
    assert judge(served(VECTORS[:FEW] * 0, np.ones(FEW)), 0, FEW).verdict is Verdict.DRIFT


def test_few_vectors_among_many_dead_letters_are_drift() -> None:
    """A feed that has broken: hardly anything is served."""
    found = judge(served(VECTORS[:5], PROBABILITIES[:5]), 1500, 1600)
    assert (found.verdict, found.dead_letters.verdict) == (Verdict.DRIFT, Verdict.DRIFT)
    assert judge(served(VECTORS[:5], PROBABILITIES[:5]), 50, 60).verdict is Verdict.FEW


def shown(what: object) -> str:
    """Return what a terminal shows."""
    from rich.console import Console

    console = Console(width=240, record=True, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_colours_and_bounds_are_explained_on_the_terminal_and_on_the_page() -> None:
    found = judge(served(VECTORS, PROBABILITIES), 0, 2000)
    page = drift_page.page(found, REFERENCE)
    for verdict, bound in (("no drift", f"below {POSSIBLE}"), ("possible drift", "from 0.5"), ("drift", "from 0.7")):
        assert f"{verdict} ({bound})" in shown(drift_page.table(found))
        assert verdict in page and bound in page


@given(ROWS, st.lists(st.integers(0, 60), max_size=4), st.one_of(st.none(), st.integers(0, 20)))
def test_batches_change_nothing_and_only_the_version_and_time_asked_for_count(
    rows: list[tuple[str, int]], cuts: list[int], since: int | None
) -> None:
    count = len(rows)
    versions, at = [row[0] for row in rows], np.array([row[1] for row in rows], np.int64)
    vectors, probabilities = VECTORS[:count] * 1.1, PROBABILITIES[:count]
    whole = batch(vectors, probabilities, versions, at)
    found = ServedCounts(REFERENCE, USE_CASE, since)
    ends = [0, *sorted(min(cut, count) for cut in cuts), count]
    for start, end in itertools.pairwise(ends):
        found.add(whole.slice(start, end - start))
    in_time = at >= (-1 if since is None else since)
    chosen = in_time & (np.array(versions) == "1") if count else np.zeros(0, bool)
    assert found.vectors == chosen.sum()
    assert found.others.get("2", 0) == (in_time & ~chosen).sum()
    assert (found.first, found.last) == ((at[chosen].min(), at[chosen].max()) if chosen.any() else (None, None))
    inputs = as_input(list(vectors[chosen].astype(np.float64).T))
    for i, name in enumerate(FEATURES):
        edges = [-np.inf, *REFERENCE.features[name].edges, np.inf]
        assert found.counts[name].tolist() == np.histogram(inputs[:, i], edges)[0].tolist()
    assert found.prediction.sum() == chosen.sum()


def test_vectors_beyond_float32_count_at_the_ends() -> None:
    """They are counted as the model takes them: infinite values at its bound, NaN as 0."""
    odd = np.full((3, len(FEATURES)), 1.0)
    odd[:, 0] = (np.inf, 1e300, np.nan)
    found = ServedCounts(REFERENCE, USE_CASE)
    found.add(batch(odd, np.full(3, 0.5), ["1"] * 3, np.arange(3)))
    counts = found.counts[FEATURES[0]]
    assert (counts[-1], counts[0]) == (2, 1)


def test_the_bounds_are_mlruns() -> None:
    """Read from MLRun's source: importing it takes 6 s."""
    package = importlib.util.find_spec("mlrun")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], "model_monitoring/applications/histogram_data_drift.py")
    classes = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)]
    classifier = next(node for node in classes if node.name == "DataDriftClassifier")
    defaults = {
        node.target.id: ast.literal_eval(node.value)
        for node in classifier.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    }
    assert defaults == {"potential": POSSIBLE, "detected": DETECTED}


# A data folder


def event(user: str, kind: str, minute: int, **fields: object) -> bytes:
    at = f"2026-11-16 00:{minute:02d}:00"
    return json.dumps({"user_id": user, "event_type": kind, "event_time": at, **fields}).encode()


LINES = [b"{broken"]
for number in range(30):
    LINES += [event(f"u{number}", "registration", 0), event(f"u{number}", "purchase", 1, amount=50)]
    LINES += [event(f"u{number}", "bet", 2 + i, bet_amount=10 + number) for i in range(34)]


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with make_folder(tmp_path / "data", LINES, {}) as made:
        yield made


@pytest.fixture
def own_card(view: View) -> ModelCard:
    """A card of the very vectors in the log, whose data had as many dead letters."""
    table = pa.Table.from_batches(list(view.inference_log.scan()))
    vectors = as_input([table[name].to_numpy() for name in FEATURES])
    made = card_of(vectors, table[PROBABILITY].to_numpy())
    return msgspec.structs.replace(made, data=msgspec.structs.replace(made.data, dead_letter_share=1 / 1081))


def found_in(view: View, used: ModelCard, since: int | None = None) -> Drift:
    return drift(used, view, since)


def test_a_folder_does_not_drift_from_its_own_card(view: View, own_card: ModelCard) -> None:
    found = found_in(view, own_card)
    assert (found.vectors, found.verdict, found.few) == (1020, Verdict.NONE, False)
    assert (found.dead_letters.letters, found.dead_letters.rows) == (1, 1081)


def test_only_what_was_served_since_counts(view: View, own_card: ModelCard) -> None:
    found = found_in(view, own_card, FAR)
    assert (found.vectors, found.verdict, found.first) == (0, Verdict.FEW, None)
    assert "has served nothing since 2099-01-01" in shown(drift_page.nothing_served(found))
    assert found_in(view, own_card, BEFORE).vectors == 1020


def test_a_version_that_made_no_prediction_names_those_that_did(view: View, own_card: ModelCard) -> None:
    text = shown(drift_page.nothing_served(found_in(view, msgspec.structs.replace(own_card, version="7"))))
    assert "Version 7 of churn has served nothing yet (1,020 by version 1)." in text
    assert "drift --model 1" in text and "pipeline.py run" in text


def test_vectors_without_an_answer_are_left_out_and_told(view: View, own_card: ModelCard) -> None:
    shard = next(number for number in range(SHARDS) if view.inference_log.checkpoint(number).offset == 0)
    rows = pa.Table.from_batches(view.inference_log.scan(shards=[shard]))
    columns = [
        pa.nulls(len(rows), field.type) if field.name in (MODEL_VERSION, PROBABILITY, USE_CASE.prediction) else column
        for field, column in zip(rows.schema, rows.columns, strict=True)
    ]
    view.inference_log.append(shard, pa.table(columns, rows.schema), Checkpoint(offset=1))
    found = found_in(view, own_card)
    assert (found.vectors, found.other_versions) == (1020, {NO_MODEL: len(rows)})
    assert f"Left out: {len(rows)} without a model." in drift_page.page(found, own_card)


def test_drift_without_any_model_says_what_to_do(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "empty"))
    bare = msgspec.structs.replace(PROJECT, params=msgspec.structs.replace(PROJECT.params, model=""))
    monkeypatch.setattr("modelstream.project.load_project", lambda: bare)
    assert pipeline("drift", "--data", view.path) == 2
    said = capsys.readouterr().err
    assert "no model yet of churn" in said
    assert "python pipeline.py train --promote" in said


def test_a_card_of_other_features_is_refused(view: View, own_card: ModelCard) -> None:
    features = dict(list(own_card.features.items())[1:])
    with pytest.raises(ConfigurationError, match="other features"):
        found_in(view, msgspec.structs.replace(own_card, features=features))


def test_dead_letters_count_once_and_since_a_time(view: View) -> None:
    again = letter("broken", "elsewhere", 5, ("generated", 0, 1), b"{")
    for body in encode_letters([again]) * 3:
        view.streams.append("dead-letters", [(0, body)])
    assert len(list(view.dead_letters())) == 2
    assert list(view.dead_letters(FAR)) == []


def test_the_table_and_the_page_say_the_verdict(view: View, own_card: ModelCard) -> None:
    found = found_in(view, REFERENCE)
    text = shown(drift_page.table(found))
    assert found.verdict is Verdict.DRIFT
    assert f"Drift: {found.reasons[0]}" in text and "1,020 vectors" in text
    assert all(name in text for name in [*FEATURES, PROBABILITY])
    page = drift_page.page(found, REFERENCE)
    assert page.count("<svg") == 2 and all(reason in page for reason in found.reasons)


# The command


@pytest.fixture
def registered(view: View, own_card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 1 in a registry of its own, which goes before the one that comes with the project."""
    folder = tmp_path / "registry"
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(folder))
    version = folder / "churn" / "1"
    version.mkdir(parents=True)
    shipped = PROJECT.folder / PROJECT.params.model
    for name in ("model.onnx", "model_spec.yaml"):
        (version / name).write_bytes((shipped / name).read_bytes())
    assert yaml.safe_load((version / "model_spec.yaml").read_bytes())["spec"]["parameters"]["version"] == "1"
    write_card(own_card, version)
    return version


def command(view: View, *options: object) -> int:
    return pipeline("drift", "--model", "1", "--data", view.path, *options)


def test_the_exit_status_is_the_verdict(
    view: View, registered: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(view, "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "no drift"
    write_card(REFERENCE, registered)
    page = tmp_path / "drift.html"
    assert command(view, "--json", "--output", page) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "drift"
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert command(view) == 1
    assert "Drift: " in capsys.readouterr().out
    assert command(view, "--since", "2099-01-01", "--json", "--output", page) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "too few to tell"
    assert "has served nothing since 2099-01-01" in page.read_text("utf-8")
    assert command(view, "--since", "2099-01-01") == 0
    assert "has served nothing since 2099-01-01" in capsys.readouterr().out


@pytest.mark.parametrize(("since", "told"), [("2020-01-01 12:00", "2020-01-01T12:00:00Z"), ("20000d", "19")])
def test_since_is_a_time_or_how_long_ago(
    since: str, told: str, view: View, registered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(view, "--json", "--since", since) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["vectors"] == 1020
    assert found["since"].startswith(told)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--model", "9"], "no version 9"),
        (["--since", "never"], "--since 'never' is neither a time nor a duration"),
        (["--output", "/nowhere/drift.html"], "can't be written"),
    ],
)
def test_an_error_is_no_drift(
    options: list[str], problem: str, view: View, registered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(view, *options) == 2
    told = capsys.readouterr()
    assert problem in told.err and "→" in told.err and not told.out


def test_a_model_without_a_card_is_an_error(view: View, registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (registered / "card.json").unlink()
    assert command(view) == 2
    assert "pipeline.py train" in capsys.readouterr().err
