"""Results go between the markers of their section; everything else on the page stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.page import PAGE, Section, write

TEXT = "# Page\n<!-- a:start -->\nold\n<!-- a:end -->\nbetween\n<!-- b:start -->\nkept\n<!-- b:end -->\nend\n"
SVG = '<svg aria-label="Speed of all"/>'


def test_a_section_replaces_what_it_wrote_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TEXT)
    write("a", Section("| table |", {"speed": SVG}), page)
    first = page.read_text()
    write("a", Section("| table |", {"speed": SVG}), page)
    assert page.read_text() == first
    assert first == TEXT.replace("old", "| table |\n\n![Speed of all](charts/speed.svg)")
    assert (tmp_path / "charts" / "speed.svg").read_text() == SVG


def test_a_page_without_the_markers_is_refused_and_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TEXT)
    with pytest.raises(ValueError, match="unpack"):
        write("c", Section("new"), page)
    assert page.read_text() == TEXT


@pytest.mark.parametrize("name", ["bulk", "live", "http", "overload", "users", "messages", "kafka", "backends"])
def test_the_page_has_a_place_for_every_section(name: str) -> None:
    text = PAGE.read_text("utf-8")
    assert text.count(f"<!-- {name}:start -->") == 1
    assert text.index(f"<!-- {name}:start -->") < text.index(f"<!-- {name}:end -->")
