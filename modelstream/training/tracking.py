"""Stores the result of a training: the model directory in the registry, and the run in MLRun."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from modelstream.base.timestamps import datetime_of
from modelstream.model.spec import SPEC_FILE
from modelstream.registry.artifact import VERSION, tag_of
from modelstream.registry.registry import Registry
from modelstream.training.judge.held_out import HELD_OUT_FILE, held_out
from modelstream.training.learn.export import MODEL_FILE
from modelstream.training.report import plots_data, report
from modelstream.training.report.card import (
    CARD_FILE,
    README_FILE,
    Calibration,
    Candidate,
    DataFacts,
    ModelCard,
    Threshold,
    library_versions,
    parse_card,
    python_version,
)
from modelstream.training.report.card_text import card_files
from modelstream.training.result import Training
from modelstream.training.snapshot.examples import Examples
from modelstream.training.snapshot.histograms import of_probabilities
from modelstream.training.snapshot.selection import OnProgress

METRICS = ("auc", "accuracy", "log_loss", "ece", "recall", "precision")
DIGITS = 4
LABEL = "label"
"""The column of the training set that says the class."""
TRAINING_SET = "training-set"
"""The artifact of the vectors that were learned from, without the test users'."""
ONLY_OURS = (
    "It knows only vectors as this pipeline computes them; vectors computed otherwise mean something else to it."
)
"""The limit of every model."""


def register(registry: Registry, done: Training, progress: OnProgress) -> str:
    """Add the model to the registry, with its card and report; return its version."""
    progress("register", 0, 1)
    version = registry.register(lambda version: files(done, version))
    progress("register", 1, 1)
    return version


def files(done: Training, version: str) -> dict[str, bytes]:
    """Return the files of the model directory, by name."""
    card = card_of(done, version)
    examples, use_case = done.snapshot.learn, done.data.use_case
    plots = {
        "Users and vectors that were learned from, by class": plots_data.class_balance(examples),
        "Features by class, of the vectors that were learned from": plots_data.features_by_class(examples, use_case),
        "How features go together (rank correlation)": plots_data.correlations(examples, use_case),
    }
    return {
        MODEL_FILE: done.content,
        SPEC_FILE: spec(card, use_case.prediction).encode(),
        HELD_OUT_FILE: held_out(done.snapshot.test, done.options.seed),
        **card_files(card),
        report.REPORT_FILE: report.html(card, plots).encode(),
    }


def card_of(done: Training, version: str) -> ModelCard:
    """Return the model's card."""
    use_case, calibrated = done.data.use_case, done.calibrated
    plain = calibrated.before == calibrated.after
    return ModelCard(
        name=done.name,
        version=version,
        title=use_case.title,
        sha256=hashlib.sha256(done.content).hexdigest(),
        algorithm=done.chosen.algorithm,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=_facts(done),
        features=done.snapshot.histograms.result(),
        prediction=of_probabilities(done.probabilities),
        candidates=[_candidate(done, name) for name in [trial.name for trial in done.trials]],
        chosen_because=f"{done.chosen.name}: {done.because}",
        calibration=Calibration(
            method="none" if plain else "Platt scaling, folded into the graph",
            before=calibrated.before,
            after=calibrated.after,
            why="Its error was within 0.02 without." if plain else "",
        ),
        threshold=Threshold(value=use_case.threshold, how="Set in the use case (`model.threshold`), not fitted."),
        evaluation=done.evaluation,
        skew=done.skew,
        importance=done.importance,
        conversion=done.comparison.told() + ".",
        intended_use=list(use_case.intended_use),
        limits=[ONLY_OURS, *use_case.model.limits],
        libraries=library_versions(),
        python=python_version(),
    )


def _facts(done: Training) -> DataFacts:
    taken, options, data, until = done.snapshot, done.options, done.data, done.selection.until
    dead_letters = data.stores.dead_letter_count()
    rows = taken.end.events + dead_letters
    served = "compared to the bit with what was served" if taken.parity and taken.parity.vectors else "not compared"
    return DataFacts(
        source=f"replay of the log of events, {served}" if options.source == "events" else "the inference log",
        labels_from=f"the file {options.labels}" if options.labels else f"the log of events, {_label(done)}",
        seed=options.seed,
        generator_seed=data.generator_seed,
        first_event=datetime_of(taken.first).isoformat(),
        last_event=datetime_of(taken.last).isoformat(),
        cut_off=None if until is None else datetime_of(until).isoformat(),
        users=taken.users,
        training_users=taken.learn.user_count,
        test_users=taken.test.user_count,
        vectors=taken.vectors,
        training_vectors=len(taken.learn),
        test_vectors=len(taken.test),
        vectors_per_user=int(taken.learn_most),
        log_end=datetime_of(taken.known_until).isoformat() if taken.known_until else None,
        future_events=taken.end.future,
        simulated=taken.end.simulated,
        dead_letter_share=dead_letters / rows if rows else 0.0,
    )


def _label(done: Training) -> str:
    label = done.data.use_case.label
    assert label is not None  # else there would be no labels
    return f"field {label.field}" + (f" of the event {label.event}" if label.event else " of the profile")


def _candidate(done: Training, name: str) -> Candidate:
    trial = next(trial for trial in done.trials if trial.name == name)
    return Candidate(
        name=name,
        parameters=trial.parameters,
        log_loss=trial.log_loss,
        log_loss_std=trial.log_loss_std,
        auc=trial.auc,
        accuracy=trial.accuracy,
        vectors_per_second=trial.vectors_per_second,
        fit_seconds=trial.fit_seconds,
        chosen=trial is done.chosen,
    )


def metrics_of(card: ModelCard) -> dict[str, float]:
    """Return the metrics on unseen users, to four digits."""
    found = {name: getattr(card.evaluation.metrics, name).value for name in METRICS}
    return {name: round(value, DIGITS) for name, value in found.items() if value is not None}


def parameters_of(card: ModelCard) -> dict[str, Any]:
    """Return what MLRun keeps as a model's parameters."""
    data = card.data
    return {
        "version": card.version,
        "sha256": card.sha256,
        "seed": data.seed,
        "training_users": data.training_users,
        "training_vectors": data.training_vectors,
        "label_column": LABEL,
    }


def spec(card: ModelCard, prediction: str) -> str:
    """Return the text of model_spec.yaml, as MLRun's log_model writes it; `prediction` is what the server answers."""
    described = {
        "kind": "model",
        "metadata": {"key": card.name, "labels": {"version": card.version}},
        "spec": {
            "model_file": MODEL_FILE,
            "framework": "onnx",
            "algorithm": card.algorithm,
            "parameters": parameters_of(card),
            "metrics": metrics_of(card),
            "inputs": inputs_of(card),
            "outputs": outputs_of(prediction),
            "feature_stats": feature_stats_of(card),
        },
    }
    return yaml.safe_dump(described, sort_keys=False, width=110, default_flow_style=None)


def feature_stats_of(card: ModelCard) -> dict[str, Any]:
    """Return the statistics of every vector as served, with which MLRun's monitoring compares.

    MLRun itself would take those of the training set, a sample in which busy users count less.
    """
    return {name: _plain(histogram.mlrun_statistics()) for name, histogram in card.features.items()}


def inputs_of(card: ModelCard) -> list[dict[str, str]]:
    """Return the features, as MLRun describes inputs."""
    return [{"name": name, "value_type": "float"} for name in card.features]


def outputs_of(prediction: str) -> list[dict[str, str]]:
    """Return the decision, as MLRun describes outputs."""
    return [{"name": prediction, "value_type": "int"}]


def _plain(value: Any) -> Any:
    """Return numbers rounded to six digits, for people and for MLRun's drift detection; the card has all digits."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(f"{value:.6g}")


def log(context: Any, registry: Registry, done: Training, version: str) -> None:
    """Log to MLRun: the results, the vectors that were learned from, the model, and the report.

    Each version in a folder of its own: MLRun would let a later training overwrite the files of an earlier one.
    """
    place = registry.place_of(version)
    card = parse_card(registry.read(version, CARD_FILE), f"{place}/{CARD_FILE}")
    page = registry.read(version, report.REPORT_FILE).decode()
    results = {"version": version, "folder": place, **metrics_of(card)}
    for key, value in results.items():
        context.log_result(key, value)
    frame = _frame(done.snapshot.learn, done)
    where = {"artifact_path": folder_of(card)}
    how = {"format": "parquet", "index": False, "stats": False, "preview": 10, "label_column": LABEL}
    learned = context.log_dataset(TRAINING_SET, df=frame, **how, **where)
    context.log_artifact("report", body=page, local_path=report.REPORT_FILE, format="html", **where)
    _log_model(context, registry, done, card, learned)


def _log_model(context: Any, registry: Registry, done: Training, card: ModelCard, learned: Any) -> None:
    """Log the model as an artifact of its own name, with a tag and a label for the version (`artifact.store_uri`).

    Not by MLRun's `log_model`: that takes no statistics but those of a training set.
    """
    from mlrun.artifacts import ModelArtifact
    from mlrun.features import Feature

    content = {name: registry.read(card.version, name) for name in (CARD_FILE, README_FILE)}
    model = ModelArtifact(
        card.name,
        done.content,
        model_file=MODEL_FILE,
        framework="onnx",
        algorithm=card.algorithm,
        parameters=parameters_of(card),
        metrics=metrics_of(card),
        inputs=[Feature(**one) for one in inputs_of(card)],
        outputs=[Feature(**one) for one in outputs_of(done.data.use_case.prediction)],
        extra_data={**content, TRAINING_SET: learned},
    )
    model.feature_stats = feature_stats_of(card)
    labels = {VERSION: card.version}
    context.log_artifact(
        model, db_key=card.name, tag=tag_of(card.version), labels=labels, artifact_path=folder_of(card)
    )


def folder_of(card: ModelCard) -> str:
    """Return where MLRun keeps the artifacts of a version, below the folder of the run's."""
    return f"+/{card.name}/{tag_of(card.version)}"


def _frame(examples: Examples, done: Training) -> pd.DataFrame:
    """Return examples as a table: key, time, features, label."""
    use_case = done.data.use_case
    frame = pd.DataFrame(examples.vectors, columns=list(use_case.features))
    keys = pa.DictionaryArray.from_arrays(pa.array(examples.users), pa.array(examples.keys))
    frame.insert(0, use_case.key, keys.cast(pa.string()).to_pandas())
    frame.insert(1, use_case.time, pd.to_datetime(examples.moments, unit="us", utc=True))
    frame[LABEL] = examples.labels
    return frame
