"""A use-case file of version 2 says what it means, and a mistake in one is told with its line and a remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelstream.base.yamlfile import YamlFile
from modelstream.errors import ConfigurationError
from modelstream.use_case import check, check_features, check_version_1, version_1, version_2
from modelstream.use_case.file import load_use_case, mistakes, parse_use_case
from modelstream.use_case.meaning import differences, digest, meaning_of
from modelstream.use_case.vocabulary import AllTime, Condition, From, Group, Recent, Session, Sliding, Statistic

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "use_cases"
TEXT = (FOLDER / "cards.yaml").read_text("utf-8")
CARDS = load_use_case(FOLDER / "cards.yaml")


def parsed(*replaced: tuple[str, str]) -> object:
    text = TEXT
    for right, wrong in replaced:
        assert text.count(right) >= 1, right
        text = text.replace(right, wrong, 1)
    return parse_use_case(text, "mine.yaml", FOLDER)


def test_features_are_named_in_the_order_of_the_file() -> None:
    statistics = ("sum", "mean", "count", "var", "std", "min", "max", "first", "last", "rate")
    assert CARDS.features == (
        *("income", "terminal_risk", "amount", "online", "hour", "weekday"),
        *("category_food", "category_travel", "category_other", "merchant_risk"),
        *(f"spend_1h_{name}" for name in statistics),
        "spend_since",
        *(f"spend_24h_{name}" for name in statistics),
        *(f"spend_{name}" for name in statistics),
        *("abroad_session_30m_count", "abroad_session_30m_since_open"),
        *("merchants_distinct", "merchants_unseen", "merchants_24h_distinct", "merchants_24h_unseen"),
        *("latest_last_1", "latest_last_2", "latest_last_3", "latest_share", "latest_since_open"),
        *("against_usual", "strange"),
    )


def test_groups_are_what_the_file_says() -> None:
    spend, abroad, latest = (CARDS.groups[name] for name in ("spend", "abroad", "latest"))
    assert spend.windows == (Sliding("1h", 12), Sliding("24h", 24), AllTime())
    assert (spend.of, spend.value, spend.without, spend.give[0]) == (("payment",), "amount", "this", Statistic.SUM)
    assert abroad.where == {"country": Condition(is_not="DE"), "amount": Condition(above=1.5)}
    assert abroad.windows == (Session("30m"),)
    assert latest.windows == (From("payment", "7d", before=False),)
    assert latest.give == (Recent(3), Statistic.SHARE, Statistic.SINCE_OPEN)
    assert latest.share == {"category": Condition(is_="travel")}
    assert (latest.otherwise, CARDS.groups["merchants"].at_most, spend.at_most) == (-1.0, 8, 64)
    assert (CARDS.clock.ahead_microseconds, CARDS.clock.late_microseconds) == (600_000_000, 30 * 86_400_000_000)
    assert CARDS.label and CARDS.label.wait_microseconds == 60 * 86_400_000_000


def test_what_is_looked_up_with_an_event_is_a_column_of_the_events_and_their_log() -> None:
    assert list(CARDS.profile_lookups) == ["income"] and list(CARDS.event_lookups) == ["terminal_risk"]
    for schema in (CARDS.event_schema, CARDS.events_log_schema):
        assert "terminal_risk" in schema.names and "income" not in schema.names
    assert "income" in CARDS.row_schema.names and "terminal_risk" not in CARDS.row_schema.names


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("of: payment\n    value: amount\n    in: [{last", "of: [payment]\n    value: amount\n    in: [{last"),
        ("{session: 30m}", "[{session: 30m}]"),
        ("{category: travel}", "{category: {is: travel}}"),
        ("in: [all time, {last: 24h, steps: 24}]", "in: [all time, {steps: 24, last: 24h}]"),
        ("ahead: 10m", "ahead: 600s"),
        ("for: 7d", "for: 168h"),
        ("wait: 60d", "wait: 1440h"),
        ("of: [payment, refund]", "of: [refund, payment]"),
        ("{country: {is_not: DE}, amount: {above: 1.5}}", "{amount: {above: 1.5}, country: {is_not: DE}}"),
        ("needs: [amount, merchant]", "needs: [merchant, amount]"),
        ("compute: amount / spend_mean", "compute: (amount/spend_mean)"),
        ("kind: text", "kind:  text"),
        (", otherwise: 0.1}", ", otherwise: 1.0e-1}"),
        ("  issued: {}\n  chargeback: {}\n", "  chargeback:\n  issued:\n"),
        ("before: false}", "before: no}"),
    ],
)
def test_what_can_be_written_in_two_ways_means_the_same(long: str, short: str) -> None:
    other = parsed((long, short))
    assert differences(CARDS, other) == []  # type: ignore[arg-type]
    assert digest(meaning_of(CARDS)) == digest(meaning_of(other))  # type: ignore[arg-type]


def test_the_order_of_values_in_a_condition_has_no_meaning() -> None:
    one, other = (parsed(("{is_not: DE}", f"{{in: [{text}]}}")) for text in ("DE, FR", "FR, DE"))
    assert digest(meaning_of(one)) == digest(meaning_of(other))  # type: ignore[arg-type]
    assert digest(meaning_of(one)) != digest(meaning_of(CARDS))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("ahead: 10m, ", "", "time.ahead: 10m before, 24h now"),
        ("ahead: 10m, ", "ahead: unlimited, ", "time.ahead: 10m before, unlimited now"),
        (", late: 30d", "", "time.late: 30d before, unlimited now"),
        ("{last: 1h, steps: 12}", "{last: 1h, steps: 6}", "features.spend.in: last 1h, steps 12, last 24h"),
        ("payment_id\n\n", "merchant\n\n", "id: payment_id before, merchant now"),
        ("at_most: 8", "at_most: 9", "features.merchants.at_most: 8 before, 9 now"),
        ("without: this\n", "\n", "features.spend.without: this before, none now"),
        ("/ spend_mean", "- spend_mean", "features.against_usual.compute: amount / spend_mean before"),
        ("wait: 60d", "wait: 61d", "label.wait: 60d before, 61d now"),
    ],
)
def test_a_change_is_said_where_it_stands(right: str, wrong: str, said: str) -> None:
    found = [*map(str, differences(CARDS, parsed((right, wrong))))]  # type: ignore[arg-type]
    assert len(found) == 1 and found[0].startswith(said), found


def test_a_table_of_categories_is_part_of_the_meaning(tmp_path: Path) -> None:
    for name in ("cards.yaml", "merchants.csv"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    same = load_use_case(tmp_path / "cards.yaml")
    assert differences(CARDS, same) == [] and digest(meaning_of(same)) == digest(meaning_of(CARDS))
    (tmp_path / "merchants.csv").write_text("category,value\nm1,0.5\n")
    (told,) = differences(CARDS, load_use_case(tmp_path / "cards.yaml"))
    assert str(told).startswith("features.merchant_risk.table: 2 rows with the hash ")


MISTAKES = {
    "not a feature": (
        "amount: {number: amount}",
        "amount: 3",
        "features.amount: 3 is not a feature",
        "{number: FIELD}",
    ),
    "nothing tells what it is": (
        *("amount: {number: amount}", "amount: {field: amount}"),
        *("features.amount: nothing says what kind of feature", "just one of: of, look_up, number"),
    ),
    "two things": (
        *("amount: {number: amount}", "amount: {number: amount, hour: at}"),
        *("features.amount: number and hour are there", "just one"),
    ),
    "misspelt": ("without: this", "witout: this", "features.spend.witout: unknown name", "'without'"),
    "field that is not there": ("{number: amount}", "{number: amout}", "features.amount.number: no field", "'amount'"),
    "number of text": ("{number: amount}", "{number: country}", "'country' is of type text", "number or integer"),
    "hour of a number": ("{hour: at,", "{hour: amount,", "features.hour.hour: 'amount' is of type number", "time"),
    "offset": ('"+01:00"', '"1"', "features.hour.offset: '1' is not an offset from UTC", '"+01:00"'),
    "unknown event": ("of: payment\n", "of: paymnt\n", "features.spend.of: no event 'paymnt'", "'payment'"),
    "alias": (
        "of: payment\n",
        "of: purchase\n",
        "spend.of: 'purchase' is another name of the event 'pay",
        "write payment",
    ),
    "alias in a condition": (
        "country: {is_not: DE}",
        "kind: purchase",
        "where.kind: 'purchase' is another name",
        "write",
    ),
    "unknown statistic": ("give: [sum,", "give: [summ,", "features.spend.give.0: 'summ' is unknown", "'sum'"),
    "last values twice": ("[{last: 3}, share,", "[{last: 3}, {last: 2}, share,", "listed twice", "the longer"),
    "YAML's on": ("give: [distinct,", "give: [on,", "features.merchants.give.0: expected str, got bool", "in quotes"),
    "no values": ("{last: 3}", "{last: 0}", "features.latest.give.0: 0 is not in 1 to 64", "number"),
    "sum of integers": (
        *("value: amount\n    in: [{last", "value: online\n    in: [{last"),
        *("features.spend.give.0: sum needs a number, but 'online' is of type boolean", "declare online as number"),
    ),
    "statistic twice": ("give: [sum,", "give: [mean,", "features.spend.give: 'mean' is listed twice", "keep one"),
    "no statistic": ("give: [count, since_open]", "give: []", "features.abroad.give: it gives no statistic", "list"),
    "sum of text": (
        "give: [distinct,",
        "give: [sum,",
        "sum needs a number, but 'merchant' is of type identifier",
        "value",
    ),
    "sum of nothing": ("give: [count, since_open]", "give: [sum]", "sum needs a number, but the group has no", "value"),
    "distinct of nothing": (
        *("give: [count, since_open]", "give: [distinct]"),
        *("distinct needs values to tell apart", "`value`"),
    ),
    "share of nothing": ("    share: {category: travel}\n", "", "latest.give: `share` is to be given", "add `share"),
    "share for nothing": ("{last: 3}, share,", "{last: 3},", "features.latest.share: nothing gives this share", "add"),
    "not a window": (
        "{session: 30m}",
        "{sesion: 30m}",
        "features.abroad.in: {'sesion': '30m'} is not a window",
        "last",
    ),
    "no steps": ("{last: 1h, steps: 12}", "{last: 1h}", "features.spend.in.0: 'steps' is missing", "steps"),
    "too many steps": ("steps: 12}", "steps: 65}", "features.spend.in.0.steps: 65 is not in 1 to 64", "fewer"),
    "step that does not divide": (
        *("{last: 1h, steps: 12}", "{last: 1h, steps: 7}"),
        *("features.spend.in.0.steps: 1h can't be divided into 7 equal steps", "6 or 8"),
    ),
    "step below a second": ("{last: 1h, steps: 12}", "{last: 30s, steps: 60}", "shorter than a second", "fewer"),
    "length of time": ("{last: 1h,", "{last: 1 hour,", "'1 hour' is not a length of time", "30m"),
    "window as a number": ("{last: 1h,", "{last: 60,", "spend.in.0.last: 60 is not a length of time", "30m"),
    "offset as a number": ('"+01:00"', "+10:00", "features.hour.offset: expected str, got int", "in quotes"),
    "no limit": ("ahead: 10m", "ahead: ", "time.ahead: it says nothing", "write `unlimited`, or a time such as"),
    "length as a number": ("wait: 60d", "wait: 60", "label.wait: 60 is not a length of time", "30m"),
    "century": ("for: 7d", "for: 99999999h", "features.latest.in.0.for: 99999999h is more than a century", "shorter"),
    "the same window twice": (
        *("{last: 24h, steps: 24}, all time", "{last: 1h, steps: 6}, all time"),
        *("features.spend.in: '1h' is listed twice", "keep one"),
    ),
    "two windows of the same names": (
        *("in: {from: payment, for: 7d, before: false}", "in: [{from: payment, for: 7d}, all time]"),
        *("features.latest.in: two windows would give features of the same names", "group"),
    ),
    "last values of a step": (
        *("in: {from: payment, for: 7d, before: false}", "in: {last: 1h, steps: 2}"),
        *("the last values are kept over all time only", "group"),
    ),
    "opening of a sliding window": (
        *("in: {session: 30m}", "in: {last: 1h, steps: 2}"),
        *("features.abroad.give.1: the last 1h never open", "session"),
    ),
    "profile opens a window": ("{from: payment, for", "{from: issued, for", "the profile event can't open", "another"),
    "condition on nothing": (
        "where: {country: {is_not: DE}, ",
        "where: {land: DE, ",
        "where.land: no field 'land'",
        "known",
    ),
    "condition of another type": (
        "{is_not: DE}",
        "{is_not: 3}",
        "3 is not a value of 'country', which is of type text",
        "quotes",
    ),
    "YAML's NO in a condition": (
        *("country: {is_not: DE}", "country: {in: [DE, NO]}"),
        *("where.country: false is not a value of 'country', which is of type text", "put it in quotes"),
    ),
    "condition out of one": ("{is_not: DE}", "{in: DE}", "where.country.in: expected array", "a list"),
    "condition that says nothing": ("{is_not: DE}", "{}", "features.abroad.where.country: it says nothing", "above"),
    "more than a text": ("country: {is_not: DE}", "country: {above: 3}", "is not above or below anything", "number"),
    "event in a condition": (
        *("country: {is_not: DE}", "kind: refnd"),
        *("features.abroad.where.kind: no event 'refnd'", "'refund'"),
    ),
    "YAML's no": ("one_of: [food, travel]", "one_of: [food, no]", "category.one_of.1: False is not text", "quotes"),
    "category that is no name": ("[food, travel]", "[food, a b]", "'a b' can't be part of a feature's name", "table"),
    "neither list nor table": (", one_of: [food, travel]", "", "features.category: it needs either", "file"),
    "table that is missing": (
        "merchants.csv",
        "merchant.csv",
        "merchant_risk.table: merchant.csv: No such file",
        "CSV",
    ),
    "values of a table": (
        *("table: merchants.csv", "values: {a: 1}"),
        *("features.merchant_risk.values: unknown name", "table"),
    ),
    "looked up at what": ("at: profile, ", "at: purchase, ", "features.income.at: 'purchase' is unknown", "profile"),
    "looked up by a number": ("by: terminal}", "by: amount}", "terminal_risk.by: 'amount' is of type number", "text"),
    "profile that is not there": (
        *("profile:\n  event: issued\n  time: issued_at\n  fields: [country]\n", ""),
        *("features.income.at: it is to be looked up when the profile arrives, but there is no profile", "`profile`"),
    ),
    "unknown feature": ("/ spend_mean", "/ spend_men", "against_usual.compute: no feature 'spend_men'", "'spend_mean'"),
    "group in arithmetic": (
        *("amount / spend_mean", "amount / merchants"),
        *("against_usual.compute: 'merchants' stands for several features", "merchants_distinct, merchants_unseen, "),
    ),
    "cycle": (
        *("amount / spend_mean", "strange / spend_mean"),
        *("it depends on itself: against_usual → strange → against_usual", "take one of them out"),
    ),
    "syntax": ("amount / spend_mean", "amount / / spend_mean", "it can't be read from column 10", "arithmetic"),
    "Python": ("amount / spend_mean", "amount ** 2", "'amount ** 2' can't be computed", "arithmetic"),
    "name of a feature": ("  weekday: {", "  week-day: {", "features.week-day: not a valid name", "letters"),
    "two features of a name": ("  online: {", "  Amount: {", "two columns would be called 'amount'", "rename"),
    "feature called as a field looked up": ("  terminal_risk:", "  category:", "a second time", "keep"),
    "id of a number": ("id: payment_id", "id: amount", "id: 'amount' is of type number", "identifier"),
    "late": ("late: 30d", "late: soon", "time.late: 'soon' is not a length of time", "30m"),
    "time is text": ("{field: at,", "{field: kind,", "time: 'kind' is a text", "time"),
    "without what": ("without: this", "without: that", "features.spend.without: 'that' is unknown", "this"),
    "too many values": ("at_most: 8", "at_most: 65", "features.merchants.at_most: 65 is not in 1 to 64", "number"),
    "needs what is not there": (
        "needs: [amount]",
        "needs: [amout]",
        "events.refund.needs: no field 'amout'",
        "'amount'",
    ),
    "of version 1": ("predict_on:", "statistics: [sum]\npredict_on:", "statistics: unknown name", "features"),
    "no features": (
        *(TEXT[TEXT.index("  income:") : TEXT.index("predict_on")], "  {}\n"),
        *("features: there is no feature", "list"),
    ),
    "infinite": ("otherwise: -1", "otherwise: .inf", "features.latest.otherwise: not a finite number", "0"),
}


@pytest.mark.parametrize(("right", "wrong", "problem", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_told_with_its_place_and_a_remedy(right: str, wrong: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed((right, wrong))
    assert str(caught.value).startswith("mine.yaml, line ")
    assert problem in str(caught.value)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"merchant,risk\na,1\n", "merchants.csv, line 1: its first line is not category,value"),
        (b"category,value\na,1\nb,x\n", "merchants.csv, line 3: 'b,x' is not a category and a number"),
        (b"category,value\na,1,2\n", "line 2: 'a,1,2' is not a category and a number"),
        (b"category,value\na,1\na,2\n", "line 3: the category 'a' appears a second time"),
        (b"category,value\na,nan\n", "line 2: nan is not a finite number"),
        (b"category,value\n\xff,1\n", "merchants.csv: not a CSV file in UTF-8"),
        (b"category,value\n", "merchants.csv: it has no categories"),
        (b"", "line 1: its first line is not category,value"),
    ],
)
def test_table_of_categories_that_is_wrong_is_told_with_its_line(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "merchants.csv").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        parse_use_case(TEXT, "mine.yaml", tmp_path)
    assert problem in str(caught.value) and "features.merchant_risk.table" in str(caught.value)


def test_all_mistakes_are_found_at_once() -> None:
    text = (
        TEXT.replace("{number: amount}", "{number: amout}")
        .replace("steps: 12", "steps: 0")
        .replace("for: 7d", "for: 0s")
    )
    found = [str(one) for one in mistakes(text, "mine.yaml", FOLDER)]
    assert len(found) == 3
    assert ["amount.number" in found[0], "spend.in.0.steps" in found[1], "latest.in" in found[2]] == [True] * 3
    assert mistakes(TEXT, "mine.yaml", FOLDER) == []
    (one,) = mistakes("[", "mine.yaml")
    assert str(one).startswith("mine.yaml, line 1: not YAML")


def test_examples_in_the_docs_can_be_read() -> None:
    page = (ROOT / "docs" / "vocabulary.md").read_text("utf-8")
    found: dict[str, Any] = {
        "version": 2,
        "name": "page",
        "key": "card",
        "time": "at",
        "type": "kind",
        "predict_on": ["payment"],
        "profile": {"event": "issued", "time": "issued_at"},
        "model": {"name": "page", "prediction": "fraud"},
        "events": dict.fromkeys(("payment", "refund", "purchase", "issued")),
        "fields": {"card": "key", "at": "time", "kind": "text", "amount": "number", "country": "text"},
        "features": {},
    }
    found["fields"] |= dict.fromkeys(("merchant", "payment_id", "postcode", "terminal"), "identifier")
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)]
    assert len(blocks) == 7
    for block in blocks:
        found["features"] |= block.pop("features", {})
        found |= block
    # What stands in tables: windows, and conditions.
    windows = dict.fromkeys(re.findall(r"\{(?:from|last|session): [^…}]*[0-9][a-z0-9: ,]*\}", page))
    windows.pop("{last: 3}")
    assert len(windows) == 5, windows
    for i, window in enumerate(windows):
        found["features"][f"window_{i}"] = {"of": "payment", "in": yaml.safe_load(window), "give": "count"}
    text = yaml.safe_dump(found, sort_keys=False)
    assert [*map(str, mistakes(text, "page", FOLDER))] == []
    names = parse_use_case(text, "page", FOLDER).features
    for name in re.findall(r"\b(?:usual|shops|visit|abroad|spend|country)_[\w]+", page):
        assert name in names or name == "country_", name


def test_rewritten_use_case_means_what_it_meant() -> None:
    old, new = (load_use_case(path) for path in (FOLDER / "churn_version_1.yaml", ROOT / "use_cases" / "churn.yaml"))
    assert differences(old, new) == []
    assert digest(meaning_of(old)) == digest(meaning_of(new))
    assert old.features == new.features
    for one in ("event_schema", "row_schema", "vector_schema", "events_log_schema", "inference_log_schema"):
        assert getattr(old, one).equals(getattr(new, one)), one
    assert (old.intended_use, old.model, old.label) == (new.intended_use, new.model, new.label)


def test_what_cannot_be_read_is_told_with_all_the_rest() -> None:
    text = (
        TEXT.replace("amount: number", "amount: nummer")
        .replace("wait: 60d", "wait: 60")
        .replace("id: payment_id", "idd: payment_id")
        .replace("give: [count, since_open]", "give: [cuont]")
        .replace("{number: online}", "{}")
        .replace("model: {name: cards, prediction: is_fraud, threshold: 0.9}", "")
    )
    found = [str(one).partition(": ")[0].rpartition(", ")[2] for one in mistakes(text, "mine.yaml", FOLDER)]
    assert found == [
        *("mine.yaml", "idd", "fields.amount"),  # the first: there is no model
        *("features.online", "features.abroad.give.0", "label.wait"),
    ]


def test_features_that_can_be_read_are_checked_beside_those_that_cannot() -> None:
    text = (
        TEXT.replace("give: [sum, mean,", "give: [summ, maen,")
        .replace("{last: 24h, steps: 24}, all time", "{last: 24h}, all times")
        .replace("{is_not: DE}, amount: {above: 1.5}", "{}, amount: {above: big}")
        .replace("at_most: 8", "at_most: 0")
        .replace("late: 30d", "late: x")
    )
    found = [str(one).partition(": ")[0].rpartition(", ")[2] for one in mistakes(text, "mine.yaml", FOLDER)]
    assert found == [
        "time.late",
        *("features.spend.in.1", "features.spend.in.2", "features.spend.give.0", "features.spend.give.1"),
        *("features.abroad.where.country", "features.abroad.where.amount.above"),
        "features.merchants.at_most",  # and not that there is no spend_mean
    ]


def test_the_parts_of_reading_can_be_used_by_themselves() -> None:
    file = YamlFile(TEXT, "cards.yaml")
    errors = version_2.Errors()
    use_case = version_2.read(file, FOLDER, errors)
    assert use_case is not None
    assert [*check.problems(use_case)] == [*check_features.problems(use_case)] == [*check.columns(use_case)] == []
    old = version_1.read(YamlFile((FOLDER / "boilers.yaml").read_text("utf-8"), "boilers.yaml"), errors)
    assert old is not None and not errors
    assert [*check_version_1.problems(old)] == []
    assert isinstance(next(iter(version_1.translated(old).groups.values())), Group)
