"""Charts as SVG texts: bars, and lines over two axes.

They carry a background of their own and follow the reader's choice of light or dark, so they can be read on either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
STYLE = """\
text{font:13px -apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-weight:600;font-size:15px}.quiet{fill:#59636e}.end{text-anchor:end}.middle{text-anchor:middle}
.back{fill:#fff;stroke:#d1d9e0}.grid{stroke:#d1d9e0}.limit{stroke:#cf222e;stroke-dasharray:5 4}.said{fill:#cf222e}
.f0{fill:#0969da}.f1{fill:#bc4c00}.f2{fill:#1a7f37}.f3{fill:#8250df}.f4{fill:#9a6700}.other{fill:#8c959f}
.s0{stroke:#0969da}.s1{stroke:#bc4c00}.s2{stroke:#1a7f37}.s3{stroke:#8250df}.s4{stroke:#9a6700}
polyline{fill:none;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.quiet{fill:#9198a1}.back{fill:#0d1117;stroke:#3d444d}
.grid{stroke:#3d444d}.limit{stroke:#f85149}.said{fill:#f85149}
.f0{fill:#4493f8}.f1{fill:#db6d28}.f2{fill:#3fb950}.f3{fill:#ab7df8}.f4{fill:#d29922}.other{fill:#656c76}
.s0{stroke:#4493f8}.s1{stroke:#db6d28}.s2{stroke:#3fb950}.s3{stroke:#ab7df8}.s4{stroke:#d29922}}
"""
COLOURS = 5
MARKED = 20
"""Lines of more points have no mark at each."""

Point = tuple[float, float]


def text(x: float, y: float, said: str, kind: str = "") -> str:
    """Return a text at a place; `kind` is a list of classes."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{_class(kind)}>{escape(said)}</text>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def picture(title: str, height: float, parts: Sequence[str]) -> str:
    """Return the whole text of a chart."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
    )
    back = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="6" class="back"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", back, text(20, 30, title, "title"), *parts, "</svg>", ""])


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart."""

    label: str
    value: float
    said: str
    """What stands at its end."""
    ours: bool = True
    """Whether it is the pipeline's own, not one that is compared with it."""


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Return a chart of horizontal bars that begin at zero.

    >>> bars("Speed", [Bar("pipeline", 3, "3/s")]).count("<rect")
    2
    """
    left, right, step = 240, 120, 30
    most = max((row.value for row in rows if math.isfinite(row.value)), default=0) or 1
    parts = []
    for number, row in enumerate(rows):
        top = 50 + number * step
        length = (WIDTH - left - right) * (row.value / most if math.isfinite(row.value) else 0)
        parts += [
            text(left - 10, top + 15, row.label, "end"),
            f'<rect x="{left}" y="{top}" width="{max(length, 1):.1f}" height="20" rx="3" '
            f'class="{"f0" if row.ours else "other"}"/>',
            text(left + length + 8, top + 15, row.said, "quiet"),
        ]
    return picture(title, 50 + step * len(rows) + 12, parts)


@dataclass(frozen=True)
class Axis:
    """What an axis counts, and how."""

    label: str
    logarithmic: bool = True
    form: Callable[[float], str] = "{:,g}".format

    def ticks(self, values: Sequence[float]) -> list[float]:
        """Return where marks stand: from one at or below all values to one at or above them.

        >>> Axis("x").ticks([30, 4000])
        [10.0, 100.0, 1000.0, 10000.0]
        >>> Axis("x", logarithmic=False).ticks([3, 47])
        [0, 10, 20, 30, 40, 50]
        """
        if self.logarithmic:
            low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
            if high - low < 2:  # within little more than a power of ten: marks at 1, 2 and 5
                every = [part * 10.0**power for power in range(low, high + 1) for part in (1, 2, 5)]
                first = max((one for one in every if one <= min(values)), default=every[0])
                last = min((one for one in every if one >= max(values)), default=every[-1])
                begin, end = every.index(first), every.index(last)
                return every[begin : max(end, begin + 1) + 1]
            return [10.0**power for power in range(low, high + 1)]
        most = max(max(values), 1e-9)
        size = 10 ** math.floor(math.log10(most))
        step = next(part * size for part in (0.1, 0.2, 0.5, 1, 2) if most / (part * size) <= 6)
        step = int(step) if step >= 1 else step
        return [step * number for number in range(math.ceil(most / step) + 1)]

    def place(self, value: float, ticks: Sequence[float]) -> float:
        """Return where a value stands between the first mark, 0, and the last, 1."""
        first, last = ticks[0], ticks[-1]
        if self.logarithmic:
            return math.log(value / first) / math.log(last / first)
        return (value - first) / (last - first)


def lines(
    title: str,
    x: Axis,
    y: Axis,
    series: Mapping[str, Sequence[Point]],
    *,
    limit: tuple[float, str] | None = None,
) -> str:
    """Return a chart of lines, one for each name; `limit` is a value of y with a line and a text of its own.

    >>> lines("Delay", Axis("events/s"), Axis("ms"), {"p99": [(100, 5), (1000, 50)]}).count("<polyline")
    1
    """
    shown = {name: [(a, b) for a, b in each if math.isfinite(a) and math.isfinite(b)] for name, each in series.items()}
    found = [point for each in shown.values() for point in each]
    if not found:
        return picture(title, 90, [text(20, 60, "nothing was measured", "quiet")])
    across, up = x.ticks([a for a, _ in found]), y.ticks([b for _, b in found] + ([limit[0]] if limit else []))
    left, right, top, bottom = 70, WIDTH - 30, 80, 340

    def at(point: Point) -> Point:
        return (
            left + (right - left) * x.place(point[0], across),
            bottom - (bottom - top) * y.place(point[1], up),
        )

    parts = [text(left, 54, y.label, "quiet"), text(right, bottom + 42, x.label, "quiet end")]
    for value in up:
        height = at((across[0], value))[1]
        parts += [_line(left, height, right, height, "grid"), text(left - 8, height + 4, y.form(value), "quiet end")]
    for value in across:
        parts.append(text(at((value, up[0]))[0], bottom + 20, x.form(value), "quiet middle"))
    if limit:
        height = at((across[0], limit[0]))[1]
        parts += [_line(left, height, right, height, "limit"), text(left + 6, height - 6, limit[1], "said")]
    column = right - sum(map(_wide, shown))
    for number, (name, points) in enumerate(shown.items()):
        parts += _series(name, [at(point) for point in sorted(points)], number, column)
        column += _wide(name)
    return picture(title, bottom + 60, parts)


def _wide(name: str) -> float:
    """Return about how wide a name of the legend is, with its mark and a gap."""
    return 40 + 7 * len(name)


def _series(name: str, places: Sequence[Point], number: int, column: float) -> list[str]:
    colour = number % COLOURS
    joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    marked = places if len(places) <= MARKED else []
    return [
        f'<polyline points="{joined}" class="s{colour}"/>',
        *(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" class="f{colour}"/>' for a, b in marked),
        f'<rect x="{column:.0f}" y="44" width="12" height="12" rx="2" class="f{colour}"/>',
        text(column + 18, 55, name),
    ]
