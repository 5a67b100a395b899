"""What two use cases mean differently is said in words, and what has no meaning makes no difference."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from modelstream.errors import ConfigurationError
from modelstream.use_case.file import load_use_case, parse_use_case
from modelstream.use_case.meaning import changes, differences, digest, meaning_of, use_case_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "tests" / "use_cases" / "churn_version_1.yaml").read_text("utf-8")
CHURN = parse_use_case(TEXT)
CARDS = load_use_case(ROOT / "tests" / "use_cases" / "cards.yaml")
BOILERS = load_use_case(ROOT / "tests" / "use_cases" / "boilers.yaml")
KEY_TIME = "key: user_id\ntime: event_time\n"
PURCHASE, BET, WIN = (line for line in TEXT.splitlines() if line.strip().startswith(("purchase:", "bet:", "win:")))


def changed(*replaced: tuple[str, str]) -> str:
    """Return the text of the use case with some parts replaced, each of which must stand there."""
    text = TEXT
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        (("hours: 24", "hours: 48"), ["window: 24h before, 48h now"]),
        (("hours: 24", "hours: 0.5"), ["window: 24h before, 30m now"]),
        (("default: 0", "default: -1.5"), ["features.socioeconomic_idx.otherwise: 0 before, -1.5 now"]),
        (("predict_on: [bet, win]", "predict_on: [bet]"), ["predict_on: bet, win before, bet now"]),
        (
            ("[sum, mean, count, var]", "[sum, mean]"),
            [
                f"features.{name}.give: sum, mean, count, var before, sum, mean now"
                for name in ("purchase", "bet", "win")
            ],
        ),
        (
            ("[sum, mean, count, var]", "[mean, sum, count, var]"),
            [
                f"features.{name}.give: sum, mean, count, var before, mean, sum, count, var now"
                for name in ("purchase", "bet", "win")
            ],
        ),
        (("derived: []", "derived: [hour]"), ["derived: none before, hour now"]),
        (("positive: 1", "positive: 2"), ["label.positive: 1 before, 2 now"]),
        (
            ("positive: 1", "positive: 1\n  event: win\n  wait: 3"),
            ["label.event: none before, win now", "label.wait: none before, 3h now"],
        ),
        (("  city: text\n", "  city: identifier\n"), ["fields.city: text before, identifier now"]),
        (
            ("  city: text\n", "  city: {type: text, path: home.city}\n"),
            ["fields.city: text before, type text, path home.city now"],
        ),
        (
            ("event_time: time", "event_time: {type: time, epoch: ms}"),
            ["fields.event_time: time before, type time, epoch ms now"],
        ),
        (("  city: text\n", ""), ["fields.city: text before, none now"]),
        (("  city: text\n", "  city: text\n  town: text\n"), ["fields.town: none before, text now"]),
        (("  city: text\n  country: text\n", "  country: text\n  city: text\n"), None),
        (("[new_bet]", "[new_bet, stake]"), ["events.bet.aliases: new_bet before, new_bet, stake now"]),
        ((f"{PURCHASE}\n{BET}\n", f"{BET}\n{PURCHASE}\n"), None),
        (("threshold: 0.5", "threshold: 0.8"), ["model.threshold: 0.5 before, 0.8 now"]),
        (("about_to_churn\n", "leaves\n"), ["model.prediction: about_to_churn before, leaves now"]),
        (("time: registration_time", "time: joined_at"), ["profile.time: registration_time before, joined_at now"]),
    ],
    ids=str,
)
def test_change_of_meaning_is_said_and_changes_the_hash(replaced: tuple[str, str], said: list[str] | None) -> None:
    now = parse_use_case(changed(replaced))
    found = list(map(str, differences(CHURN, now)))
    assert found == said if said is not None else len(found) == 1, found
    assert digest(meaning_of(now)) != digest(meaning_of(CHURN))
    assert len(differences(now, CHURN)) == len(found)


@pytest.mark.parametrize(
    "replaced",
    [
        ("title: Churn on", "title: Leaving on"),
        ("name: churn\ntitle", "name: leaving\ntitle"),
        ("  name: churn\n", "  name: leaving\n"),
        ("# What the events are", "# Events"),
        ("description: >", "description: |"),
        (KEY_TIME, "".join(reversed(KEY_TIME.splitlines(keepends=True)))),
        ("hours: 24", "hours: 24.0"),
        ("default: 0\n", "\n"),
        ("statistics: [sum, mean, count, var]", ""),
        ("threshold: 0.5", ""),
        ("predict_on: [bet, win]", "predict_on: [win, bet]"),
        ("[new_purchase, new_purchases]", "[new_purchases, new_purchase]"),
    ],
    ids=str,
)
def test_what_has_no_meaning_makes_no_difference(replaced: tuple[str, str]) -> None:
    now = parse_use_case(changed(replaced))
    assert differences(CHURN, now) == []
    assert digest(meaning_of(now)) == digest(meaning_of(CHURN))


def test_the_place_of_events_without_a_value_makes_no_difference() -> None:
    registration = next(line for line in TEXT.splitlines() if line.startswith("  registration:"))
    moved = parse_use_case(changed((f"{registration}\n", ""), (f"{WIN}\n", f"{WIN}\n{registration}\n")))
    assert [*moved.events] != [*CHURN.events]
    assert differences(CHURN, moved) == []


def test_part_that_is_added_or_left_out_is_one_difference() -> None:
    lookup = TEXT[TEXT.index("lookup:\n") : TEXT.index("# Events count from")]
    without = parse_use_case(changed((lookup, "")))
    said = "features.socioeconomic_idx: look_up enrichment, by postcode, at profile, otherwise 0 before, none now"
    assert list(map(str, differences(CHURN, without))) == [said]


@pytest.mark.parametrize("use_case", [CHURN, BOILERS, CARDS], ids=["churn", "boilers", "cards"])
def test_stored_meaning_comes_back_as_a_use_case_that_means_the_same(use_case: object) -> None:
    assert isinstance(use_case, type(CHURN))
    stored = msgspec.json.decode(msgspec.json.encode(meaning_of(use_case)))
    assert differences(use_case_of(stored), use_case) == []
    assert digest(stored) == digest(meaning_of(use_case))
    assert differences(CHURN, BOILERS)
    assert "values" not in meaning_of(CARDS)["features"]["merchant_risk"], "a table may be large: its hash is enough"


def test_meaning_stored_before_version_2_is_the_same_as_today() -> None:
    stored = (ROOT / "tests" / "use_cases" / "churn_meaning_of_version_1.json").read_bytes()
    old = use_case_of(msgspec.json.decode(stored))
    assert differences(old, CHURN) == []
    assert digest(msgspec.json.decode(stored)) == digest(meaning_of(CHURN))
    assert digest(meaning_of(old)) == digest(meaning_of(CHURN))


def test_stored_meaning_of_another_version_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"another version of modelstream.*unheard") as told:
        use_case_of({**meaning_of(CHURN), "unheard_of": 1})
    assert told.value.remedy == "update modelstream"
    for unheard in ({"x": {"unheard": 1}}, {"x": 3}, [3], {"x": {"of": "a", "in": [{"unheard": "1h"}]}}):
        with pytest.raises(ConfigurationError, match="another version of modelstream"):
            use_case_of({**meaning_of(CARDS), "features": unheard})


def test_difference_says_where_it_stands() -> None:
    now = parse_use_case(changed(("hours: 24", "hours: 48")))
    assert [one.place for one in differences(CHURN, now)] == [("window", "for")]
    assert [one.place for one in changes({"a": {"b": 1}}, {"a": {"c": 1}})] == [("a", "c"), ("a", "b")]


def test_what_the_model_card_says_of_the_models_use_has_no_meaning_for_data() -> None:
    model = msgspec.structs.replace(CHURN.model, intended_use=("Another one.",), limits=())
    now = msgspec.structs.replace(CHURN, model=model)
    assert differences(CHURN, now) == []
    assert meaning_of(CHURN) == meaning_of(now)
