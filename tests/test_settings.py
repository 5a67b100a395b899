"""What `Project.settings` makes arrives in a function's process as it was; what is missing or malformed is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError
from modelstream.project import load_project
from modelstream.settings import PREFIX, Settings, StoreNames, StoreUrls, from_environment

ROOT = Path(__file__).parents[1]
PROJECT = load_project(ROOT / "project.yaml")
TEXT = st.one_of(
    st.sampled_from(["", "null", "true", "1", "1.5", "a b", "x=y", "\n", "ü☂"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SETTINGS = st.builds(
    Settings,
    **dict.fromkeys(("streams", "tables"), TEXT.filter(bool)),
    **dict.fromkeys(("function", "use_case", "logs", "reads", "writes", "derive", "model", "registry"), TEXT),
    **dict.fromkeys(StoreNames.__struct_fields__, TEXT),
    rows=st.sampled_from(["events", "predictions"]),
    shards=st.one_of(st.just(8), st.integers(-(2**63), 2**63 - 1)),
    commit_rows=st.integers(-(2**63), 2**63 - 1),
    **dict.fromkeys(("linger_ms", "commit_ms"), FLOATS),
)
COMPLETE = {"FUNCTION": "f", "USE_CASE": "u.yaml", "STREAMS": "sqlite://d", "TABLES": "sqlite://d"}


def environment(**changed: str | None) -> dict[str, str]:
    """Return an environment with what must be there, changed; None takes a variable away."""
    return {PREFIX + name: value for name, value in (COMPLETE | changed).items() if value is not None}


@given(SETTINGS)
def test_settings_come_out_of_the_environment_as_they_went_in(settings: Settings) -> None:
    told = settings.environment()
    assert from_environment(told) == settings
    assert from_environment({f"{PREFIX}NUMBA": "0", **told, "PATH": "/bin", "SHARDS": "3"}) == settings


@given(SETTINGS)
def test_only_what_differs_from_the_defaults_is_told_and_the_shards(settings: Settings) -> None:
    told = settings.environment()
    for field in msgspec.structs.fields(Settings):
        name = PREFIX + field.name.upper()
        differs = field.required or getattr(settings, field.name) != field.default
        assert (name in told) == (differs or field.name == "shards")
        if name in told:
            without = {other: value for other, value in told.items() if other != name}
            if field.name in ("function", "use_case", "streams", "tables"):
                with pytest.raises(ConfigurationError, match=f"missing required field `{field.name}`"):
                    from_environment(without)
            else:
                assert getattr(from_environment(without), field.name) == field.default


@pytest.mark.parametrize("function", PROJECT.functions)
def test_functions_of_the_project_find_what_it_says(function: str) -> None:
    made = PROJECT.settings(function, StoreUrls("sqlite://s", "sqlite://t", "l"), folder="/p", registry="/r", shards=3)
    assert from_environment(made.environment()) == made
    assert (made.urls, made.names) == (StoreUrls("sqlite://s", "sqlite://t", "l"), PROJECT.names)


def test_environment_of_this_process_is_read_if_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(SHARDS="3").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(f"{PREFIX}REGISTRY", raising=False)
    made = from_environment()
    assert made == Settings(function="f", use_case="u.yaml", streams="sqlite://d", tables="sqlite://d", shards=3)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"FUNCTION": None}, "missing required field `function`"),
        ({"USE_CASE": None}, "missing required field `use_case`"),
        ({"STREAMS": None}, "missing required field `streams`"),
        ({"STREAMS": ""}, "missing required field `streams`"),
        ({"TABLES": None}, "missing required field `tables`"),
        ({"SHARDS": "eight"}, r"Expected `int`, got `str` - at `\$.shards`"),
        ({"SHARDS": "8.5"}, r"at `\$.shards`"),
        ({"SHARDS": ""}, r"at `\$.shards`"),
        ({"COMMIT_ROWS": "1e400"}, r"at `\$.commit_rows`"),
        ({"LINGER_MS": "soon"}, r"Expected `float`, got `str` - at `\$.linger_ms`"),
        ({"COMMIT_MS": "10 s"}, r"at `\$.commit_ms`"),
        ({"ROWS": "letters"}, r"Invalid enum value 'letters' - at `\$.rows`"),
    ],
)
def test_missing_and_malformed_settings_are_told_by_name(changed: dict[str, str | None], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"incomplete or wrong: .*{problem}") as raised:
        from_environment(environment(**changed))
    assert f"variables named {PREFIX}" in raised.value.remedy


# Where stores are.

URLS = st.builds(StoreUrls, **dict.fromkeys(("streams", "tables", "logs"), st.sampled_from(["", "a", "b"])))


@given(URLS, URLS)
def test_urls_that_were_given_go_first(given_: StoreUrls, others: StoreUrls) -> None:
    both = given_.or_else(others)
    for kind in ("streams", "tables", "logs"):
        assert getattr(both, kind) == (getattr(given_, kind) or getattr(others, kind))


@given(URLS)
def test_what_has_no_url_is_in_the_data_folder(urls: StoreUrls) -> None:
    usual = {"streams": "sqlite:///data/streams", "tables": "sqlite:///data/tables", "logs": "/data"}
    filled = urls.within(Path("/data"))
    assert {kind: getattr(filled, kind) for kind in usual} == {k: getattr(urls, k) or at for k, at in usual.items()}
    assert filled.within(Path("/elsewhere")) == filled
