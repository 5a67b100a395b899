"""The skew table: how good a model is that was trained on final rows, against one trained on vectors as served."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelstream.training.judge.evaluation import SkewRow, skew_row
from modelstream.training.learn.candidates import Make, fitted
from modelstream.training.learn.export import Trained
from modelstream.training.snapshot.selection import OnProgress
from modelstream.training.snapshot.snapshot import Snapshot

FINAL, SERVED = "final rows", "vectors as served"


def skew_table(
    candidates: Mapping[str, Make], snapshot: Snapshot, *, threshold: float, seed: int, progress: OnProgress
) -> list[SkewRow]:
    """Return three rows a candidate, all for users that it has not seen.

    Trained and judged on final rows, the same model at serving time, and the candidate trained at serving time. None if
    the final rows are all of one class, as they may be where a label is waited for: nothing learns from those.
    """
    if len(np.unique(snapshot.final.labels)) < 2:
        return []
    final, test = snapshot.test.final(), snapshot.test
    rows: list[SkewRow] = []
    for done, (name, make) in enumerate(candidates.items()):
        progress("skew", done, len(candidates))
        usual = Trained(fitted(make, snapshot.final, seed))
        better = Trained(fitted(make, snapshot.learn, seed))
        for trained, trained_on, judged_on, examples in (
            (usual, FINAL, FINAL, final),
            (usual, FINAL, SERVED, test),
            (better, SERVED, SERVED, test),
        ):
            probabilities = trained.probabilities(examples.vectors)
            what = f"{trained_on} ({name})"
            rows.append(skew_row(what, judged_on, examples, probabilities, threshold=threshold, seed=seed))
    progress("skew", len(candidates), len(candidates))
    return rows
