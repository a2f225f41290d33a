"""Pairs of days count the members of any time, as known by any day, in whatever order days were recorded."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from projections.reward_days.participation import Pair, Recorded, pairs

FIRST = date(2026, 3, 1)
NUMBERS = st.integers(0, 30)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@st.composite
def histories(draw: st.DrawFn) -> list[Recorded]:
    """Draw the days of one member, in the order in which they were recorded."""
    days = draw(st.lists(NUMBERS, unique=True, max_size=8))
    recorded = sorted(draw(st.lists(NUMBERS, min_size=len(days), max_size=len(days))))
    return [Recorded(day(each), day(at)) for each, at in zip(days, recorded, strict=True)]


@given(histories(), NUMBERS, NUMBERS, NUMBERS, st.integers(0, 8))
def test_a_member_counts_once_in_a_time_with_a_day_of_theirs(
    history: list[Recorded], one_end: int, other_end: int, known: int, folded_before: int
) -> None:
    # in two folds, of which the first one may have some of a day of recording
    before, after = history[:folded_before], history[folded_before:]
    cells = [*pairs([], before), *pairs([each.day for each in before], after)]

    begin, end = day(min(one_end, other_end)), day(max(one_end, other_end))
    members = sum(
        each.members
        for each in cells
        if each.recorded_day < day(known)
        and begin <= each.day < end
        and (each.previous is None or each.previous < begin)
    )
    assert members == any(begin <= each.day < end and each.recorded_day < day(known) for each in history)


@given(histories())
def test_days_in_order_are_a_pair_each(history: list[Recorded]) -> None:
    in_order = [Recorded(each, at) for each, (_, at) in zip(sorted(each.day for each in history), history, strict=True)]
    found = list(pairs([], in_order))
    assert [each.day for each in found] == [each.day for each in in_order]
    assert {each.members for each in found} <= {1}


def test_a_late_day_comes_between_two_others() -> None:
    assert list(pairs([day(1), day(9)], [Recorded(day(4), day(10))])) == [
        Pair(day(4), day(1), day(10), 1),
        Pair(day(9), day(1), day(10), -1),
        Pair(day(9), day(4), day(10), 1),
    ]
