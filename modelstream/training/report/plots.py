"""The plots of a model's card, one function each.

They need only the card, so a report can be made again at any time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from modelstream.training.judge.evaluation import EarlyPoint, Estimate, Evaluation, Importance, SkewRow
from modelstream.training.report.card import ModelCard
from modelstream.training.report.figures import BLUE, INK, MUTED, ORANGE, SERIES, styled, subplots
from modelstream.training.snapshot.histograms import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]


@styled
def early_detection(evaluation: Evaluation) -> Figure:
    """AUC, recall and precision against the number of events, and against hours since the window opened."""
    curves = [(evaluation.by_events, f"number of the user's {evaluation.event} events", "events")]
    if evaluation.by_hours:
        curves.append((evaluation.by_hours, "hours since the window opened", "hours"))
    figure, axes = subplots(1, len(curves), 3.6, sharey=True)
    lowest = 1.0
    for (points, unit, short), ax in zip(curves, axes, strict=True):
        if short == "events":
            ax.set_xscale("log")
            ax.set_xticks([point.at for point in points], [f"{point.at:g}" for point in points])
            ax.minorticks_off()
        for name, colour in zip(("auc", "recall", "precision"), SERIES, strict=False):
            lowest = min(lowest, _curve(ax, points, name, colour))
        ax.set(xlabel=unit, title=f"By {short}")
    axes[0].set(ylabel="AUC, recall, precision (0 to 1)", ylim=(max(0.0, np.floor(lowest * 10 - 0.3) / 10), 1.01))
    axes[-1].legend(loc="lower right")
    return figure


@styled
def reliability(evaluation: Evaluation, prediction: Histogram) -> Figure:
    """Draw predicted against observed frequencies, and how often each probability occurs."""
    figure, (above, below) = subplots(2, 1, 5.0, sharex=True, height_ratios=[3, 1])
    bins = evaluation.reliability
    predicted = [one.predicted for one in bins]
    observed = [one.observed.value or 0.0 for one in bins]
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
    above.errorbar(
        predicted, observed, yerr=_whiskers([one.observed for one in bins]), marker="o", capsize=2, elinewidth=1,
        label="observed, with 95 % interval over users",
    )  # fmt: skip
    above.set(ylabel="share that is positive (0 to 1)", ylim=(-0.02, 1.02), title="Reliability")
    above.legend(loc="upper left")
    shares = prediction.shares[1:-1] * 100
    edges = np.clip(prediction.edges, 0, 1)
    below.bar(edges[:-1], shares, np.diff(edges), align="edge", color=BLUE, alpha=0.55)
    below.set(xlabel="predicted probability (0 to 1)", ylabel="vectors (%)", xlim=(-0.01, 1.01), yscale="log")
    _plain(below, shares)
    return figure


@styled
def confusion(evaluation: Evaluation) -> Figure:
    """The confusion matrix at the threshold: vectors, and shares of each true class."""
    found = evaluation.confusion
    cells = np.array(
        [[found.true_negatives, found.false_positives], [found.false_negatives, found.true_positives]], np.float64
    )
    shares = cells / np.maximum(cells.sum(1, keepdims=True), 1)
    figure, (ax,) = subplots(1, 1, 2.9)
    for row in range(2):
        for column in range(2):
            colour = BLUE if row == column else ORANGE
            ax.barh(row, 1, 0.98, column, color=colour, alpha=0.06 + 0.44 * float(shares[row, column]))
            text = f"{cells[row, column]:,.0f}\n{shares[row, column]:.1%} of the truly {('negative', 'positive')[row]}"
            ax.text(column + 0.5, row, text, ha="center", va="center", fontsize=11, color=INK)
    ax.set_yticks([0, 1], ["truly negative", "truly positive"])
    ax.set_xticks([0.5, 1.5], ["said negative", "said positive"])
    ax.set(xlim=(0, 2), ylim=(1.5, -0.5), title=f"Confusion matrix (vectors; threshold {evaluation.threshold:g})")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


@styled
def gain(evaluation: Evaluation) -> Figure:
    """Gain and lift: how many of the positives are among those ranked highest."""
    figure, (left, right) = subplots(1, 2, 3.6)
    left.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="at random")
    right.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for one, colour, style in zip(evaluation.gains, SERIES, ("-", "--", "-.", ":"), strict=False):
        share, found = np.array(one.share), np.array(one.found)
        first = int(np.searchsorted(share, 0.05))  # of fewer, the lift is chance
        left.plot(share * 100, found * 100, label=one.moment, color=colour, linestyle=style)
        right.plot(share[first:] * 100, found[first:] / share[first:], color=colour, linestyle=style)
    left.set(title="Gain", xlabel="ranked highest (% of all)", ylabel="positives among them (% of positives)")
    right.set(title="Lift", xlabel="ranked highest (% of all)", ylabel="positives, times as many as at random")
    left.legend(loc="lower right")
    right.set_ylim(0.9)
    return figure


@styled
def importance(found: Sequence[Importance]) -> Figure:
    """How much worse the log loss gets when a feature, or all of a group together, are shuffled."""
    together = [one for one in found if len(one.features) > 1]
    alone = [one for one in found if len(one.features) == 1]
    shown = [*together, *alone]
    figure, (ax,) = subplots(1, 1, 0.9 + 0.24 * max(4, len(shown)))
    places = np.arange(len(shown)) + np.where(np.arange(len(shown)) < len(together), 0.0, 0.6)
    rises = np.array([one.log_loss_rise for one in shown])
    ranges = np.array([[one.log_loss_rise - one.log_loss_low, one.log_loss_high - one.log_loss_rise] for one in shown])
    colours = [ORANGE if len(one.features) > 1 else BLUE for one in shown]
    ax.barh(places, rises, 0.7, color=colours, alpha=0.85, xerr=ranges.T, error_kw={"ecolor": INK, "elinewidth": 0.8})
    names = [f"all of {one.name.removesuffix('_*')}" if len(one.features) > 1 else one.name for one in shown]
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set_xlim(left=min(0.0, 1.1 * float(rises.min())))
    ax.grid(visible=False, axis="y")
    ax.set(title="Permutation importance", xlabel="rise of the log loss when shuffled (nats; range of the repeats)")
    return figure


@styled
def skew(rows: Sequence[SkewRow]) -> Figure:
    """AUC and accuracy of each way to train and judge, with 95 % intervals over users."""
    figure, axes = subplots(1, 2, 1.1 + 0.42 * len(rows), sharey=True)
    places = np.arange(len(rows))
    for ax, name, title in zip(axes, ("auc", "accuracy"), ("AUC", "Accuracy"), strict=True):
        estimates: list[Estimate] = [getattr(row.metrics, name) for row in rows]
        values = np.array([one.value if one.value is not None else np.nan for one in estimates])
        ax.errorbar(values, places, xerr=_whiskers(estimates), fmt="o", capsize=3, color=BLUE)
        for value, place in zip(values, places, strict=True):
            ax.annotate(f"{value:.3f}", (value, place), (0, 7), textcoords="offset points", ha="center", fontsize=8)
        low = min((value for value in values.tolist() if not np.isnan(value)), default=1.0)
        ax.set(
            title=title, xlabel=f"{title if title == 'AUC' else 'accuracy'} (0 to 1)", xlim=(min(0.9, low - 0.12), 1.03)
        )
    axes[0].set_yticks(places, [f"trained on {row.trained_on},\njudged on {row.judged_on}" for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.6)
    return figure


@styled
def features(histograms: dict[str, Histogram]) -> Figure:
    """Draw each feature's distribution in the vectors as served, without the lowest and highest 2.5 %."""
    columns = 4
    rows = -(-len(histograms) // columns)
    figure, axes = subplots(rows, columns, 0.3 + 1.35 * rows)
    for ax in axes[len(histograms) :]:
        ax.set_visible(False)
    for (name, histogram), ax in zip(histograms.items(), axes, strict=False):
        if _is_discrete(histogram):
            counts = np.array(histogram.counts[1:-1])
            ax.bar(histogram.edges[:-1], counts / max(counts.max(), 1e-300), 0.7, color=BLUE, alpha=0.65)
        else:
            ax.stairs(*_even(histogram), fill=True, color=BLUE, alpha=0.65)
            ax.set_ylim(0)
        ax.set_title(name, fontsize=8, pad=3)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.tick_params(labelsize=7)
        ax.locator_params(axis="x", nbins=4)
        ax.grid(visible=False)
    figure.supylabel("vectors (each to its own scale)", fontsize=8)
    figure.supxlabel("value of the feature", fontsize=8)
    return figure


def of_card(card: ModelCard) -> dict[str, Callable[[], Figure]]:
    """Return the plot functions of a card, by name; plots for which the card has no data are left out."""
    found: dict[str, Callable[[], Figure]] = {
        "reliability": lambda: reliability(card.evaluation, card.prediction),
        "confusion": lambda: confusion(card.evaluation),
        "gain": lambda: gain(card.evaluation),
        "features": lambda: features(card.features),
    }
    if card.evaluation.by_events:
        found["early"] = lambda: early_detection(card.evaluation)
    if card.skew:
        found["skew"] = lambda: skew(card.skew)
    if card.importance:
        found["importance"] = lambda: importance(card.importance)
    return found


def _curve(ax: Axes, points: Sequence[EarlyPoint], name: str, colour: str) -> float:
    """Draw a curve with its band; return the least value."""
    estimates: list[Estimate] = [getattr(point.metrics, name) for point in points]
    known = [(point.at, one) for point, one in zip(points, estimates, strict=True) if one.value is not None]
    if not known:
        return 1.0
    at = [x for x, _ in known]
    values = np.array([[one.value, one.low, one.high] for _, one in known], np.float64)
    ax.plot(at, values[:, 0], marker="o", color=colour, label="AUC" if name == "auc" else name)
    ax.fill_between(at, values[:, 1], values[:, 2], color=colour, alpha=0.15, linewidth=0)
    return float(np.nanmin(values[:, 1]))


def _whiskers(estimates: Sequence[Estimate]) -> Floats:
    """Return the distances to the ends of the intervals, float64[2, n]."""
    rows = [(one.value, one.low, one.high) for one in estimates]
    value, low, high = np.array(rows, np.float64).reshape(-1, 3).T
    return np.nan_to_num(np.array([value - low, high - value]))


def _even(histogram: Histogram, cells: int = 40) -> tuple[Floats, Floats]:
    """Return shares in cells of equal width, and their edges, of the middle 95 %; within a bin rows lie evenly."""
    edges, counts = np.array(histogram.edges), np.array(histogram.counts[1:-1])
    below = np.append(0.0, np.cumsum(counts)) / max(counts.sum(), 1)
    low, high = np.interp([0.025, 0.975], below, edges)
    # A value that many rows share lies in a bin of hardly any width: the first cell begins before it.
    low = edges[np.searchsorted(edges, low, side="right") - 1] if low - edges[0] < 0.05 * (high - low) else low
    ends = np.linspace(low, high if high > low else low + 1, cells + 1)
    return np.diff(np.interp(ends, edges, below)), ends


def _is_discrete(histogram: Histogram) -> bool:
    """Tell whether every bin holds one whole number."""
    starts = histogram.edges[:-1]
    return len(starts) > 1 and all(low + 1 == high for low, high in itertools.pairwise(starts)) and starts[0] % 1 == 0


def _plain(ax: Axes, shares: Floats) -> None:
    """Label a logarithmic axis of percentages as a person reads them."""
    known = shares[shares > 0]
    least = 10.0 ** np.floor(np.log10(known.min())) if len(known) else 0.1
    ticks = [tick for tick in (0.001, 0.01, 0.1, 1.0, 10.0, 100.0) if tick >= least]
    ax.set_ylim(max(least, 0.0005), 150)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
