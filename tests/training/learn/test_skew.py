"""The skew table tells what a model is worth that was trained on final rows: at serving time, for unseen users."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from modelstream.training.judge.bootstrap import Metrics, measure
from modelstream.training.learn.candidates import Make
from modelstream.training.learn.skew import FINAL, SERVED, skew_table
from modelstream.training.snapshot.clock import LogEnd
from modelstream.training.snapshot.examples import Examples, ordinals
from modelstream.training.snapshot.histograms import Histograms
from modelstream.training.snapshot.snapshot import Snapshot
from tests.training.synthetic import USE_CASE, examples

MADE, _ = examples(users=60, vectors=20)
LEARN, TEST = MADE.of_users(range(40)), MADE.of_users(range(40, 60))


def snapshot(learn: Examples = LEARN, test: Examples = TEST) -> Snapshot:
    return Snapshot(
        learn=learn,
        test=test,
        final=learn.final(),
        histograms=Histograms(USE_CASE.features),
        users=60,
        end=LogEnd(),
        known_until=0,
        vectors=len(MADE),
        unlabelled=0,
        first=0,
        last=0,
        parity=None,
    )


class Noted:
    """A classifier that says a probability by how many vectors it was fitted on, and from what seed it was made."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.fitted_on = 0

    def fit(self, vectors: npt.NDArray[np.float64], labels: npt.NDArray[np.int8]) -> Noted:
        assert len(vectors) == len(labels)
        self.fitted_on = len(vectors)
        return self

    def predict_proba(self, vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = np.full(len(vectors), self.fitted_on / 1000 + self.seed / 1e6)
        return np.column_stack([1 - found, found])


def table(candidates: Mapping[str, Make], made: Snapshot | None = None) -> list[tuple[str, str, Metrics]]:
    rows = skew_table(candidates, made or snapshot(), threshold=0.03, seed=7, progress=lambda *_: None)
    return [(row.trained_on, row.judged_on, row.metrics) for row in rows]


def test_three_rows_a_candidate_each_trained_and_judged_on_what_it_says() -> None:
    def measured(fitted_on: int, judged: Examples) -> Metrics:
        probabilities = np.full(len(judged), fitted_on / 1000 + 7 / 1e6)
        return measure(judged.labels, probabilities, judged.users, threshold=0.03, seed=7).metrics

    finals, final = len(LEARN.final()), TEST.final()
    assert (finals, len(LEARN), len(final), len(TEST)) == (40, 800, 20, 400)
    expected = [(FINAL, FINAL, 40, final), (FINAL, SERVED, 40, TEST), (SERVED, SERVED, 800, TEST)]
    assert table({"one": Noted, "other": Noted}) == [
        (f"{trained} ({name})", judged, measured(fitted_on, on))
        for name in ("one", "other")
        for trained, judged, fitted_on, on in expected
    ]


def test_a_model_of_final_rows_looks_perfect_on_them_and_is_not_at_serving_time() -> None:
    """What tells the label grows from a user's first vector to the last."""
    growth = ordinals(MADE.users) / 19
    noise = np.random.default_rng(1).normal(size=len(MADE)) * 0.3
    vectors = np.column_stack([(2.0 * MADE.labels - 1) * growth + noise, np.ones(len(MADE))]).astype(np.float32)
    made = dataclasses.replace(MADE, vectors=vectors)
    learn, test = made.of_users(range(40)), made.of_users(range(40, 60))
    found = table({"logistic": lambda _: LogisticRegression(C=100)}, snapshot(learn, test))
    on_final, served, better = (metrics.log_loss.value or 0.0 for *_, metrics in found)
    assert 0 < 20 * on_final < better < served


def test_progress_is_told_of_every_candidate() -> None:
    told: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    skew_table({"one": Noted, "other": Noted}, snapshot(), threshold=0.5, seed=1, progress=progress)
    assert told == [("skew", 0, 2), ("skew", 1, 2), ("skew", 2, 2)]


def test_without_candidates_there_are_no_rows() -> None:
    assert table({}) == []


def test_final_rows_of_one_class_make_no_table() -> None:
    one = dataclasses.replace(LEARN, labels=np.where(ordinals(LEARN.users) == 19, 1, LEARN.labels).astype(np.int8))
    assert set(one.labels) == {0, 1} and set(one.final().labels) == {1}
    assert table({"logistic": lambda _: LogisticRegression()}, snapshot(one)) == []
