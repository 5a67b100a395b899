"""Reasons why an event does not count are explained in words."""

from __future__ import annotations

from pathlib import Path

from modelstream.features.terms import REASONS
from modelstream.use_case.file import load_use_case
from modelstream.use_case.reasons import explained

CHURN = load_use_case(Path(__file__).parents[2] / "use_cases" / "churn.yaml")


def test_every_reason_of_the_kernel_is_explained_in_the_terms_of_the_use_case() -> None:
    lines = explained(REASONS, CHURN)
    told = {name: said for name, _, said in (line.partition(": ") for line in lines)}
    assert list(told) == list(REASONS)
    assert (
        "24h" in told["window_closed"]
        and "purchase" in told["window_closed"]
        and "registration" in told["unregistered"]
    )


def test_a_reason_of_another_version_is_left_out() -> None:
    assert explained(["too_early", "window_closed"], CHURN) == explained(["window_closed"], CHURN)
