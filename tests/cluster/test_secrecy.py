"""A secret is told by its name or as a part of a URL; what only looks like one is none."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.cluster.secrecy import has_password, is_secret

WORDS = ("PASSWORD", "PASSWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "CREDENTIALS")
OTHERS = st.sampled_from(
    ["REDIS", "V3IO", "ACCESS", "KEYBOARD", "TOKENIZER", "SECRETARY", "KEYS", "MONKEY", "X", "FILES"]
)


@given(st.lists(OTHERS, max_size=3), st.sampled_from(WORDS), st.lists(OTHERS, max_size=3), st.booleans())
def test_a_name_with_such_a_word_is_a_secrets(before: list[str], word: str, after: list[str], lower: bool) -> None:
    name = "_".join([*before, word, *after])
    assert is_secret(name.lower() if lower else name)
    for ending in ("LOCATION", "FILE", "file"):
        assert not is_secret(f"{name}_{ending}"), "a path"


@given(st.lists(OTHERS, min_size=1))
def test_a_name_without_is_none(words: list[str]) -> None:
    assert not is_secret("_".join(words))


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs"]), min_size=1, max_size=5).map(
    lambda text: quote(text, safe="")
)


@given(st.sampled_from(["redis", "kafka", "s3"]), TEXT, TEXT)
def test_a_password_before_the_host_is_found_and_a_user_alone_is_none(scheme: str, user: str, password: str) -> None:
    assert has_password(f"{scheme}://{user}:{password}@host:1/path")
    assert has_password(f"{scheme}://:{password}@host:1/path")
    assert not has_password(f"{scheme}://{user}@host:1/path")
    assert not has_password(f"{scheme}://{user}:@host:1/path")
    assert not has_password(f"{scheme}://host:1/{user}:{password}@x")


@pytest.mark.parametrize(
    ("option", "secret"),
    [
        ("sasl.password=x", True),
        ("access-key=x", True),
        ("a=b&token=x", True),
        ("sasl.password=", False),
        ("sasl.username=me", False),
        ("ssl.key.location=/x", False),
        ("ssl.keystore=/x", False),
        ("prefix=password", False),
    ],
)
def test_a_password_among_the_options_is_found(option: str, secret: bool) -> None:
    assert has_password(f"kafka://host:1/prefix?{option}") == secret
    assert has_password(f"kafka://host:1/prefix?linger.ms=5&{option}#part") == secret


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("a:b@c", False),
        ("a?token=x", False),
        ("/mnt/models", False),
        ("", False),
        ("redis://[::1", False),
        ("redis://a:b@[::1", True),
        ("redis://:p@[::1]:6379/0", True),
    ],
)
def test_what_is_no_url_has_none_and_a_broken_one_only_what_may_be_one(value: str, secret: bool) -> None:
    assert has_password(value) == secret
