from __future__ import annotations

import pytest

from operations.report.arithmetic.lot_hazards import Leaving, hazards
from operations.report.arithmetic.reserving import (
    Vintage,
    bornhuetter_ferguson,
    chain_ladder,
    expected_redemptions,
)

A = Vintage("A", 1000, 620, (100, 250, 340, 380))
B = Vintage("B", 1000, 630, (120, 280, 370))
C = Vintage("C", 800, 590, (90, 210))
D = Vintage("D", 1100, 990, (110,))
TRIANGLE = (A, B, C, D)


def test_the_chain_ladder_of_the_acceptance_case() -> None:
    ladder = chain_ladder(TRIANGLE)
    assert ladder.factor_sums == ((740, 310), (710, 530), (380, 340))
    assert ladder.factors == (740 / 310, 710 / 530, 380 / 340)
    ultimates = [ladder.ultimate[vintage.name] for vintage in TRIANGLE]
    assert [round(each, 2) for each in ultimates] == [380, 413.53, 314.42, 393.14]
    rates = [each / vintage.earned for each, vintage in zip(ultimates, TRIANGLE, strict=True)]
    assert [round(each, 4) for each in rates] == [0.3800, 0.4135, 0.3930, 0.3574]


def test_bornhuetter_and_ferguson_expect_more_of_the_young_vintage() -> None:
    assert round(bornhuetter_ferguson(D, chain_ladder(TRIANGLE).development["D"], 0.40), 1) == 426.9


def test_a_factor_without_a_base_is_one() -> None:
    ladder = chain_ladder((Vintage("A", 10, 5, (0, 5, 6)), Vintage("B", 10, 10, (0,))))
    assert ladder.factors == (1.0, 6 / 5)
    assert ladder.ultimate == {"A": 6, "B": 0}


def test_a_vintage_that_lost_all_it_had_redeemed_develops_to_nothing() -> None:
    young = Vintage("B", 100, 90, (10,))
    ladder = chain_ladder((Vintage("A", 100, 100, (20, 0)), young))
    assert ladder.development["B"] == 0
    assert bornhuetter_ferguson(young, 0.0, 0.4) == 10 + 40


def test_without_vintages_or_ages_nothing_is_divided() -> None:
    empty = chain_ladder(())
    assert (empty.factors, empty.ultimate) == ((), {})
    unborn = Vintage("A", 100, 100, ())
    assert chain_ladder((unborn,)).ultimate == {"A": 0}
    assert bornhuetter_ferguson(unborn, 1.0, 0.4) == 0


def test_what_is_expected_is_of_vintages_with_something_outstanding_and_never_negative() -> None:
    ultimate = {"A": 350.0, "B": 413.0, "E": 900.0}
    assert expected_redemptions((A, B, Vintage("E", 1000, 0, (300,))), ultimate) == 43


def test_hazards_of_three_ages_by_hand() -> None:
    # of 1000 points 100 are redeemed at age 0; of 800 (100 are too young) 80 redeemed, 40 reversed; of 500 all expire
    found = hazards([Leaving(1000, 100, 0, 0), Leaving(800, 80, 0, 40), Leaving(500, 0, 500, 0)])
    assert found.survival == pytest.approx((1, 0.9, 0.9 * 0.85, 0))
    assert found.cumulative == pytest.approx((0, 0.1, 0.19, 0.19))
    assert found.ultimate() == pytest.approx(0.19)
    assert found.still_redeemed(0) == pytest.approx(0.19)
    assert found.still_redeemed(1) == pytest.approx(0.1)
    assert found.still_redeemed(2) == 0


def test_beyond_the_ages_seen_and_after_all_has_left_nothing_is_expected() -> None:
    found = hazards([Leaving(10, 5, 0, 0), Leaving(0, 0, 0, 0), Leaving(4, 2, 2, 0)])
    assert found.survival == pytest.approx((1, 0.5, 0.5, 0))
    assert (found.still_redeemed(3), found.still_redeemed(99)) == (0, 0)
    assert hazards([]).ultimate() == 0
