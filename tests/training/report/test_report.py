"""Card and report: everything in one file, readable, from the card alone."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from modelstream.errors import ConfigurationError
from modelstream.training.judge.evaluation import evaluate, skew_row
from modelstream.training.report import plots, plots_data, report
from modelstream.training.report.card import ModelCard, library_versions, read_card
from modelstream.training.report.card_text import card_files, markdown
from modelstream.training.report.document import SIZE_LIMIT, Block, Document, Facts, Plot, Points, Section, Table
from modelstream.training.report.figures import VARIABLES, png, svg
from tests.training.synthetic import USE_CASE, card, examples, write_card

VOID = {"meta", "br", "hr", "link", "img", "input"}


@pytest.fixture(scope="module")
def made() -> ModelCard:
    return card()


@pytest.fixture(scope="module")
def page(made: ModelCard) -> str:
    return report.html(made)


class Checker(HTMLParser):
    """Notes tags that aren't closed, and what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action") or (
                name.endswith("href") and not (value or "").startswith("#")
            ):
                self.loads.append(f"{tag} {name}={value}")
            if name.endswith("href"):
                self.links.add((value or "")[1:])
            if name == "id":
                self.ids.add(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_a_card_is_read_as_it_was_written(made: ModelCard, tmp_path: Path) -> None:
    write_card(made, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "card.json"]
    assert read_card(tmp_path) == made


def test_the_same_card_gives_the_same_files(made: ModelCard, page: str) -> None:
    assert card_files(made) == card_files(card())
    assert report.html(card()) == page


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "truncated"),
        (b'{"format": 2}', "format 2"),
        (b'{"format": 1}', "missing required field"),
        (b"\x80\x04\x95", "malformed"),
        (b"[" * 100_000, "."),
    ],
)
def test_a_broken_card_is_an_error_with_a_remedy(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=problem) as error:
        read_card(tmp_path)
    assert "card.json" in str(error.value) and error.value.remedy


def test_a_model_without_a_card_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file") as error:
        read_card(tmp_path)
    assert "pipeline.py train" in error.value.remedy


def test_the_readme_tells_what_the_card_holds(made: ModelCard) -> None:
    text = markdown(made)
    for part in (
        "0.5",
        "made up",
        "`" + "0" * 64 + "`",
        "It is better.",
        "one | 0.1000",
        "| one | `depth=3` |",
        "Nothing | else.",
    ):
        assert part in text
    assert str(made.evaluation.metrics.ece) in text
    for name in USE_CASE.features:
        assert f"| {name} |" in text
    tables = [block.strip().split("\n") for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 8
    for lines in tables:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(columns) == 1, lines


def test_the_page_is_whole_and_loads_nothing(page: str) -> None:
    found = checked(page)
    assert found.loads == []
    assert found.links <= found.ids
    assert not re.search(r"url\((?!#)|@import|<script", page)
    # Names of XML, which nobody fetches, are all that looks like an address.
    assert set(re.findall(r"https?://[^\"'\s<]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(page.encode()) < SIZE_LIMIT
    assert "default-src 'none'" in page


def test_the_page_has_every_plot_and_escapes_text(made: ModelCard, page: str) -> None:
    assert page.count("<svg") == len(plots.of_card(made)) == 7
    assert "<b>" not in page and "&lt;b&gt;" in page


def test_colours_follow_the_page(page: str) -> None:
    body = page[page.index("<body") :]
    used = [variable for colour, variable in VARIABLES.items() if f"var({variable}, {colour})" in body]
    assert len(used) >= 6
    for colour, variable in VARIABLES.items():
        assert colour not in body.replace(f"var({variable}, {colour})", "")
        assert page.count(f"{variable}:") == 2  # light and dark


def test_every_plot_says_what_it_shows(made: ModelCard) -> None:
    sample, _ = examples()
    more = [plots_data.class_balance(sample), plots_data.features_by_class(sample, USE_CASE)]
    more.append(plots_data.correlations(sample, USE_CASE))
    for figure in [*(make() for make in plots.of_card(made).values()), *more]:
        shown = [ax for ax in figure.axes if ax.get_visible()]
        titles = [ax.get_title("left") for ax in shown]
        assert any(titles)
        labels = [*(ax.get_xlabel() for ax in shown), figure.get_supxlabel()]
        # The matrices have names at their axes instead.
        assert any(labels) or [text.get_text() for text in shown[0].get_xticklabels()]
        assert png(figure).startswith(b"\x89PNG")


def test_letters_keep_their_scale(made: ModelCard) -> None:
    """Rounding the scale of letters from 0.0156 to 0.01 made them unreadable once."""
    scales = set(re.findall(r"scale\(([0-9.]+)", svg(plots.confusion(made.evaluation), "a")))
    assert "0.015625" in scales


def test_a_card_with_little_in_it_still_makes_a_page(made: ModelCard) -> None:
    evaluation = msgspec.structs.replace(made.evaluation, by_events=[], by_hours=[], gains=[], segments=[])
    bare = msgspec.structs.replace(
        made, evaluation=evaluation, skew=[], importance=[], candidates=[], intended_use=[], limits=[], libraries={}
    )
    found = report.html(bare)
    checked(found)
    assert "How early" not in found
    assert "How early" not in markdown(bare)


def test_users_of_one_class_still_make_a_page(made: ModelCard) -> None:
    sample, probabilities = examples()
    sample = dataclasses.replace(sample, labels=np.zeros_like(sample.labels))
    evaluation = evaluate(sample, probabilities, threshold=0.5, use_case=USE_CASE, seed=1)
    row = skew_row("a", "b", sample, probabilities, threshold=0.5, seed=1)
    found = msgspec.structs.replace(made, evaluation=evaluation, skew=[row])
    checked(report.html(found))
    assert evaluation.metrics.auc.value is None and "| a | b | – |" in markdown(found)


def test_further_plots_stand_in_the_report(made: ModelCard) -> None:
    sample, _ = examples()
    found = report.html(made, {"Classes & co": plots_data.class_balance(sample)})
    assert found.count("<svg") == 8
    assert "Classes &amp; co" in found


def test_blocks_of_a_document() -> None:
    blocks: list[Block] = ["text with `code` & <", Points(["a"]), Facts([("b", "1", "c")]), Plot("missing", "d")]
    blocks.append(Table(["", ""], [["e", "f"]], folded="More"))
    document = Document("T", [], [Section("S", blocks), Section("Empty", [])])
    found = document.html({})
    checked(found)
    assert "<code>code</code> &amp; &lt;" in found
    assert "<figure>" not in found and "<thead>" not in found and "Empty" not in found
    assert "<summary>More</summary>" in found
    assert "- b: **1** (c)" in document.markdown() and "## Empty" not in document.markdown()


def test_versions_of_libraries_are_those_installed() -> None:
    import numpy

    assert library_versions(["numpy", "no-such-library"]) == {"numpy": numpy.__version__}


@pytest.mark.parametrize(
    ("simulated", "said"),
    [(False, "don't move the end of the log, and bring no label"), (True, "the times are taken as simulated")],
)
def test_events_of_the_future_and_the_end_of_the_log_are_told(made: ModelCard, simulated: bool, said: str) -> None:
    assert "events of the future" not in markdown(made)
    facts = {"future_events": 1, "simulated": simulated, "log_end": "2026-01-02T00:00:00Z"}
    told = markdown(msgspec.structs.replace(made, data=msgspec.structs.replace(made.data, **facts)))
    assert "1 event is dated later than it arrived" in told and said in told
    assert "outcomes known until" in told and "2026-01-02 00:00:00 UTC" in told
