"""The plot of drift: served vectors against training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelstream.training.drift.drift import Distance
from modelstream.training.report.document import number
from modelstream.training.report.figures import BLUE, MUTED, PLOTS_A_ROW, small, styled, subplots
from modelstream.training.snapshot.histograms import Histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def bins_then_and_now(distances: Sequence[Distance], histograms: Mapping[str, Histogram]) -> Figure:
    """Draw the share of the vectors in each bin of the card, then and now."""
    columns = min(PLOTS_A_ROW, len(distances))
    rows = -(-len(distances) // columns)
    figure, axes = subplots(rows, columns, 0.5 + (1.5 if columns > 1 else 2.2) * rows)
    for ax in axes[len(distances) :]:
        ax.set_visible(False)
    for one, ax in zip(distances, axes, strict=False):
        edges = histograms[one.name].edges
        bins = np.arange(len(one.now) + 1)
        ax.stairs(np.array(one.now) * 100, bins, fill=True, color=BLUE, alpha=0.55, label="served")
        ax.stairs(np.array(one.then) * 100, bins, color=MUTED, linewidth=1.3, label="made of")
        small(ax, f"{one.name}: {one.value:.2f}")
        # The edge between bins i and i + 1 lies at i + 1.
        places = sorted({0, (len(edges) - 1) // 2, len(edges) - 1})
        ax.set_xticks([place + 1 for place in places], [number(edges[place], 3) for place in places])
        ax.set_ylim(0)
        ax.locator_params(axis="y", nbins=4)
    axes[0].legend(fontsize=7)
    figure.supylabel("vectors (%)", fontsize=8)
    figure.supxlabel("value, in bins of the card", fontsize=8)
    return figure
