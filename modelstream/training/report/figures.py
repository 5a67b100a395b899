"""How plots look, and how they become pictures: SVG that follows the page's colours, or PNG."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

from modelstream.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.2
"""Inches; on a page 860 px wide, 9 pt of text are 13 px."""
PLOTS_A_ROW = 4
"""Small plots beside each other."""

INK, MUTED, GRID = "#1c1e22", "#5b6068", "#d7dade"
SERIES = ("#2460c4", "#bd5408", "#187a49", "#7746c2")
BLUE, ORANGE, GREEN, VIOLET = SERIES

VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"}
VARIABLES |= {colour: f"--series-{i}" for i, colour in enumerate(SERIES, 1)}
"""The CSS variable that stands for each colour in SVG."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": None,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlepad": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "modelstream",
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}

P = ParamSpec("P")


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function's plot in this style. Raises ConfigurationError where matplotlib is missing."""

    @functools.wraps(plot)
    def made(*args: P.args, **kwargs: P.kwargs) -> Figure:
        matplotlib = _matplotlib()
        with matplotlib.rc_context(_style()):
            return plot(*args, **kwargs)

    return made


def subplots(rows: int = 1, columns: int = 1, height: float = 3.4, **options: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure of the page's width and `height` inches, and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def small(ax: Axes, title: str) -> None:
    """Make one of many plots on a page small."""
    ax.set_title(title, fontsize=8, pad=3)
    ax.tick_params(labelsize=7)
    ax.grid(visible=False, axis="x")


def svg(figure: Figure, title: str) -> str:
    """Return an SVG element to stand in HTML: colours are CSS variables, text is drawn, `title` is for screen readers.

    The same figure gives the same text.
    """
    matplotlib = _matplotlib()
    file = io.BytesIO()
    with matplotlib.rc_context(_style()):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Hundredths of a point take a third less room; the scale of letters is finer.
    text = re.sub(r"scale\([^)]*\)|(\d+\.\d\d)\d+", lambda found: found[1] or found[0], text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    begin = f'<svg role="img" aria-label="{label}" viewBox'  # without width and height
    return re.sub(r"<svg [^>]*?viewBox", lambda _: begin, text, count=1, flags=re.DOTALL).strip()


def png(figure: Figure, dots_per_inch: int = 110) -> bytes:
    """Return a PNG picture on white, for a notebook: `IPython.display.Image(png(figure))`."""
    matplotlib = _matplotlib()
    file = io.BytesIO()
    with matplotlib.rc_context(_style()):
        figure.savefig(file, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return file.getvalue()


def _style() -> dict[str, Any]:
    from cycler import cycler

    return STYLE | {"axes.prop_cycle": cycler(color=SERIES)}


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"plots need matplotlib: {error}", remedy="pip install matplotlib") from None
    return matplotlib
