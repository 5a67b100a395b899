"""Plots of the examples that a model is trained on."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from modelstream.training.report.figures import BLUE, INK, ORANGE, PLOTS_A_ROW, small, styled, subplots
from modelstream.training.snapshot.examples import Examples
from modelstream.use_case.declared import UseCase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 30


@styled
def class_balance(examples: Examples) -> Figure:
    """Users and vectors of each class."""
    figure, axes = subplots(1, 2, 1.9, sharey=True)
    users = examples.final().labels
    for ax, labels, unit in zip(axes, (users, examples.labels), ("users", "vectors"), strict=True):
        counts = np.bincount(labels, minlength=2)
        ax.barh([0, 1], counts, 0.6, color=[BLUE, ORANGE], alpha=0.8)
        for place, count in enumerate(counts):
            text = f" {count:,} ({count / max(1, counts.sum()):.0%})"
            ax.annotate(text, (count, place), va="center", fontsize=9)
        ax.set(title=unit.capitalize(), xlabel=f"number of {unit}", xlim=(0, 1.35 * max(1, counts.max())))
        ax.grid(visible=False, axis="y")
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_yticks([0, 1], ["negative", "positive"])
    return figure


@styled
def features_by_class(examples: Examples, use_case: UseCase) -> Figure:
    """How each feature is distributed among positives and negatives; the highest 2 % lie beyond the axis."""
    rows = -(-len(use_case.features) // PLOTS_A_ROW)
    figure, axes = subplots(rows, PLOTS_A_ROW, 0.5 + 1.4 * rows)
    for ax in axes[len(use_case.features) :]:
        ax.set_visible(False)
    for column, (name, ax) in enumerate(zip(use_case.features, axes, strict=False)):
        values = examples.vectors[:, column].astype(np.float64)
        edges = _edges(values)
        for label, colour, text in ((0, BLUE, "negative"), (1, ORANGE, "positive")):
            of_class = values[examples.labels == label]
            counts = np.histogram(of_class, edges)[0] / max(1, len(of_class)) * 100
            ax.stairs(counts, edges, fill=True, color=colour, alpha=0.2)
            ax.stairs(counts, edges, color=colour, linewidth=1.1, label=text)
        small(ax, name)
        ax.locator_params(axis="both", nbins=4)
    axes[0].legend(fontsize=7, loc="upper right")
    figure.supylabel("vectors of the class (%)", fontsize=8)
    figure.supxlabel("value of the feature", fontsize=8)
    return figure


@styled
def correlations(examples: Examples, use_case: UseCase) -> Figure:
    """Spearman's rank correlation of every two features, and with the label."""
    names = [*use_case.features, "label"]
    columns = np.column_stack([examples.vectors, examples.labels])
    ranks = np.argsort(np.argsort(columns, axis=0, kind="stable"), axis=0).astype(np.float64)
    for i in range(ranks.shape[1]):  # equal values share their mean rank
        _, places, counts = np.unique(columns[:, i], return_inverse=True, return_counts=True)
        ranks[:, i] = (np.bincount(places, ranks[:, i]) / counts)[places]
    ranks -= ranks.mean(0)
    scale = np.sqrt((ranks**2).sum(0))
    found = ranks.T @ ranks / np.maximum(np.outer(scale, scale), 1e-300)
    figure, (ax,) = subplots(1, 1, 1.2 + 0.36 * len(names))
    for row, column in itertools.product(range(len(names)), repeat=2):
        value = float(found[row, column])
        colour, strength = (BLUE if value >= 0 else ORANGE), min(0.75, abs(value) * 0.75)
        ax.barh(row, 0.96, 0.92, column - 0.48, color=colour, alpha=strength)
        text = f"{round(value, 2) + 0.0:.2f}".replace("-", "−")
        ax.text(column, row, text, ha="center", va="center", fontsize=7, color=INK)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), title="Rank correlation (Spearman, −1 to 1)")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


def _edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the edges of about `BINS` bins up to 98 % of the values; whole numbers lie in the middle of theirs."""
    low, high = np.quantile(values, [0, 0.98])
    if (values == np.floor(values)).all():
        step = max(1, round((high - low) / BINS))
        edges: npt.NDArray[np.float64] = np.arange(low - 0.5, high + step + 0.5, step)
    else:
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    return edges
