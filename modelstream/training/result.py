"""The input of a training (options, recipe) and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelstream.training.judge.evaluation import Evaluation, Importance, SkewRow
from modelstream.training.learn.calibration import Calibrated
from modelstream.training.learn.candidates import Make, Trial
from modelstream.training.learn.export import Comparison
from modelstream.training.snapshot.data import Data
from modelstream.training.snapshot.selection import Selection
from modelstream.training.snapshot.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What to train on; see `pipeline.py train --help`."""

    labels: str | None = None
    source: str = "events"
    since: str | None = None
    until: str | None = None
    """A time, or how long ago: see `time_given`."""
    candidates: str | None = None
    seed: int = 1
    name: str = ""
    promote: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the notebook decides: the candidates."""

    candidates: Mapping[str, Make]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that a training produces, except the version."""

    name: str
    options: TrainingOptions
    recipe: Recipe
    data: Data
    selection: Selection
    snapshot: Snapshot
    trials: list[Trial]
    chosen: Trial
    because: str
    calibrated: Calibrated
    content: bytes
    """The ONNX file."""
    comparison: Comparison
    probabilities: npt.NDArray[np.float64]
    """float64[n]: the probabilities of the ONNX file for the test users' vectors."""
    evaluation: Evaluation
    skew: list[SkewRow]
    importance: list[Importance]
