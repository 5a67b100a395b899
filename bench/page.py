"""Writes results into docs/performance.md: each benchmark has a section between two markers."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def write_page(name: str, section: str) -> None:
    """Put a section between its markers."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, rest = PAGE.read_text(encoding="utf-8").split(start)
    _, after = rest.split(end)
    PAGE.write_text(f"{before}{start}\n{section}\n{end}{after}", encoding="utf-8")
