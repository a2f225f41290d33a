"""Each point is followed from the month of its grant, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.operations.report.history import History
from tests.operations.report.test_engagement import held, history

__all__ = ["held", "history"]  # fixtures

pytestmark = pytest.mark.postgres


def sums(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("issued", "reversed", "settled", "earned", "redeemed", "expired", "erased", "outstanding")
    return tuple(row[name] for name in names)


def test_a_vintage_says_what_became_of_the_points_of_its_month(history: History) -> None:
    data = history.report("redemption", until="2026-08-01")
    assert {month: sums(row) for month, row in data["vintages"].items()} == {
        "2026-01": (300, 50, 0, 250, 170, 80, 0, 0),
        "2026-02": (50, 50, 0, 0, 0, 0, 0, 0),
        "2026-05": (40, 0, 40, 0, 0, 0, 0, 0),
    }
    january, may = data["vintages"]["2026-01"], data["vintages"]["2026-05"]
    assert january["redeemed_by_age"] == [0, 180, 170, 170, 170, 170, 170]
    assert january["redemption_by_age"] == [0, 180 / 250, *[170 / 250] * 5]
    assert (january["redemption"], january["breakage_realised"]) == (170 / 250, 80 / 250)
    assert (may["redeemed_by_age"], may["redemption_by_age"]) == ([0, 0, 0], [None, None, None])
    assert (may["redemption"], may["breakage_realised"]) == (None, None)
    assert (data["closed_vintages"], data["breakage_realised"]) == (3, 80 / 250)


def test_only_whole_months_are_cells_and_nothing_outstanding_is_breakage(history: History) -> None:
    data = history.report("redemption", until="2026-03-15")
    january = data["vintages"]["2026-01"]
    assert sums(january) == (300, 0, 0, 300, 170, 0, 0, 130)
    assert january["redeemed_by_age"] == [0, 180]
    assert january["breakage_realised"] is None
    assert data["vintages"]["2026-02"]["redeemed_by_age"] == [0]
    assert (data["closed_vintages"], data["closed_earned"], data["breakage_realised"]) == (1, 0, None)


def test_what_is_held_reserved_adjusted_opened_or_erased_is_of_its_vintage(held: History) -> None:
    held.erases("gus", "2026-05-10T09:00:00Z")
    data = held.report("redemption", until="2026-06-01")
    assert {month: sums(row) for month, row in data["vintages"].items()} == {
        "2026-01": (100, 5, 0, 95, 30, 0, 0, 65),
        "2026-02": (25, 0, 0, 25, 0, 0, 0, 25),
        "2026-03": (500, 0, 0, 500, 0, 0, 500, 0),
    }
    assert data["vintages"]["2026-01"]["redeemed_by_age"] == [0, 0, 30, 30, 30]
    assert (data["closed_vintages"], data["breakage_realised"]) == (1, 0)


def test_vintages_are_split_by_campaign_and_by_channel(database_url: str) -> None:
    history = History(
        database_url,
        """\
schema: guerdon/1
programme: p
timezone: Europe/Berlin
currency: EUR
rules:
- {id: base, on: purchase, campaign: spring, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: review, on: activity, give: [{points: 7}]}
""",
    )
    history.buys("kim", "2026-01-10T09:00:00Z", "o1", 10_000, channel="web")
    history.buys("kim", "2026-01-11T09:00:00Z", "o2", 3_000)
    history.does("kim", "2026-01-12T09:00:00Z")
    history.redeems("kim", "2026-01-13T09:00:00Z", "spend", "r1", 110)
    for by, expected in {
        "campaign": {"": (7, 0), "spring": (130, 110)},
        "channel": {"": (37, 10), "web": (100, 100)},
    }.items():
        data = history.report("redemption", until="2026-02-01", by=by)
        january = data["vintages"]["2026-01"]
        assert {value: (row["earned"], row["redeemed"]) for value, row in january.items()} == expected
    assert data["closed_vintages"] == {"": 0, "web": 1}
