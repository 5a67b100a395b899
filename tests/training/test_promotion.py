"""Promotion: two versions on the users that the newer one was tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.errors import ConfigurationError, ModelstreamError
from modelstream.registry.registry import Registry
from modelstream.training.judge.bootstrap import Estimate, mean_over_users
from modelstream.training.judge.held_out import HELD_OUT_FILE, held_out, parse_held_out
from modelstream.training.promotion import compare_versions, decide, promote_unless_worse
from modelstream.training.report.card import CARD_FILE
from tests.model_files import CHURN
from tests.training.synthetic import card
from tests.training.versions import EXAMPLES, registered, version_files


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", CHURN.model_name, CHURN.features)


def test_worse_version_is_in_doubt_and_the_better_one_is_not(registry: Registry) -> None:
    for skill in (0.4, 0.0, 0.5):
        registered(registry, skill)
    promote_unless_worse(registry, "1", 0.5)
    with pytest.raises(
        ModelstreamError, match="version 2 is not promoted: version 2 is worse than version 1"
    ) as raised:
        promote_unless_worse(registry, "2", 0.5)
    assert raised.value.remedy.endswith("models promote 2 --force")
    assert registry.current() == "1"
    found = decide(registry, "3", 0.5)
    assert found.doubt == "" and found.comparison is not None
    assert found.comparison.told().startswith("Version 3 is better than version 1: its log loss is ")
    assert found.comparison.metrics.auc.value > 0.8  # type: ignore[operator]


def test_older_version_is_compared_on_the_users_of_the_newer_one(registry: Registry) -> None:
    registered(registry, 0.4)
    registered(registry, 0.5, few := EXAMPLES.of_users(range(20)))
    registry.promote("2")
    found = compare_versions(registry, "1", "2", 0.5)
    assert (found.tested, found.metrics.users, found.metrics.vectors) == ("2", 20, len(few))
    losses = [one.log_loss.value for one in (found.metrics, found.of_serving)]
    assert found.difference.value == pytest.approx(losses[0] - losses[1])  # type: ignore[operator]


def test_version_that_errs_as_the_other_does_is_as_good(registry: Registry) -> None:
    registered(registry, 0.4)
    registered(registry, 0.4)
    registry.promote("1")
    found = compare_versions(registry, "2", "1", 0.5)
    assert (found.worse, found.difference.value, found.difference.high) == (False, 0, 0)
    assert "is as good as" in found.told()
    unsure = replace(found, difference=Estimate(1.2754, -0.0597, 2.8284))
    assert unsure.told().startswith("Nothing shows that version 2 is better or worse than version 1: the difference")
    assert not unsure.worse


def test_first_promotion_is_never_in_doubt_and_later_ones_are_if_nothing_can_be_compared(registry: Registry) -> None:
    for _ in range(2):
        registry.register(lambda version: version_files(version, 0.4, None))
    assert decide(registry, "1", 0.5).unknown == ""
    registry.promote("1")
    assert decide(registry, "1", 0.5).doubt == ""
    found = decide(registry, "2", 0.5)
    assert found.doubt == found.unknown != ""
    assert f"neither has a {HELD_OUT_FILE}" in found.doubt


@pytest.mark.parametrize("content", [b"", b"PAR1", held_out(EXAMPLES, 1)[:-9]], ids=["empty", "four bytes", "cut off"])
def test_held_out_file_that_is_broken_is_told(registry: Registry, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"held-out.parquet can't be read"):
        parse_held_out(content, "models/2/held-out.parquet")
    registered(registry, 0.4)
    registry.register(lambda version: version_files(version, 0.4, None) | {HELD_OUT_FILE: content})
    registry.promote("1")
    assert "can't be read" in decide(registry, "2", 0.5).doubt


def test_held_out_vectors_hold_no_key_and_only_their_owner_reads_them(registry: Registry) -> None:
    registered(registry, 0.4)
    path = Path(registry.place("1")) / HELD_OUT_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(key.encode() in path.read_bytes() for key in EXAMPLES.keys if len(key) > 2)
    assert parse_held_out(path.read_bytes(), "x").vectors.tobytes() == EXAMPLES.vectors.tobytes()


def test_of_too_many_vectors_an_even_share_of_each_user_is_held_out() -> None:
    found = parse_held_out(held_out(EXAMPLES, 1, most=1200), "x")
    assert 1050 < len(found.labels) < 1350
    assert len(np.unique(found.users)) == EXAMPLES.user_count
    assert np.bincount(found.users).max() < 32


@pytest.mark.parametrize(("seed", "seen"), [(1, ""), (2, "1")])
def test_version_that_was_split_otherwise_may_have_seen_the_users(registry: Registry, seed: int, seen: str) -> None:
    for number, of in (("1", 1), ("2", seed)):
        made = card(number)
        made = msgspec.structs.replace(made, data=msgspec.structs.replace(made.data, seed=of))
        extra = {CARD_FILE: made.json()}
        registry.register(lambda version, extra=extra: version_files(version, 0.4) | extra)  # type: ignore[misc]
    assert compare_versions(registry, "2", "1", 0.5).seen == seen


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-5, 5)), min_size=1, max_size=80))
def test_mean_over_users_lies_within_its_interval_and_within_what_users_have(rows: list[tuple[int, float]]) -> None:
    users, values = (np.array(column) for column in zip(*rows, strict=True))
    found = mean_over_users(values, users, seed=1)
    means = [values[users == user].mean() for user in np.unique(users)]
    assert found.value == pytest.approx(values.mean())
    assert min(means) - 1e-9 <= found.low <= found.value <= found.high <= max(means) + 1e-9  # type: ignore[operator]
