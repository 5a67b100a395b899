"""Permutation importance: how much the metrics get worse when a feature is shuffled among vectors."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from modelstream.training.judge.bootstrap import LEAST, roc_auc
from modelstream.training.snapshot.examples import Examples
from modelstream.use_case.declared import UseCase
from modelstream.use_case.vocabulary import Category, Group

Score = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""Vectors float32[n, features] to probabilities float64[n]."""

REPEATS = 5
MOST_VECTORS = 20_000


class Importance(msgspec.Struct, frozen=True):
    """What shuffling one feature, or all those of a group together, does: mean and range of the repeats."""

    name: str
    features: list[str]
    """One, or those that were shuffled together."""
    auc_drop: float
    log_loss_rise: float
    log_loss_low: float
    log_loss_high: float


def permutation_importance(
    score: Score, examples: Examples, *, use_case: UseCase, seed: int, repeats: int = REPEATS
) -> list[Importance]:
    """Return the importance of each feature, of each group's features together, and of those of each of its windows.

    The greatest is first. Features of one group go together (a sum and a count): the model can read one from the
    others, so each alone looks dispensable. At most `MOST_VECTORS` vectors are used, drawn evenly.
    """
    draw = np.random.default_rng(seed)
    if len(examples) > MOST_VECTORS:
        examples = examples.where(np.sort(draw.choice(len(examples), MOST_VECTORS, replace=False)))
    auc, loss = _judge(examples.labels, score(examples.vectors))
    found = []
    for name, columns in together(use_case).items():
        drops, rises = [], []
        for _ in range(repeats):
            shuffled = examples.vectors.copy()
            shuffled[:, columns] = examples.vectors[draw.permutation(len(examples))][:, columns]
            worse_auc, worse_loss = _judge(examples.labels, score(shuffled))
            drops.append(auc - worse_auc)
            rises.append(worse_loss - loss)
        features = [use_case.features[column] for column in columns]
        rise = float(np.mean(rises))
        found.append(Importance(name, features, float(np.mean(drops)), rise, min(rises), max(rises)))
    return sorted(found, key=lambda one: -one.log_loss_rise)


def together(use_case: UseCase) -> dict[str, list[int]]:
    """Return columns by the name of what is shuffled: every feature, and what has several of them.

    That are groups, windows of those with several windows, and categories with a feature for each value.
    """
    groups = {name: [i] for i, name in enumerate(use_case.features)}
    several: dict[str, set[str]] = {}
    for name, form in use_case.forms.items():
        if isinstance(form, Group):
            several[f"{name}_*"] = set(form.names(name))
            for window in form.windows:
                if window.label and len(form.windows) > 1:
                    alone = msgspec.structs.replace(form, windows=(window,))
                    several[f"{name}_{window.label}_*"] = set(alone.names(name))
        elif isinstance(form, Category):
            several[f"{name}_*"] = set(form.names(name))
    for name, own in several.items():
        columns = [i for i, feature in enumerate(use_case.features) if feature in own]
        if len(columns) > 1:
            groups[name] = columns
    return groups


def _judge(labels: npt.NDArray[np.int8], probabilities: npt.NDArray[np.float64]) -> tuple[float, float]:
    clipped = np.clip(probabilities, LEAST, 1 - LEAST)
    loss = -np.log(np.where(labels == 1, clipped, 1 - clipped)).mean()
    return roc_auc(labels, probabilities), float(loss)
