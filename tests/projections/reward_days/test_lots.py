"""The cells of a lot are what its movements say, for any end, as known by any day, in whatever order they came."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from operations.report.liability.lot_ages import Move as MoveOfAge
from operations.report.liability.lot_ages import left_in_the_end
from projections.reward_days.lots import (
    EPOCH,
    LEFT_FOR_GOOD,
    NEVER,
    OUTSTANDING,
    Move,
    Way,
    corrections,
    unpacked,
)

GRANTED = date(2026, 3, 1)
MONTHS = (date(2026, 6, 1), date(2026, 7, 1), NEVER)
ACCOUNTS = {
    Way.CAPTURED: ("active", "spent"), Way.RESTORED: ("spent", "active"), Way.EXPIRED: ("active", "expired"),
    Way.ERASED: ("active", "expired"), Way.REVERSED_FROM_EXPIRED: ("expired", None),
    Way.REVERSED_FROM_LOTS: ("active", None), Way.SETTLED: ("active", None),
}  # fmt: skip
NAMES = {
    Way.CAPTURED: "captured", Way.RESTORED: "restored", Way.EXPIRED: "expired", Way.ERASED: "erased",
    Way.REVERSED_FROM_EXPIRED: "reversed_from_expired", Way.REVERSED_FROM_LOTS: "reversed_from_lots",
    Way.SETTLED: "settled", Way.ISSUED: "granted",
}  # fmt: skip
CAUSES = {"red": Way.REDEEMED_FOR_GOOD, "exp": Way.EXPIRED_FOR_GOOD, "rev": Way.REVERSED_FOR_GOOD}


@st.composite
def lots(draw: st.DrawFn) -> list[Move]:
    """Draw the movements of a lot in the order of the log: recorded in that order, and occurred in any."""
    accounts = {"active": draw(st.integers(1, 50)), "spent": 0, "expired": 0}
    recorded_day, months = GRANTED, draw(st.sampled_from([MONTHS[:1], MONTHS]))
    moves = [Move(GRANTED, GRANTED, draw(st.sampled_from(months)), Way.ISSUED, accounts["active"])]
    for _ in range(draw(st.integers(0, 7))):
        recorded_day += timedelta(days=draw(st.integers(0, 3)))
        possible = [0, *(way for way, (debit, _) in ACCOUNTS.items() if accounts[debit])]
        way = draw(st.sampled_from(possible))
        points = 0
        if way:
            debit, credit = ACCOUNTS[Way(way)]
            points = draw(st.integers(1, accounts[debit]))
            accounts[debit] -= points
            if credit is not None:
                accounts[credit] += points
        day = max(GRANTED, recorded_day - timedelta(days=draw(st.sampled_from((0, 0, 0, 5)))))
        moves.append(Move(day, recorded_day, draw(st.sampled_from(months)), way, points))
    return moves


@given(lots(), st.integers(0, 30), st.integers(0, 30))
def test_cells_are_what_the_movements_say(moves: list[Move], cut: int, known: int) -> None:
    cut_day, known_day = GRANTED + timedelta(days=cut), GRANTED + timedelta(days=known)

    def counts(each: Any) -> bool:
        return bool(each.day < cut_day and each.recorded_day < known_day)

    # from cells: movements as they are, and the corrections
    left: Counter[tuple[int, date]] = Counter()
    outstanding: Counter[date] = Counter()
    for each in filter(counts, moves):
        if each.way in LEFT_FOR_GOOD:
            left[LEFT_FOR_GOOD[Way(each.way)], each.day] += each.points
        if each.way:
            outstanding[each.expires] += OUTSTANDING.get(Way(each.way), 0) * each.points
    for cell, points in corrections(moves).items():
        if counts(cell) and cell.way == Way.LAPSES_AT:
            outstanding[cell.expires] += points
        elif counts(cell):
            left[cell.way, cell.left_day] += points

    # from the movements, as a report follows them
    seen = list(filter(counts, moves))
    followed: Counter[tuple[int, date]] = Counter()
    for way, age, points in left_in_the_end(
        MoveOfAge(NAMES[Way(each.way)], (each.day - GRANTED).days, each.points) for each in seen if each.way
    ):
        followed[CAUSES[way], GRANTED + timedelta(days=age)] += points
    assert +left == +followed
    assert not -left
    rest = sum(OUTSTANDING.get(Way(each.way), 0) * each.points for each in seen if each.way)
    assert {month: points for month, points in outstanding.items() if points} == (
        {seen[-1].expires: rest} if rest else {}
    )


@given(lots(), st.integers(0, 8))
def test_corrections_of_two_folds_are_those_of_one(moves: list[Move], first: int) -> None:
    before = corrections(moves[:first])
    changes = corrections(moves)
    changes.subtract(before)
    changes.update(before)
    assert {cell: points for cell, points in changes.items() if points} == dict(corrections(moves))


def test_a_lot_with_one_expiry_and_nothing_that_came_back_needs_no_correction() -> None:
    moves = [
        Move(GRANTED, GRANTED, NEVER, Way.ISSUED, 9),
        Move(GRANTED + timedelta(days=3), GRANTED + timedelta(days=5), NEVER, Way.CAPTURED, 4),
        Move(GRANTED + timedelta(days=2), GRANTED + timedelta(days=6), NEVER, Way.EXPIRED, 5),
    ]
    assert not corrections(moves)


def test_movements_are_packed_in_numbers() -> None:
    day, recorded_day = (GRANTED - EPOCH).days, (GRANTED - EPOCH).days + 2
    month = 126 * 12 + 6
    packed = [day << 40 | recorded_day << 24 | month << 8 | Way.CAPTURED, day << 40 | recorded_day << 24]
    assert unpacked(packed, [7, 0]) == [
        Move(GRANTED, GRANTED + timedelta(days=2), MONTHS[0], Way.CAPTURED, 7),
        Move(GRANTED, GRANTED + timedelta(days=2), NEVER, 0, 0),
    ]
    assert unpacked(None, None) == []
