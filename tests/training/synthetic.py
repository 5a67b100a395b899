"""Examples and a card for tests, made without a log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelstream.training.judge.evaluation import evaluate, skew_row
from modelstream.training.judge.importance import permutation_importance
from modelstream.training.report.card import Calibration, Candidate, DataFacts, ModelCard, Threshold
from modelstream.training.report.card_text import card_files
from modelstream.training.snapshot.examples import Examples
from modelstream.training.snapshot.histograms import Histograms, of_probabilities
from modelstream.use_case.file import load_use_case

ROOT = Path(__file__).parents[2]
USE_CASE = load_use_case(ROOT / "use_cases" / "churn.yaml")
COUNT = USE_CASE.features.index("bet_count")
Floats = npt.NDArray[np.floating[Any]]


def examples(users: int = 60, vectors: int = 40, seed: int = 0) -> tuple[Examples, Floats]:
    """Return vectors of users, and probabilities that get better with each vector."""
    draw = np.random.default_rng(seed)
    count = users * vectors
    who = np.repeat(np.arange(users, dtype=np.int32), vectors)
    label = (np.arange(users) % 3 == 0).astype(np.int8)
    types = (draw.random((users, vectors)) < 0.3).astype(np.int8)
    types[:, 0] = 0
    hours = np.sort(draw.random((users, vectors)) * 24, axis=1).astype(np.float32)
    features = draw.lognormal(size=(count, len(USE_CASE.features))).astype(np.float32)
    features[:, 0] = draw.integers(1, 8, users)[who]
    features[:, COUNT] = np.cumsum(types == 0, axis=1).ravel()
    signal = (label * 2.0 - 1)[who] * np.sqrt(features[:, COUNT]) * 0.6 + np.repeat(draw.normal(size=users), vectors)
    made = Examples(
        vectors=features,
        labels=label[who],
        users=who,
        keys=[f"u{i}" for i in range(users)],
        kinds=types.ravel(),
        moments=np.arange(count) * 1_000_000,
        hours=hours.ravel(),
    )
    return made, 1 / (1 + np.exp(-signal))


def score(vectors: Floats) -> Floats:
    """Return probabilities that rest on one feature alone."""
    found: Floats = 1 / (1 + np.exp(-(vectors[:, COUNT].astype(np.float64) - 10)))
    return found


def card(version: str = "1") -> ModelCard:
    """Return a card with something in every part."""
    made, probabilities = examples()
    histograms = Histograms(USE_CASE.features)
    histograms.update(made.vectors)
    return ModelCard(
        name="churn",
        version=version,
        title="A title with <b> and | in it",
        sha256="0" * 64,
        algorithm="logistic regression",
        created="2026-01-01T00:00:00Z",
        data=DataFacts(
            source="made up",
            labels_from="made up",
            seed=1,
            first_event="2026-01-01T00:00:00Z",
            last_event="2026-01-02T00:00:00Z",
            users=80,
            training_users=20,
            test_users=60,
            vectors=3000,
            training_vectors=600,
            test_vectors=len(made),
        ),
        features=histograms.result(),
        prediction=of_probabilities(probabilities),
        candidates=[
            Candidate(name="one", parameters={"depth": 3}, log_loss=0.1, auc=0.9, chosen=True),
            Candidate(name="b", log_loss=1, auc=0.5),
        ],
        chosen_because="It is better.",
        calibration=Calibration(method="none", before=0.01, after=0.01),
        threshold=Threshold(value=0.5, how="Given."),
        evaluation=evaluate(made, probabilities, threshold=0.5, use_case=USE_CASE, seed=1),
        skew=[skew_row("final rows", "vectors at serving time", made, probabilities, threshold=0.5, seed=1)],
        importance=permutation_importance(score, made, use_case=USE_CASE, seed=1),
        intended_use=["Tests."],
        limits=["Nothing | else."],
        libraries={"numpy": "1"},
    )


def write_card(card: ModelCard, folder: Path) -> None:
    """Write card.json and README.md into a folder."""
    for name, content in card_files(card).items():
        (folder / name).write_bytes(content)
