"""The evaluation answers: how early, who is misjudged, what the model leans on."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.training.judge.bootstrap import roc_auc
from modelstream.training.judge.early import event_counts, rows_at_event, rows_at_hour
from modelstream.training.judge.evaluation import Evaluation, evaluate, skew_row
from modelstream.training.judge.importance import permutation_importance
from modelstream.training.judge.segments import steadiness, worst_segments
from modelstream.training.snapshot.examples import Examples
from modelstream.use_case.declared import UseCase
from modelstream.use_case.file import parse_use_case
from tests.training.synthetic import COUNT, USE_CASE, examples, score

MADE, PROBABILITIES = examples()
OPTIONS = {"threshold": 0.5, "use_case": USE_CASE}

WITHOUT_COUNT = parse_use_case(
    """
    {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean],
     fields: {house: key, at: time, kind: text, celsius: number},
     events: {reading: {value: celsius}}, predict_on: [reading],
     model: {name: frost, prediction: will_freeze}}
    """
)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(MADE, PROBABILITIES, threshold=0.5, use_case=USE_CASE, seed=1)


def test_an_evaluation_survives_json(evaluation: Evaluation) -> None:
    assert msgspec.json.decode(msgspec.json.encode(evaluation), type=Evaluation) == evaluation


def test_the_same_seed_gives_the_same_evaluation(evaluation: Evaluation) -> None:
    assert evaluate(MADE, PROBABILITIES, threshold=0.5, use_case=USE_CASE, seed=1) == evaluation


def test_the_confusion_matrix_counts_every_vector(evaluation: Evaluation) -> None:
    found = evaluation.confusion
    said, true = PROBABILITIES >= 0.5, MADE.labels == 1
    assert found.true_positives == np.sum(said & true)
    assert found.false_positives == np.sum(said & ~true)
    assert found.false_negatives == np.sum(~said & true)
    assert found.true_negatives == np.sum(~said & ~true)
    assert evaluation.positive_vectors == pytest.approx(MADE.labels.mean())
    assert evaluation.positive_users == pytest.approx(20 / 60)


def test_the_curve_by_events_has_one_vector_of_each_user(evaluation: Evaluation) -> None:
    assert [point.at for point in evaluation.by_events][:4] == [1, 2, 5, 10]
    for point in evaluation.by_events:
        rows = [
            next(i for i in mine if MADE.vectors[i, COUNT] == point.at and MADE.kinds[i] == 0)
            for user in range(60)
            if (mine := np.flatnonzero(MADE.users == user)) is not None
            and np.any((MADE.vectors[mine, COUNT] == point.at) & (MADE.kinds[mine] == 0))
        ]
        assert (point.metrics.vectors, point.metrics.users) == (len(rows), len(rows))
        assert point.metrics.auc.value == pytest.approx(roc_auc(MADE.labels[rows], PROBABILITIES[rows]))


def test_the_curve_by_hours_has_each_users_last_vector_until_then(evaluation: Evaluation) -> None:
    assert evaluation.by_hours
    for point in evaluation.by_hours:
        rows = [
            mine[-1]
            for user in range(60)
            if len(mine := np.flatnonzero((MADE.users == user) & (MADE.hours <= point.at)))
        ]
        assert sorted(rows_at_hour(MADE, point.at)) == rows
        assert point.metrics.auc.value == pytest.approx(roc_auc(MADE.labels[rows], PROBABILITIES[rows]))


def test_points_of_few_users_are_left_out() -> None:
    few = MADE.of_users(range(19))
    found = evaluate(few, PROBABILITIES[MADE.users < 19], threshold=0.5, use_case=USE_CASE, seed=1)
    assert (found.by_events, found.by_hours) == ([], [])


def test_users_may_be_mixed_and_the_event_of_another_type_is_not_taken() -> None:
    order = np.argsort(MADE.moments % 40_000_000, kind="stable")  # all users' first vectors, then their second
    mixed = MADE.where(order)
    assert set(order[rows_at_event(mixed, USE_CASE, 5)]) == set(rows_at_event(MADE, USE_CASE, 5))
    assert set(order[rows_at_hour(mixed, 3.0)]) == set(rows_at_hour(MADE, 3.0))
    counts = event_counts(MADE, USE_CASE)
    assert (counts[MADE.kinds == 1] == 0).all()


def test_without_the_statistic_events_are_counted_and_without_a_window_there_are_no_hours() -> None:
    made = dataclasses.replace(MADE, vectors=MADE.vectors[:, :1], kinds=np.zeros(len(MADE), np.int8))
    assert event_counts(made, WITHOUT_COUNT).reshape(60, 40).tolist() == [list(range(1, 41))] * 60
    found = evaluate(made, PROBABILITIES, threshold=0.5, use_case=WITHOUT_COUNT, seed=1)
    assert (found.event, found.by_hours) == ("reading", [])
    assert [point.at for point in found.by_events] == [1, 2, 5, 10, 20]


def test_the_best_ranking_gains_all_and_none_gains_its_share(evaluation: Evaluation) -> None:
    perfect = evaluate(MADE, MADE.labels.astype(float), threshold=0.5, use_case=USE_CASE, seed=1).gains[-1]
    share = MADE.labels.mean()
    assert perfect.found == pytest.approx(np.minimum(np.array(perfect.share) / share, 1), abs=1e-9)
    constant = evaluate(MADE, np.full(len(MADE), 0.3), threshold=0.5, use_case=USE_CASE, seed=1).gains[-1]
    assert constant.found == pytest.approx(constant.share)
    assert [gain.moment for gain in evaluation.gains] == [
        "after a user's 1st bet",
        "after a user's 10th bet",
        "all vectors",
    ]
    for gain in evaluation.gains:
        assert gain.found == sorted(gain.found)
        assert (gain.found[0], gain.found[-1]) == (0, 1)


def test_a_group_that_is_misjudged_is_found_and_comes_first() -> None:
    wrong = MADE.vectors[:, 0] >= 6
    probabilities = np.where(wrong, 1.0 - MADE.labels, MADE.labels * 1.0)
    first = worst_segments(MADE, probabilities, threshold=0.5, use_case=USE_CASE)[0]
    assert first.name.startswith(USE_CASE.features[0])
    rows = MADE.vectors[:, 0] >= float(first.name.split()[-1])
    assert (first.vectors, first.users) == (rows.sum(), len(np.unique(MADE.users[rows])))
    assert first.errors == pytest.approx(wrong[rows].mean())
    assert first.errors == pytest.approx(first.false_positives + first.false_negatives)


def test_without_errors_no_group_is_misjudged() -> None:
    assert worst_segments(MADE, MADE.labels * 1.0, **OPTIONS) == []  # type: ignore[arg-type]


DECISIONS = st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=6)


@given(DECISIONS, st.randoms())
def test_steadiness_is_that_of_each_users_decisions(right: list[list[bool]], random: object) -> None:
    users = np.repeat(np.arange(len(right)), [len(one) for one in right]).astype(np.int32)
    rows = len(users)
    made = Examples(
        vectors=np.zeros((rows, 1), np.float32),
        labels=np.ones(rows, np.int8),
        users=users + 3,
        keys=[],
        kinds=np.zeros(rows, np.int8),
        moments=np.arange(rows),
        hours=np.zeros(rows, np.float32),
    )
    found = steadiness(made, np.concatenate([np.array(one) for one in right]))
    assert found.users == len(right)
    assert found.right_at_end == pytest.approx(np.mean([one[-1] for one in right]))
    assert found.always_right == pytest.approx(np.mean([all(one) for one in right]))
    assert found.never_right == pytest.approx(np.mean([not any(one) for one in right]))
    settled = [len(one) - one[::-1].index(False) if False in one else 0 for one in right if one[-1]]
    assert found.settled_median == pytest.approx(np.median(settled) if settled else 0)


def test_importance_names_the_feature_that_the_model_uses() -> None:
    made = dataclasses.replace(MADE, labels=(MADE.vectors[:, COUNT] > 10).astype(np.int8))
    found = permutation_importance(score, made, use_case=USE_CASE, seed=1)
    assert {found[0].name, found[1].name} == {"bet_*", "bet_count"}
    assert found[0].auc_drop > 0.1
    unused = [one for one in found if COUNT not in [USE_CASE.features.index(name) for name in one.features]]
    assert len(unused) == len(USE_CASE.features) - 1 + 2
    assert all(one.auc_drop == one.log_loss_rise == 0 for one in unused)
    assert found == permutation_importance(score, made, use_case=USE_CASE, seed=1)


def test_importance_sees_what_two_features_tell_together() -> None:
    """Each of two equal features looks dispensable, both together do not."""
    vectors = MADE.vectors.copy()
    twin = USE_CASE.features.index("bet_sum")
    vectors[:, twin] = vectors[:, COUNT]
    made = dataclasses.replace(MADE, vectors=vectors, labels=(vectors[:, COUNT] > 10).astype(np.int8))

    def either(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return np.clip((np.maximum(rows[:, COUNT], rows[:, twin]) > 10) * 1.0, 0.05, 0.95)

    found = {one.name: one for one in permutation_importance(either, made, use_case=USE_CASE, seed=1)}
    assert found["bet_*"].auc_drop > 1.3 * max(found["bet_count"].auc_drop, found["bet_sum"].auc_drop)


def test_a_row_of_the_skew_table_is_what_measuring_gives(evaluation: Evaluation) -> None:
    found = skew_row("a", "b", MADE, PROBABILITIES, threshold=0.5, seed=1)
    assert (found.trained_on, found.judged_on, found.metrics) == ("a", "b", evaluation.metrics)


def test_probabilities_of_other_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="3 probabilities for 2400 vectors"):
        evaluate(MADE, np.zeros(3), threshold=0.5, use_case=USE_CASE, seed=1)


def test_the_use_cases_here_differ_in_what_they_count() -> None:
    def has(use_case: UseCase) -> bool:
        return f"{use_case.predict_on[0]}_count" in use_case.features

    assert has(USE_CASE) and not has(WITHOUT_COUNT)
