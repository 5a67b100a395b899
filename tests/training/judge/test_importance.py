"""What is shuffled together: the features of a group, of each of its windows, and of a category."""

from __future__ import annotations

import msgspec

from modelstream.training.judge.early import count_of
from modelstream.training.judge.importance import together
from modelstream.use_case.declared import UseCase
from modelstream.use_case.vocabulary import (
    AllTime,
    Category,
    Condition,
    Group,
    Number,
    Recent,
    Session,
    Sliding,
    Statistic,
)
from tests.events.payments import PAYMENTS

SUM, COUNT, SINCE = Statistic.SUM, Statistic.COUNT, Statistic.SINCE


def with_forms(**forms: Group | Category | Number) -> UseCase:
    return msgspec.structs.replace(PAYMENTS, forms=forms)


def test_groups_windows_and_categories_are_shuffled_together() -> None:
    use_case = with_forms(
        amount=Number("amount"),
        spend=Group(("payment",), "amount", windows=(AllTime(), Sliding("1h", 6), Session("30m")), give=(SUM, COUNT)),
        gap=Group(("payment",), give=(SINCE,)),
        newest=Group(("payment",), "amount", give=(Recent(3),)),
        shop=Category("shop", one_of=("a", "b")),
    )
    found = {
        name: [use_case.features[column] for column in columns]
        for name, columns in together(use_case).items()
        if len(columns) > 1
    }
    assert found == {
        "spend_*": [f"spend{label}_{one}" for label in ("", "_1h", "_session_30m") for one in ("sum", "count")],
        "spend_1h_*": ["spend_1h_sum", "spend_1h_count"],
        "spend_session_30m_*": ["spend_session_30m_sum", "spend_session_30m_count"],
        "newest_*": ["newest_last_1", "newest_last_2", "newest_last_3"],
        "shop_*": ["shop_a", "shop_b", "shop_other"],
    }
    assert [name for name, columns in together(use_case).items() if len(columns) == 1] == [*use_case.features]


def test_a_count_is_that_of_all_events_of_a_type_only_if_it_misses_none() -> None:
    all_of = Group(("payment",), give=(COUNT,))
    replaced = msgspec.structs.replace
    assert count_of("payment", with_forms(n=all_of)) == "n_count"
    assert count_of("payment", with_forms(n=replaced(all_of, value="amount"))) == "n_count"
    assert count_of("payment", with_forms(n=replaced(all_of, windows=(Sliding("1h", 6), AllTime())))) == "n_count"
    for other in (
        replaced(all_of, of=("payment", "refund")),
        replaced(all_of, of=("refund",)),
        replaced(all_of, where={"shop": Condition(is_="a")}),
        replaced(all_of, without="this"),
        replaced(all_of, windows=(Sliding("1h", 6),)),
        replaced(all_of, give=(SINCE,)),
        replaced(all_of, value="terminal"),  # which a payment may lack
    ):
        assert count_of("payment", with_forms(n=other)) is None
