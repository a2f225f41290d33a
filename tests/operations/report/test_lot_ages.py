"""Points leave a lot at the age of their last way out, and are at risk at every age before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operations.report.arithmetic.lot_hazards import Leaving
from operations.report.liability.lot_ages import LotAges, Move, left_in_the_end

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("moves", "left"),
    [
        ([("granted", 0, 9), ("captured", 3, 5), ("expired", 60, 4)], [("red", 3, 5), ("exp", 60, 4)]),
        # a restore undoes the latest capture, whole or in part
        ([("captured", 3, 5), ("captured", 8, 2), ("restored", 9, 4)], [("red", 3, 3)]),
        # what comes after it is not undone
        ([("captured", 3, 5), ("restored", 4, 5), ("captured", 8, 5)], [("red", 8, 5)]),
        # a reversal turns an expiry into a reversal at the expiry's age
        ([("expired", 60, 9), ("reversed_from_expired", 80, 4)], [("exp", 60, 5), ("rev", 60, 4)]),
        # what pays a debt is gone as if reversed, what lapses with an erasure as if expired
        ([("settled", 0, 2), ("reversed_from_lots", 4, 3)], [("rev", 0, 2), ("rev", 4, 3)]),
        ([("erased", 7, 1)], [("exp", 7, 1)]),
        # what is owed was never in the lot
        ([("reversed_to_debt", 4, 3)], []),
    ],
)  # fmt: skip
def test_points_leave_by_their_last_way_out(moves: list[Any], left: list[Any]) -> None:
    assert left_in_the_end(Move(*move) for move in moves) == [Move(*each) for each in left]


def test_an_age_has_at_risk_what_leaves_at_it_or_later_or_is_outstanding_and_older() -> None:
    ages = LotAges()
    ages.left["red"][1] = 10
    ages.left["exp"][3] = 4
    ages.outstanding[2] = 5  # at risk at 0 and 1
    assert ages.leaving() == [
        Leaving(at_risk=19, redeemed=0, expired=0, reversed=0),
        Leaving(at_risk=19, redeemed=10, expired=0, reversed=0),
        Leaving(at_risk=4, redeemed=0, expired=0, reversed=0),
        Leaving(at_risk=4, redeemed=0, expired=4, reversed=0),
    ]
    assert LotAges().leaving() == []


@st.composite
def lots(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[Move]:
    """Draw movements that one lot can have, in the order of the log."""
    accounts = {"active": draw(st.integers(1, 50)), "spent": 0, "expired": 0}
    ways = {
        "captured": ("active", "spent"), "restored": ("spent", "active"), "expired": ("active", "expired"),
        "reversed_from_expired": ("expired", None), "reversed_from_lots": ("active", None), "settled": ("active", None),
    }  # fmt: skip
    moves, age = [], 0
    for _ in range(draw(st.integers(0, 12))):
        possible = [way for way, (debit, _) in ways.items() if accounts[debit]]
        if not possible:
            break
        way = draw(st.sampled_from(possible))
        debit, credit = ways[way]
        points = draw(st.integers(1, accounts[debit]))
        age += draw(st.integers(0, 9))
        accounts[debit] -= points
        if credit is not None:
            accounts[credit] += points
        moves.append(Move(way, age, points))
    return moves


@given(lots())
def test_points_leave_by_each_way_as_often_as_the_accounts_say(moves: list[Move]) -> None:
    def total(*ways: str) -> int:
        return sum(move.points for move in moves if move.way in ways)

    left = left_in_the_end(moves)
    sums = {way: sum(each.points for each in left if each.way == way) for way in ("red", "exp", "rev")}
    assert sums == {
        "red": total("captured") - total("restored"),
        "exp": total("expired") - total("reversed_from_expired"),
        "rev": total("reversed_from_expired", "reversed_from_lots", "settled"),
    }
