"""What docs/vocabulary.md shows can be written, and it shows all that can be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from modelstream.use_case.file import parse_use_case
from modelstream.use_case.vocabulary import FORMS, Statistic

PAGE = (Path(__file__).parents[2] / "docs" / "vocabulary.md").read_text("utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
BASE = """
version: 2
name: cards
key: card
time: at
type: kind
fields:
  card: key
  at: time
  kind: text
  payment_id: identifier
  amount: number
  merchant: identifier
  country: text
  terminal: identifier
  postcode: identifier
events: {payment: , issued: , refund: , purchase: }
profile: {event: issued, time: issued_at}
features: {}
predict_on: [payment]
model: {name: cards, prediction: is_fraud}
"""


def test_every_block_is_a_part_of_a_use_case(tmp_path: Path) -> None:
    (tmp_path / "merchants.csv").write_text("category,value\nm1,1\n")
    together = yaml.safe_load(BASE)
    for block in BLOCKS:
        part = yaml.safe_load(block)
        together["features"] |= part.pop("features", {})
        together |= part
    assert len(BLOCKS) == 7
    spend = together["features"]["spend"]
    use_case = parse_use_case(yaml.safe_dump(together, sort_keys=False), "the page", tmp_path)
    assert use_case.groups["spend"].names("spend")[:2] == ("spend_1h_sum", "spend_1h_mean")
    assert len(use_case.groups["spend"].names("spend")) == len(spend["in"]) * len(spend["give"]) == 6
    assert {"country_DE", "country_FR", "country_other", "risk", "strange"} <= {*use_case.features}


@pytest.mark.parametrize(
    "word",
    [
        *FORMS,
        *(statistic.value for statistic in Statistic),
        *("value", "where", "in", "give", "share", "at_most", "without", "otherwise", "before", "steps", "session"),
        *("is_not", "above", "below", "one_of", "table", "offset", "ahead", "late", "id", "needs"),
    ],
)
def test_every_word_is_on_the_page(word: str) -> None:
    assert re.search(rf"`[^`\n]*\b{word}\b[^`\n]*`", PAGE) or re.search(rf"\b{word}:", "".join(BLOCKS)), word
