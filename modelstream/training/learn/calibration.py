"""Calibration: makes probabilities match frequencies, at no cost when the model serves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelstream.training.judge.bootstrap import expected_calibration_error
from modelstream.training.snapshot.examples import Int8s

Array = npt.NDArray[np.float64]

LIMIT = 0.02
"""A model with a higher expected calibration error than this is calibrated."""
EDGE = 1e-7
"""Probabilities are taken as at least this far from 0 and 1, so that their log odds are finite."""
MOST_ODDS = math.log((1 - EDGE) / EDGE)
"""So log odds are taken as between -16.1 and 16.1, wherever they are stretched: here, and in the ONNX file."""


@dataclass(frozen=True)
class Platt:
    """A stretch and a shift of the log odds (Platt, 1999), which are kept within ±`MOST_ODDS` first.

    >>> Platt(slope=0.5).apply(np.array([0.9, 0.5, 0.1])).round(2).tolist()
    [0.75, 0.5, 0.25]
    """

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, probabilities: Array) -> Array:
        """Return calibrated probabilities, float64[n]."""
        if self == Platt():
            return probabilities
        # Beyond ±500 it is 0 or 1, and exp overflows from 709 on.
        odds = np.clip(self.slope * _log_odds(probabilities) + self.intercept, -500, 500)
        result: Array = 1 / (1 + np.exp(-odds))
        return result


@dataclass(frozen=True)
class Calibrated:
    """The calibration, and the expected calibration error before and after."""

    platt: Platt
    before: float
    after: float


def calibrate(labels: Int8s, probabilities: Array) -> Calibrated:
    """Return the calibration of a model, fitted on probabilities for users it had not seen; none if it is well
    calibrated."""
    before = expected_calibration_error(labels, probabilities)
    if before <= LIMIT:
        return Calibrated(Platt(), before, before)
    platt = fit(labels, probabilities)
    after = expected_calibration_error(labels, platt.apply(probabilities))
    # A slope that isn't positive would turn the order round: the model knows nothing, and that is for its AUC to say.
    if platt.slope <= 0 or after >= before:
        return Calibrated(Platt(), before, before)
    return Calibrated(platt, before, after)


def fit(labels: Int8s, probabilities: Array) -> Platt:
    """Return the stretch and shift with the least log loss."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    model.fit(_log_odds(probabilities)[:, None], labels)
    return Platt(float(model.coef_[0, 0]), float(model.intercept_[0]))


def _log_odds(probabilities: Array) -> Array:
    inner = np.clip(probabilities, EDGE, 1 - EDGE)
    result: Array = np.log(inner / (1 - inner))
    return result
