"""A use-case file says what it means, and a mistake in one is told with its line and a remedy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from modelstream.errors import ConfigurationError
from modelstream.use_case.file import load_use_case, parse_use_case

ROOT = Path(__file__).parents[2]
CHURN = ROOT / "use_cases" / "churn.yaml"
BOILERS = ROOT / "tests" / "use_cases" / "boilers.yaml"
TIME = pa.timestamp("us", "UTC")


@pytest.mark.parametrize("path", [*ROOT.glob("use_cases/*.yaml"), BOILERS], ids=lambda path: path.stem)
def test_shipped_use_cases_load(path: Path) -> None:
    assert load_use_case(path).name == path.stem


def test_features_are_the_lookup_then_each_value_events_statistics() -> None:
    assert load_use_case(CHURN).features == (
        "socioeconomic_idx",
        *("purchase_sum", "purchase_mean", "purchase_count", "purchase_var"),
        *("bet_sum", "bet_mean", "bet_count", "bet_var"),
        *("win_sum", "win_mean", "win_count", "win_var"),
    )
    boilers = load_use_case(BOILERS)
    assert boilers.features == (
        "price",
        *("pressure_count", "pressure_mean"),
        *("temperature_count", "temperature_mean"),
    )


def test_aliases_have_the_code_of_their_event() -> None:
    churn = load_use_case(CHURN)
    assert churn.event_names == ("registration", "purchase", "bet", "win")
    assert list(churn.event_codes.items()) == [
        *(("registration", 0), ("new_registration", 0)),
        *(("purchase", 1), ("new_purchase", 1), ("new_purchases", 1)),
        *(("bet", 2), ("new_bet", 2), ("win", 3), ("new_win", 3)),
    ]
    needs = [churn.needs(name) for name in churn.event_names]
    assert needs == [(), ("amount",), ("bet_amount",), ("win_amount",)]


def test_schemas_name_and_type_every_column() -> None:
    boilers = load_use_case(BOILERS)
    text, whole, real, yes = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    fields = [
        *(("boiler", text), ("measured_at", TIME), ("what", text), ("celsius", real), ("bar", real)),
        *(
            ("region", text),
            ("built", whole),
            ("warranty_until", TIME),
            ("rented", yes),
            ("needs_repair", yes),
        ),
    ]
    profile = [
        *(("installed_at", TIME), ("built", whole), ("warranty_until", TIME)),
        *(("rented", yes), ("needs_repair", yes), ("region", text)),
    ]
    features = [(name, real) for name in boilers.features]
    stored = [(f"{event}_{s}", real) for event in ("pressure", "temperature") for s in ("sum", "mean", "count", "m2")]
    place = [("position", whole), ("ingested_at", TIME)]
    vector = [("boiler", text), ("measured_at", TIME), ("what", text), *features]
    predicted = [
        *(("will_need_repair", pa.int8()), ("will_need_repair_probability", real)),
        *(("model", text), ("model_version", text)),
    ]
    assert boilers.event_schema == pa.schema([*place, *fields, ("extra", text)])
    assert boilers.row_schema == pa.schema(
        [
            ("boiler", text),
            ("applied", whole),
            *profile,
            ("price", real),
            ("first_ignition_time", TIME),
            *stored,
        ]
    )
    assert boilers.features_schema == pa.schema([("boiler", text), *profile, *features])
    assert boilers.vector_schema == pa.schema([*place, *vector])
    assert boilers.prediction_schema == pa.schema([*place, *vector, *predicted, ("predicted_at", TIME)])
    assert boilers.events_log_schema == pa.schema(
        [
            *(*fields, ("extra", text), ("origin", text), ("position", whole)),
            *(("shard", pa.int16()), ("offset", whole), ("ingested_at", TIME)),
        ]
    )
    assert boilers.inference_log_schema == pa.schema(
        [*vector, *predicted, ("origin", text), ("position", whole), ("predicted_at", TIME)]
    )


def test_window_is_counted_in_microseconds() -> None:
    window = load_use_case(BOILERS).window
    assert window and window.microseconds == 1_800_000_000


CHURN_TEXT = (ROOT / "tests" / "use_cases" / "churn_version_1.yaml").read_text("utf-8")
MISTAKES = {
    "unknown section": ("window:", "windw:", "windw: unknown name", "'window'"),
    "features are not declared": (
        "events:",
        "features: [x]\nevents:",
        "features: unknown name",
        "statistics",
    ),
    "unknown option": ("value: amount}", "valeu: amount}", "events.purchase.valeu: unknown name", "'value'"),
    "unknown field of an event": ("win_amount}", "win_amout}", "events.win.value: no field", "'win_amount'"),
    "unknown statistic": ("[sum, mean,", "[sum, meen,", "statistics.1: 'meen' is unknown", "'mean'"),
    "statistic twice": ("[sum, mean,", "[sum, sum,", "statistics: 'sum' is listed twice", "keep one"),
    "unknown type of field": ("amount: number", "amount: nummer", "fields.amount: 'nummer'", "'number'"),
    "value is text": ("bet_amount: number", "bet_amount: text", "events.bet.value", "number"),
    "unknown key": ("key: user_id", "key: userid", "key: no field 'userid'", "'user_id'"),
    "second key": ("campaign: text", "campaign: key", "fields.campaign: only one field may be the key", "identifier"),
    "time is text": ("event_time: time", "event_time: text", "time: 'event_time' is a text", "time"),
    "alias of two": ("[new_win]", "[new_bet]", "events.win: 'new_bet' is already a name of the event 'bet'", "one"),
    "unknown event to predict on": (
        "predict_on: [bet, win]",
        "predict_on: [bet, wni]",
        "predict_on",
        "'win'",
    ),
    "nothing to predict on": ("predict_on: [bet, win]", "predict_on: []", "predict_on", "at least one"),
    "predict_on is text": ("predict_on: [bet, win]", "predict_on: bet", "predict_on: expected array", "type"),
    "unknown profile event": ("event: registration", "event: register", "profile.event", "'registration'"),
    "profile event with a value": (
        *("{aliases: [new_registration]}", "{value: amount}"),
        *("events.registration.value", "another event"),
    ),
    "unknown profile field": (
        "[date_of_birth, ",
        "[birthday, ",
        "profile.fields: no field 'birthday'",
        "known",
    ),
    "lookup by unknown field": ("by: postcode", "by: postkode", "lookup.by", "'postcode'"),
    "lookup by number": ("by: postcode", "by: amount", "lookup.by", "identifier"),
    "lookup default is infinite": ("default: 0", "default: .inf", "lookup.default", "0"),
    "unknown opening event": ("opens: purchase", "opens: buy", "window.opens: no event 'buy'", "purchase"),
    "profile opens the window": ("opens: purchase", "opens: registration", "window.opens", "another"),
    "no hours": ("hours: 24", "hours: 0", "window.hours", "hours"),
    "hours not a number": ("hours: 24", "hours: .nan", "window.hours", "hours"),
    "hours are text": ("hours: 24", "hours: day", "window.hours: expected float", "type"),
    "hours missing": ("  hours: 24\n", "", "window: 'hours' is missing", "hours"),
    "unknown label": ("field: label", "field: lable", "label.field: no field 'lable'", "'label'"),
    "positive of another type": ("positive: 1", "positive: yes", "label.positive", "integer"),
    "label from an unknown event": (
        "positive: 1",
        "positive: 1\n  event: buy",
        "label.event: no event 'buy'",
        "known",
    ),
    "wait for the profile": (
        "positive: 1",
        "positive: 1\n  wait: 5",
        "label.wait: the label comes with the profile",
        "later",
    ),
    "no wait": ("positive: 1", "positive: 1\n  event: win\n  wait: 0", "label.wait: 0.0 is not in 0", "hours"),
    "threshold above one": ("threshold: 0.5", "threshold: 50", "model.threshold", "0 to 1"),
    "model's name not for a URL": ("  name: churn", "  name: churn/1", "model.name", "letters"),
    "prediction not a column": ("about_to_churn\n", "about to churn\n", "model.prediction", "letters"),
    "field not a column": (
        "campaign: text",
        "camp-aign: text",
        "fields.camp-aign: not a valid name",
        "letters",
    ),
    "field not text": ("campaign: text", "1: text", "fields", "type"),
    "field the pipeline adds": ("campaign: text", "Position: text", "fields.Position", "rename"),
    "columns collide": (
        "time: registration_time",
        "time: Label",
        "two columns would be called 'label'",
        "rename",
    ),
    "prediction is a feature": (
        *("prediction: about_to_churn", "prediction: bet_sum"),
        *("two columns would be called 'bet_sum'", "rename"),
    ),
    "field twice": (
        "campaign: text",
        "campaign: text\n  campaign: number",
        "fields.campaign: appears here",
        "keep",
    ),
    "path of nothing": (
        "amount: number",
        "amount: {type: number, path: a..b}",
        "fields.amount.path: 'a..b' is not a",
        "dots",
    ),
    "path of another field": (
        *("amount: number", "amount: {type: number, path: label}"),
        *("fields.label.path: 'amount' stands there too", "one field only"),
    ),
    "path into a field": (
        *("amount: number", "amount: {type: number, path: label.amount}"),
        *("fields.amount.path: 'label' is read from 'label', which holds this one", "single value"),
    ),
    "unit of a number": (
        *("amount: number", "amount: {type: number, epoch: ms}"),
        *("fields.amount.epoch: 'amount' is of type number", "time"),
    ),
    "unknown unit": (
        "event_time: time",
        "event_time: {type: time, epoch: min}",
        "fields.event_time.epoch: 'min'",
        "ms",
    ),
    "no type": ("amount: number", "amount: {path: a}", "fields.amount: 'type' is missing", "type"),
    "newer version": ("version: 1", "version: 3", "version: 3 is newer", "update"),
    "older version": ("version: 1", "version: 0", "version: 0 is not a version", "version: 1"),
    "no version": ("version: 1\n", "", "'version' is missing", "version"),
    "not YAML": ("key: user_id", "key: [user_id", "not YAML", "line"),
    "impossible date": ("title: ", "title: 2020-13-45 # ", "not YAML: month", "line"),
}


@pytest.mark.parametrize(("right", "wrong", "problem", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_told_with_its_place_and_a_remedy(right: str, wrong: str, problem: str, remedy: str) -> None:
    assert right in CHURN_TEXT
    with pytest.raises(ConfigurationError) as caught:
        parse_use_case(CHURN_TEXT.replace(right, wrong, 1), "mine.yaml")
    assert str(caught.value).startswith("mine.yaml")
    assert problem in str(caught.value)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("label: {field: broken, positive: true}", "To say after each reading how likely it is that broken is true"),
        ("label: {field: what, positive: gone}", "To say after each reading how likely it is that what is gone"),
        ("description: none", "To say after each reading how likely it is that will_freeze is 1"),
    ],
)
def test_intended_use_that_the_file_does_not_give_follows_from_the_label(label: str, said: str) -> None:
    text = """
    {version: 1, name: heating, key: house, time: at, type: kind, statistics: [mean],
     fields: {house: key, at: time, kind: text, celsius: number, broken: boolean, what: text},
     events: {reading: {value: celsius}}, predict_on: [reading],
     model: {name: frost, prediction: will_freeze}, LABEL}"""
    assert parse_use_case(text.replace("LABEL", label)).intended_use == (f"{said} in the end.",)
    own = parse_use_case(text.replace("LABEL", label).replace("will_freeze}", "p, intended_use: [To warm.]}"))
    assert own.intended_use == ("To warm.",)


def test_mistake_is_told_with_its_line() -> None:
    line = CHURN_TEXT[: CHURN_TEXT.index("win_amount}")].count("\n") + 1
    with pytest.raises(ConfigurationError, match=rf"mine.yaml, line {line}, events.win.value: "):
        parse_use_case(CHURN_TEXT.replace("win_amount}", "win_amout}"), "mine.yaml")


def test_mistake_in_a_list_is_told_with_the_line_of_the_item() -> None:
    listed = CHURN_TEXT.replace("[sum, mean, count, var]", "\n  - sum\n  - meen")
    line = listed[: listed.index("meen")].count("\n") + 1
    with pytest.raises(ConfigurationError, match=rf"mine.yaml, line {line}, statistics.1: 'meen' is unknown"):
        parse_use_case(listed, "mine.yaml")


NESTED = "a: " + "[" * 9999
NO_USE_CASES = ["", "- 1", "just text", "{}", "\0", "a: &a [*a]", NESTED, "events: 1", "fields: [x]"]


@pytest.mark.parametrize("text", NO_USE_CASES, ids=lambda text: text[:9])
def test_what_is_no_use_case_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="use case"):
        parse_use_case(text)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none.yaml can't be read"):
        load_use_case(tmp_path / "none.yaml")


def test_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("title: Überlauf".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"latin.yaml: not UTF-8"):
        load_use_case(tmp_path / "latin.yaml")
