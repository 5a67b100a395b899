"""Training from end to end: snapshot, candidates, calibration, test on unseen users, ONNX, registry.

The notebook's `train(context, …)` calls `train` here with its candidates; `pipeline.py train` runs the notebook's.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelstream.base.times import time_given
from modelstream.errors import ModelstreamError
from modelstream.model.onnx import OnnxModel
from modelstream.registry.registry import Registry
from modelstream.settings import PREFIX, Settings, from_environment
from modelstream.training.judge.evaluation import Importance, evaluate, permutation_importance
from modelstream.training.learn import candidates as trials_of
from modelstream.training.learn.calibration import calibrate
from modelstream.training.learn.export import Trained, as_model, compare, to_onnx
from modelstream.training.learn.skew import skew_table
from modelstream.training.promotion import promote_unless_worse
from modelstream.training.result import Recipe, Training, TrainingOptions
from modelstream.training.snapshot.data import Data, open_data
from modelstream.training.snapshot.labels import declared, read_labels
from modelstream.training.snapshot.selection import OnProgress, Selection
from modelstream.training.snapshot.snapshot import Snapshot, take

COMPARED = 100_000
"""Number of vectors on which ONNX and scikit-learn are compared."""


def train(context: Any, recipe: Recipe, options: TrainingOptions) -> str:
    """Train a model on the data that the environment names, register it, and log it to MLRun; return its version.

    `context` is MLRun's (`MLClientCtx`), with or without an API server. If it has a method `step(name, done,
    total)`, that is called with the progress. Raises ModelstreamError, also when the version is to be promoted and is
    worse than the one that serves: then it is registered, and does not serve.
    """
    from modelstream.training import tracking  # it needs matplotlib and MLRun's context

    settings = from_environment()
    progress: OnProgress = getattr(context, "step", None) or _to_log(context)
    with open_data(settings) as data:
        registry = _registry(settings, data, options)
        registry.mlrun_project = getattr(context, "project", "")
        done = learn(data, recipe, options, progress)
        version = tracking.register(registry, done, progress)
        tracking.log(context, registry, done, version)
        if options.promote:
            promote_unless_worse(registry, version, data.use_case.threshold)
    return version


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep scikit-learn's warnings off the screen: a fit that doesn't converge is judged by its answers, as all are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@_without_warnings()
def learn(data: Data, recipe: Recipe, options: TrainingOptions, progress: OnProgress) -> Training:
    """Train on opened data: everything but registering and logging. Raises ModelstreamError."""
    use_case = data.use_case
    vectors = selection(options)
    wanted = trials_of.named(recipe.candidates, options.candidates)
    labels = read_labels(Path(options.labels), use_case) if options.labels else None
    if labels is None:
        declared(use_case)
    snapshot = take(data, labels, vectors, progress)
    seed, threshold = options.seed, use_case.threshold
    trials = trials_of.cross_validate(wanted, snapshot.learn, seed, threshold, progress)
    chosen, because = trials_of.choose(trials)
    calibrated = calibrate(snapshot.learn.labels, chosen.probabilities)
    trained = Trained(trials_of.fitted(wanted[chosen.name], snapshot.learn, seed), calibrated.platt)
    content = to_onnx(trained, len(use_case.features))
    model = as_model(content, options.name or use_case.model_name, use_case.features)
    comparison = compare(trained, model, _compared(snapshot, seed), threshold)
    progress("test", 0, 1)
    probabilities = model.predict(snapshot.test.vectors)
    found = Training(
        name=options.name or use_case.model_name,
        options=options,
        recipe=recipe,
        data=data,
        selection=vectors,
        snapshot=snapshot,
        trials=trials,
        chosen=chosen,
        because=because,
        calibrated=calibrated,
        content=content,
        comparison=comparison,
        probabilities=probabilities,
        evaluation=evaluate(snapshot.test, probabilities, threshold=threshold, use_case=use_case, seed=seed),
        skew=skew_table(wanted, snapshot, threshold=threshold, seed=seed, progress=progress),
        importance=_importance(model, snapshot, data, seed),
    )
    progress("test", 1, 1)
    return found


def selection(options: TrainingOptions) -> Selection:
    """Return the selection that options describe. Raises ConfigurationError for an invalid time."""
    now = time.time()
    given = {"since": options.since, "until": options.until}
    limits = {name: time_given(text, f"--{name}", now) for name, text in given.items() if text is not None}
    return Selection(seed=options.seed, source=options.source, **limits)


def _compared(snapshot: Snapshot, seed: int) -> npt.NDArray[np.float32]:
    """Return vectors to compare ONNX on: of the test users, then as many as there are of the others."""
    vectors = np.concatenate([snapshot.test.vectors[:COMPARED], snapshot.learn.vectors[:COMPARED]])
    order = np.random.default_rng(seed).permutation(len(vectors))[:COMPARED]
    result: npt.NDArray[np.float32] = vectors[order]
    return result


def _importance(model: OnnxModel, snapshot: Snapshot, data: Data, seed: int) -> list[Importance]:
    return permutation_importance(model.predict, snapshot.test, use_case=data.use_case, seed=seed)


def _registry(settings: Settings, data: Data, options: TrainingOptions) -> Registry:
    """Return the registry to add to. Raises ConfigurationError early, before anything is trained in vain."""
    use_case = data.use_case
    name = options.name or use_case.model_name
    if not settings.registry:
        raise ModelstreamError(
            f"there is no registry to add {name} to",
            remedy=f"set {PREFIX}REGISTRY to a folder or s3://bucket/prefix, as project.yaml does",
        )
    registry = Registry.of(settings, use_case, name)
    registry.check_writable()
    return registry


def _to_log(context: Any) -> OnProgress:
    """Return what tells a context's log when a step begins."""
    told: set[str] = set()

    def tell(step: str, done: int, total: int) -> None:  # noqa: ARG001
        if step not in told:
            told.add(step)
            context.logger.info(f"training: {step}")

    return tell
