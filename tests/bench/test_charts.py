"""Charts are well-formed SVG, with what they show in their place."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.charts import WIDTH, Axis, Bar, bars, lines

SVG = "{http://www.w3.org/2000/svg}"
POSITIVE = st.floats(1e-3, 1e7)


def numbers(svg: str, tag: str, name: str) -> list[float]:
    return [float(each.attrib[name]) for each in ET.fromstring(svg).iter(SVG + tag)]


@given(st.lists(POSITIVE, min_size=1, max_size=8))
def test_bars_are_as_long_as_their_values(values: list[float]) -> None:
    svg = bars("Speed", [Bar(f"number {n}", value, f"{value:g}/s") for n, value in enumerate(values)])
    lengths = numbers(svg, "rect", "width")[1:]  # the first is the background
    longest = max(lengths)
    assert lengths == pytest.approx([max(longest * value / max(values), 1) for value in values], abs=0.2)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=10), st.booleans(), st.booleans())
def test_all_points_lie_within_the_axes(points: list[tuple[float, float]], across: bool, up: bool) -> None:
    svg = lines("Delay", Axis("rate", across), Axis("ms", up), {"p99": points}, limit=(100, "limit"))
    xs, ys = numbers(svg, "circle", "cx"), numbers(svg, "circle", "cy")
    assert len(xs) == len(points)
    assert all(70 - 0.1 <= x <= WIDTH - 30 + 0.1 for x in xs)
    assert all(80 - 0.1 <= y <= 340 + 0.1 for y in ys)


@example([200_000.0], True)
@given(st.lists(POSITIVE, min_size=1, max_size=10), st.booleans())
def test_ticks_rise_and_hold_all_values(values: list[float], logarithmic: bool) -> None:
    ticks = Axis("x", logarithmic).ticks(values)
    assert 2 <= len(ticks) <= 16
    assert ticks == sorted(set(ticks))
    assert ticks[-1] >= max(values) * (1 - 1e-9)
    assert ticks[0] <= min(values) * (1 + 1e-9)


def test_a_line_without_points_says_so_and_infinite_ones_are_left_out() -> None:
    assert "nothing was measured" in lines("Delay", Axis("x"), Axis("y"), {"a": [(1, math.inf)]})
    assert lines("Delay", Axis("x"), Axis("y"), {"a": [(1, math.inf), (1, 2), (10, 3)]}).count("<circle") == 2


def test_names_are_escaped_and_both_themes_are_there() -> None:
    svg = bars("A & B", [Bar("<a>", 1, "1")])
    assert ET.fromstring(svg).attrib["aria-label"] == "A & B"
    assert "&lt;a&gt;" in svg
    assert "prefers-color-scheme:dark" in svg
