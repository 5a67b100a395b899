"""Training from end to end: candidates, the choice, calibration, the registered version, and what MLRun is told."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from modelstream import notebooks
from modelstream.commands.view import View
from modelstream.errors import ConfigurationError, UnavailableError
from modelstream.model.onnx import OnnxModel
from modelstream.model.spec import ModelSpec
from modelstream.registry.registry import Registry
from modelstream.runner.training import training_environment
from modelstream.training import train as training
from modelstream.training.judge.evaluation import expected_calibration_error
from modelstream.training.judge.held_out import HELD_OUT_FILE, parse_held_out
from modelstream.training.learn.calibration import LIMIT, Platt, calibrate, fit
from modelstream.training.learn.candidates import Trial, choose, cross_validate, fitted, named
from modelstream.training.report.card import read_card
from modelstream.training.result import Recipe, TrainingOptions
from modelstream.training.snapshot.data import Data
from modelstream.training.snapshot.selection import Selection
from modelstream.training.snapshot.snapshot import take
from tests.command_line import pipeline
from tests.runner.folders import PROJECT, ROOT
from tests.training.folder import USE_CASE, generated, opened, settings

NOTEBOOK = PROJECT.notebook("training")


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return generated(tmp_path_factory.mktemp("run"), users=200, events=80)


@pytest.fixture(scope="module")
def data(view: View) -> Iterator[Data]:
    with opened(view) as found:
        yield found


@pytest.fixture(scope="module")
def candidates() -> Any:
    return notebooks.load(NOTEBOOK).CANDIDATES


class Context:
    """What MLRun's context is to a handler, without MLRun."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.logged: dict[str, dict[str, Any]] = {}
        self.steps: list[tuple[str, int, int]] = []

    def step(self, *args: Any) -> None:
        self.steps.append(args)

    def log_result(self, key: str, value: Any) -> None:
        self.results[key] = value

    def log_artifact(self, item: Any, **details: Any) -> str:
        key = item if isinstance(item, str) else item.metadata.key
        self.logged[key] = {"item": item, **details}
        return f"store://artifacts/modelstream/{key}"

    log_dataset = log_artifact


def ignore(*_: object) -> None:
    pass


# The choice.


def trial(name: str, log_loss: float, speed: float, error: float = 0.01) -> Trial:
    return Trial(
        name=name,
        algorithm=name,
        parameters={},
        probabilities=np.empty(0),
        log_loss=log_loss,
        log_loss_std=0.0,
        standard_error=error,
        auc=0.9,
        accuracy=0.9,
        fit_seconds=1.0,
        vectors_per_second=speed,
    )


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([trial("good", 0.10, 1e5), trial("fast", 0.12, 1e7)], "good"),
        ([trial("good", 0.10, 1e5), trial("fast", 0.109, 1e7)], "fast"),
        ([trial("good", 0.10, 1e5), trial("as fast", 0.105, 1.1e5)], "good"),
        ([trial("good", 0.10, 1e5), trial("close", 0.105, 1e6), trial("fastest", 0.2, 1e8)], "close"),
    ],
)
def test_log_loss_decides_and_speed_where_it_can_not_tell(trials: list[Trial], expected: str) -> None:
    chosen, why = choose(trials)
    assert chosen.name == expected
    assert "0.1000" in why


def test_candidates_are_named(candidates: Any) -> None:
    assert list(named(candidates, None)) == list(candidates)
    assert list(named(candidates, "random-forest, logistic-regression")) == ["random-forest", "logistic-regression"]
    with pytest.raises(ConfigurationError, match="no candidate 'randomforest'") as raised:
        named(candidates, "randomforest")
    assert "did you mean 'random-forest'" in raised.value.remedy
    with pytest.raises(ConfigurationError, match="names none"):
        named(candidates, " ,")


def test_cross_validation_judges_by_models_that_have_not_seen_the_user(data: Data) -> None:
    """A candidate that only remembers users is worth nothing."""

    class Memory:
        get_params = dict

        def fit(self, vectors: npt.NDArray[np.float32], labels: npt.NDArray[np.int8]) -> Memory:
            self.seen = {vector.tobytes(): label for vector, label in zip(vectors, labels, strict=True)}
            return self

        def predict_proba(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            known = [self.seen.get(vector.tobytes(), 0.5) for vector in vectors]
            return np.column_stack([1 - np.array(known), known])

    examples = take(data, None, Selection(), ignore).learn
    unique, first = np.unique(examples.vectors, axis=0, return_index=True)
    assert len(unique) > 1000
    examples = examples.where(np.sort(first))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelstream.training.learn.candidates._speed", lambda *_: 1.0)
        (found,) = cross_validate({"memory": lambda _: Memory()}, examples, 1, 0.5, ignore)
    assert (found.probabilities == 0.5).all()


def test_same_seed_and_data_give_the_same_file(data: Data, candidates: Any) -> None:
    from modelstream.training.learn.export import Trained, to_onnx

    examples = take(data, None, Selection(), ignore).learn
    for make in candidates.values():
        files = [to_onnx(Trained(fitted(make, examples, 1)), len(USE_CASE.features)) for _ in range(2)]
        assert files[0] == files[1]


# Calibration.


def test_calibrated_model_is_left_alone() -> None:
    draw = np.random.default_rng(1)
    probability = draw.random(50_000)
    labels = (draw.random(50_000) < probability).astype(np.int8)
    assert calibrate(labels, probability).platt == Platt()


@pytest.mark.parametrize("platt", [Platt(2.0, 0.5), Platt(0.4, -1.0)])
def test_distorted_probabilities_are_set_right(platt: Platt) -> None:
    draw = np.random.default_rng(1)
    true = draw.random(50_000)
    labels = (draw.random(50_000) < true).astype(np.int8)
    distorted = platt.apply(true)
    found = calibrate(labels, distorted)
    assert found.before > LIMIT > 0.01 > found.after
    assert found.after == expected_calibration_error(labels, found.platt.apply(distorted))
    assert fit(labels, distorted).slope == pytest.approx(1 / platt.slope, rel=0.1)


def test_model_that_is_wrong_way_round_is_not_turned_by_calibration() -> None:
    draw = np.random.default_rng(1)
    true = draw.random(50_000)
    labels = (draw.random(50_000) < 1 - true).astype(np.int8)
    assert calibrate(labels, true).platt == Platt()


# All of it.


def test_registry_that_can_not_be_written_is_told_before_anything_is_trained(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name, value in training_environment(PROJECT, view.path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "file" / "models"))
    monkeypatch.setattr(training, "learn", None)
    with pytest.raises(UnavailableError, match="file"):
        notebooks.load(NOTEBOOK).train(Context())


def test_trained_version_is_registered_described_and_logged(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELSTREAM_REGISTRY", str(tmp_path / "models"))
    for name, value in training_environment(PROJECT, view.path).items():
        monkeypatch.setenv(name, value)
    context = Context()
    notebooks.load(NOTEBOOK).train(
        context, candidates="logistic-regression,gradient-boosting", promote=True, since="99999d", until="2027-01-01"
    )
    registry = Registry(tmp_path / "models", "churn", USE_CASE.features, shipped=Path(settings(view).model))
    assert (context.results["version"], registry.current()) == ("2", "2")
    folder = Path(registry.place_of("2"))
    model = registry.load("2")
    card = read_card(folder)
    assert card.sha256 == model.spec.sha256 == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert {one.name for one in card.candidates} == {"logistic-regression", "gradient-boosting"}
    assert [one.name for one in card.candidates if one.chosen] == [card.chosen_because.split(":")[0]]
    assert (card.data.labels_from, card.data.seed) == ("the log of events, field label of the profile", 1)
    assert "to the bit" in card.data.source
    assert card.data.cut_off == "2027-01-01T00:00:00+00:00"
    assert card.data.training_users + card.data.test_users == card.data.users > 190
    assert context.results["auc"] == card.evaluation.metrics.auc.value.__round__(4)  # type: ignore[union-attr]
    assert context.results["auc"] > 0.9
    assert {row.trained_on.split(" (")[0] for row in card.skew} == {"final rows", "vectors as served"}
    spec = yaml.safe_load((folder / "model_spec.yaml").read_text())["spec"]
    assert [one["name"] for one in spec["inputs"]] == list(USE_CASE.features) == list(spec["feature_stats"])
    assert spec["metrics"] == {name: context.results[name] for name in spec["metrics"]}
    assert set(context.logged) == {"training-set", "report", "churn"}
    logged = context.logged["churn"]
    assert logged["item"].get_body() == (folder / "model.onnx").read_bytes()
    assert (logged["tag"], logged["labels"], logged["db_key"]) == ("v2", {"version": "2"}, "churn")
    assert len(context.logged["training-set"]["df"]) == card.data.training_vectors
    page = (folder / "report.html").read_text()
    assert len(page) < 2_000_000
    assert context.logged["report"]["body"] == page
    assert [name for name, done, total in context.steps if done == total][-1] == "register"
    held = parse_held_out((folder / HELD_OUT_FILE).read_bytes(), "held out")
    assert len(held.labels) == card.data.test_vectors
    # README's next line.
    assert pipeline("drift", "--data", view.path) == 0
    told = capsys.readouterr().out
    assert "Version 2 of churn has served nothing yet (" in told and "by version 1)." in told
    assert "→ Send new events through the pipeline:" in told and "python pipeline.py run" in told


def test_readme_names_the_commands_in_the_order_in_which_they_work() -> None:
    block = (ROOT / "README.md").read_text("utf-8").split("## Train a new model")[1].split("```")[1]
    commands = [line.split("#")[0].split()[2:] for line in block.strip().splitlines()]
    new = ["--data", "data-new"]
    run = ["run", "--users", "300", "--seed", "2", *new]
    assert commands == [["train"], ["models", "promote", "2"], run, ["drift", *new]]


def test_since_and_until_are_times_or_how_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert training.selection(TrainingOptions()) == Selection()
    taken = training.selection(TrainingOptions(since="7d", until="6h"))
    assert (taken.since, taken.until) == ((1_000_000 - 604_800) * 1_000_000, (1_000_000 - 21_600) * 1_000_000)
    assert training.selection(TrainingOptions(since="1970-01-02")).since == 86_400_000_000


def test_probabilities_judged_are_those_of_the_file_that_is_registered(data: Data, candidates: Any) -> None:
    recipe = Recipe(candidates={"logistic-regression": candidates["logistic-regression"]})
    found = training.learn(data, recipe, TrainingOptions(), ignore)
    model = OnnxModel(
        ModelSpec("churn", "9", "model.onnx", hashlib.sha256(found.content).hexdigest(), USE_CASE.features),
        found.content,
        "x",
    )
    assert (model.predict(found.snapshot.test.vectors) == found.probabilities).all()
    assert found.comparison.vectors == min(100_000, len(found.snapshot.test) + len(found.snapshot.learn))
    again = training.learn(replace(data), recipe, TrainingOptions(), ignore)
    assert again.content == found.content


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"candidates": "forest"}, "no candidate 'forest'"),
        ({"labels": "absent.csv"}, "absent.csv can't be read"),
        ({"until": "yesterday"}, "--until 'yesterday' is neither a time nor a duration"),
        ({"since": "7"}, "--since '7' is neither a time nor a duration"),
        ({"source": "table"}, "no source 'table'"),
    ],
)
def test_wrong_option_is_refused(data: Data, candidates: Any, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as raised:
        training.learn(data, Recipe(candidates=candidates), TrainingOptions(**options), ignore)
    assert raised.value.remedy


def test_folder_without_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline("train", "--data", tmp_path) == 1
    assert "is not the data folder of a pipeline" in capsys.readouterr().err
