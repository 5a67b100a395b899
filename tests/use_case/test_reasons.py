"""Reasons why an event does not count are explained in words."""

from __future__ import annotations

from pathlib import Path

from modelstream.features import kernel
from modelstream.use_case.file import load_use_case
from modelstream.use_case.reasons import explained

CHURN = load_use_case(Path(__file__).parents[2] / "use_cases" / "churn.yaml")


def test_every_reason_of_the_kernel_is_explained_in_the_terms_of_the_use_case() -> None:
    lines = explained(kernel.REASONS, CHURN)
    assert [line.partition(": ")[0] for line in lines] == list(kernel.REASONS)
    assert "24 hours" in lines[3] and "purchase" in lines[3] and "registration" in lines[1]


def test_a_reason_of_another_version_is_left_out() -> None:
    assert explained(["too_late", "window_closed"], CHURN) == explained(["window_closed"], CHURN)
