"""An interval by drawing members again is as wide as the spread of members makes it, and the same each time."""

from __future__ import annotations

import math
import random
import sys

import pytest

from operations.report.arithmetic.lot_hazards import Leaving, hazards
from operations.report.arithmetic.resampling import intervals
from schemas.errors import InputError

STAYS = Leaving(at_risk=100, redeemed=0, expired=0, reversed=0)


def redeems(points: int) -> list[Leaving]:
    """Return a member with lots of 100 points in all: some are redeemed on the day after the grant, the rest lapses."""
    return [STAYS, Leaving(100, points, 0, 0), Leaving(100 - points, 0, 100 - points, 0)]


def test_members_who_are_all_alike_leave_no_doubt() -> None:
    members = [redeems(40) for _ in range(30)]
    sums = [Leaving(*(sum(column) for column in zip(*rows, strict=True))) for rows in zip(*members, strict=True)]
    found, whole = intervals(members, {1: 500, 2: 70, 9: 1_000}), hazards(sums)
    assert found is not None
    assert found.rate == pytest.approx((whole.ultimate(),) * 2, rel=1e-12)
    assert found.expected == pytest.approx((500 * whole.still_redeemed(1) + 70 * whole.still_redeemed(2),) * 2)
    assert whole.still_redeemed(1) == 0.4


def test_the_points_of_a_member_move_together() -> None:
    """Of 400 members a quarter redeem all they have: the rate spreads as a share of 400, and not of 40,000."""
    all_or_nothing = [redeems(100 if number % 4 == 0 else 0) for number in range(400)]
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    found = intervals(all_or_nothing, {1: 1_000})
    assert found is not None
    assert found.rate == pytest.approx((0.25 - half, 0.25 + half), abs=0.1 * half)
    assert found.expected == pytest.approx((250 - 1_000 * half, 250 + 1_000 * half), abs=100 * half)


def test_the_true_rate_lies_within_nearly_as_often_as_said() -> None:
    chance, within = random.Random(16), 0  # noqa: S311  a test must repeat
    for _ in range(200):
        found = intervals([redeems(100 if chance.random() < 0.4 else 0) for _ in range(60)], {})
        assert found is not None
        within += found.rate.low <= 0.4 <= found.rate.high
    assert 180 <= within <= 198


def test_the_same_members_have_the_same_interval() -> None:
    members = [redeems(number % 100) for number in range(150)]
    assert intervals(members, {1: 77}) == intervals(members, {1: 77})


def test_fewer_than_thirty_say_nothing() -> None:
    assert intervals([redeems(number) for number in range(29)], {1: 10}) is None
    assert intervals([redeems(number) for number in range(30)], {1: 10}) is not None


def test_without_numpy_a_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(InputError, match=r"pip install 'guerdon\[analytics\]'"):
        intervals([redeems(10)] * 30, {})
