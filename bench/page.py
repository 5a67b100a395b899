"""Writes results into docs/performance.md: each section between two markers, its charts as files beside the page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Section:
    """What a section puts into docs/performance.md: its text, and its charts by name."""

    text: str
    charts: dict[str, str] = field(default_factory=dict)


def written(page: str, name: str, section: Section) -> str:
    """Return the text of a page with a section between its markers: its text, then its charts.

    >>> print(written("<!-- a:start -->old<!-- a:end -->", "a", Section("new", {"a": "<svg/>"})))
    <!-- a:start -->
    new
    <BLANKLINE>
    ![a](charts/a.svg)
    <!-- a:end -->
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, rest = page.split(start)
    _, after = rest.split(end)
    pictures = [f"![{_title(svg) or chart}](charts/{chart}.svg)" for chart, svg in section.charts.items()]
    return f"{before}{start}\n" + "\n\n".join([section.text, *pictures]) + f"\n{end}{after}"


def write(name: str, section: Section, page: Path = PAGE) -> None:
    """Put a section and its charts in their places."""
    folder = page.parent / "charts"
    folder.mkdir(exist_ok=True)
    for chart, svg in section.charts.items():
        (folder / f"{chart}.svg").write_text(svg, encoding="utf-8")
    page.write_text(written(page.read_text(encoding="utf-8"), name, section), encoding="utf-8")


def _title(svg: str) -> str:
    found = re.search(r'aria-label="([^"]*)"', svg)
    return found[1] if found else ""
