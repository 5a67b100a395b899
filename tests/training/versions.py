"""Versions of a model that are more or less good, with the vectors that they were tested on."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

from modelstream.registry.registry import Registry
from modelstream.training.judge.held_out import HELD_OUT_FILE, held_out
from modelstream.training.learn.export import Trained, to_onnx
from modelstream.training.snapshot.examples import Examples
from tests.model_files import CHURN, directory
from tests.training.synthetic import examples

LABEL = CHURN.features.index("socioeconomic_idx")


def told_examples() -> Examples:
    """Return examples whose first feature tells the label, loudly or not as a model likes."""
    made, _ = examples()
    made.vectors[:, LABEL] = made.labels * 2.0 - 1 + np.random.default_rng(1).normal(size=len(made))
    return made


EXAMPLES = told_examples()


def version_files(version: str, skill: float, tested: Examples | None = EXAMPLES) -> dict[str, bytes]:
    """Return the files of a version whose log odds are `skill` times the telling feature, above the base rate."""
    width = len(CHURN.features)
    made = LogisticRegression().fit(np.eye(2, width), np.array([0, 1]))
    made.coef_, made.intercept_ = np.zeros((1, width)), np.array([-0.7])
    made.coef_[0, LABEL] = skill
    files = directory(version, to_onnx(Trained(made), width))
    return files if tested is None else files | {HELD_OUT_FILE: held_out(tested, 1)}


def registered(registry: Registry, skill: float, tested: Examples | None = EXAMPLES) -> str:
    """Register a version."""
    return registry.register(lambda version: version_files(version, skill, tested))
