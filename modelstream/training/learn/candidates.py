"""Candidates: classifiers of scikit-learn, judged by cross-validation with whole users left out, and one chosen.

The log loss decides, because it measures the probability, which the threshold, the report and people act on. Candidates
within one standard error of the best (over users, Breiman's rule) count as a tie; the one that scores the most vectors
per second is chosen.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from modelstream.base.yamlfile import suggestion
from modelstream.errors import ConfigurationError
from modelstream.training.judge.bootstrap import roc_auc
from modelstream.training.learn.export import Trained, as_model, to_onnx
from modelstream.training.learn.splits import folds
from modelstream.training.snapshot.examples import Examples, Int64s
from modelstream.training.snapshot.selection import OnProgress

Array = npt.NDArray[np.float64]
Make = Callable[[int], Any]
"""Makes an unfitted classifier with `fit` and `predict_proba`, from a seed."""

FOLDS = 5
LEAST = 1e-15
"""Probabilities are taken as at least this far from 0 and 1, as scikit-learn's log loss does."""
BATCH = 1000
TIMED_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The results of a candidate on users that it had not seen."""

    name: str
    algorithm: str
    parameters: dict[str, Any]
    probabilities: Array
    """float64[n]: for each example, the probability from the model that had not seen its user."""
    log_loss: float
    log_loss_std: float
    """Between the folds."""
    standard_error: float
    """Of the log loss, over users."""
    auc: float
    accuracy: float
    fit_seconds: float
    """For one fold."""
    vectors_per_second: float
    """Scored as ONNX in batches of 1,000 on one core."""


def named(candidates: Mapping[str, Make], names: str | None) -> dict[str, Make]:
    """Return the candidates in a comma-separated list of names; all for None. Raises ConfigurationError.

    >>> list(named({"a": dict, "b": dict}, " b"))
    ['b']
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()] if names is not None else list(candidates)
    for name in wanted:
        if name not in candidates:
            raise ConfigurationError(f"there is no candidate {name!r}", remedy=suggestion(name, candidates))
    if not wanted:
        raise ConfigurationError("--candidates names none", remedy=f"name one or more of {', '.join(candidates)}")
    return {name: candidates[name] for name in wanted}


def fitted(make: Make, examples: Examples, seed: int) -> Any:
    """Return a candidate that has learned from examples. The same seed and examples give the same model."""
    # On one thread: the order in which several add up would be in the last bits, and where other processes want the
    # cores too, OpenMP's threads wait for each other (gradient boosting: minutes instead of seconds).
    with threadpool_limits(1):
        return make(seed).fit(examples.vectors.astype(np.float64), examples.labels)


def cross_validate(
    candidates: Mapping[str, Make], examples: Examples, seed: int, threshold: float, progress: OnProgress
) -> list[Trial]:
    """Return how each candidate did, the best log loss first. As many fits run at a time as there are cores."""
    splits = list(folds(examples, FOLDS, seed))
    total = len(candidates) * FOLDS
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        judged = {
            name: [pool.submit(_judged, make, examples, rows, others, seed) for rows, others in splits]
            for name, make in candidates.items()
        }
        for done, _ in enumerate(as_completed([one for each in judged.values() for one in each])):
            progress("candidates", done, total)
    # Speeds are measured after that, when nothing else wants the cores.
    trials = [_trial(name, [one.result() for one in each], examples, threshold) for name, each in judged.items()]
    progress("candidates", total, total)
    return sorted(trials, key=lambda trial: trial.log_loss)


@dataclass(frozen=True)
class _Fold:
    """A model, and its probabilities for the users that it has not seen."""

    estimator: Any
    rows: Int64s
    probabilities: Array
    seconds: float


def _judged(make: Make, examples: Examples, rows: Int64s, others: Int64s, seed: int) -> _Fold:
    begun = time.perf_counter()
    estimator = fitted(make, examples.where(rows), seed)
    seconds = time.perf_counter() - begun
    return _Fold(estimator, others, Trained(estimator).probabilities(examples.vectors[others]), seconds)


def choose(trials: list[Trial]) -> tuple[Trial, str]:
    """Return the chosen candidate, and the reason in words."""
    best = min(trials, key=lambda trial: trial.log_loss)
    close = [trial for trial in trials if trial.log_loss <= best.log_loss + best.standard_error]
    # Speeds within a factor of about two count as equal: they are measured, and the choice must not hang on noise.
    chosen = max(close, key=lambda trial: (round(math.log2(trial.vectors_per_second)), -trial.log_loss))
    if len(close) == 1:
        return chosen, f"the least log loss, {best.log_loss:.4f}; no other is within a standard error of it"
    within = f"within a standard error ({best.standard_error:.4f}) of the least log loss, {best.log_loss:.4f}"
    others = ", ".join(trial.name for trial in close if trial is not chosen)
    return chosen, f"{within}, as is {others}, and the fastest: {chosen.vectors_per_second:,.0f} vectors a second"


def _trial(name: str, parts: list[_Fold], examples: Examples, threshold: float) -> Trial:
    estimator, probabilities = parts[0].estimator, np.empty(len(examples))
    for part in parts:
        probabilities[part.rows] = part.probabilities
    losses = _losses(examples.labels, probabilities)
    fold_losses = [losses[part.rows].mean() for part in parts]
    mean = float(losses.mean())
    by_user = np.bincount(examples.users, losses - mean, len(examples.keys))
    users = examples.user_count
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    plain = {key: value for key, value in last.get_params().items() if isinstance(value, int | float | str)}
    plain = {key: str(value) if value in (np.inf, -np.inf) else value for key, value in plain.items()}
    return Trial(
        name=name,
        algorithm=type(last).__name__,
        parameters=plain,
        probabilities=probabilities,
        log_loss=mean,
        log_loss_std=float(np.std(fold_losses, ddof=1)),
        standard_error=float(np.sqrt((by_user**2).sum() * users / max(users - 1, 1)) / len(examples)),
        auc=roc_auc(examples.labels, probabilities),
        accuracy=float(((probabilities >= threshold) == examples.labels).mean()),
        fit_seconds=float(np.median([part.seconds for part in parts])),
        vectors_per_second=_speed(name, estimator, examples),
    )


def _losses(labels: npt.NDArray[np.int8], probabilities: Array) -> Array:
    clipped = np.clip(probabilities, LEAST, 1 - LEAST)
    result: Array = -np.log(np.where(labels == 1, clipped, 1 - clipped))
    return result


def _speed(name: str, estimator: Any, examples: Examples) -> float:
    """Return how many vectors a second the model scores as the model server does, in batches of 1,000."""
    width = examples.vectors.shape[1]
    model = as_model(to_onnx(Trained(estimator), width), f"the candidate {name}", tuple(map(str, range(width))))
    batch = np.resize(examples.vectors[:BATCH], (BATCH, width))
    fastest, until = np.inf, time.perf_counter() + TIMED_SECONDS
    while (begun := time.perf_counter()) < until:
        model.predict(batch)
        fastest = min(fastest, time.perf_counter() - begun)
    return BATCH / fastest
