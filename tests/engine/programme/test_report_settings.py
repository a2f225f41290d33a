"""Settings that reports alone read: the worth of points, the costs of gifts and coupons, the margin."""

from __future__ import annotations

from fractions import Fraction

import pytest

from engine.programme.file.load import Loaded, load_programme
from engine.programme.terms import Costs

NO_RULES = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: EUR\nrules: []\n"


def load(sections: str) -> Loaded:
    return load_programme(NO_RULES + sections, "p.yaml")


def test_settings_of_reports_are_exact_and_in_minor_units() -> None:
    sections = (
        "points: {liability_per_point: 0.005, price: 0.0125}\nmargin: 12.5%\n"
        "costs: {gift: {mug: 3.20, '007': 1}, coupon: {five-off: 5.00}}"
    )
    loaded = load(sections)
    assert loaded.problems == ()
    assert loaded.programme is not None
    terms = loaded.programme.terms
    assert (terms.points.liability_per_point, terms.points.price) == (Fraction(1, 2), Fraction(5, 4))
    assert terms.margin == (1, 8)
    assert terms.costs == Costs(gifts=(("mug", 320), ("007", 100)), coupons=(("five-off", 500),))


@pytest.mark.parametrize(
    ("points", "liability", "price"),
    [("{}", None, None), ("{liability_per_point: 0.01}", 1, 1), ("{price: 0.02}", None, 2), ("{price: 0}", None, 0)],
)
def test_a_point_without_a_price_sells_at_its_cost(points: str, liability: int | None, price: int | None) -> None:
    programme = load(f"points: {points}").programme
    assert programme is not None
    assert (programme.terms.points.liability_per_point, programme.terms.points.price) == (liability, price)


def test_left_out_nothing_is_known() -> None:
    programme = load("").programme
    assert programme is not None
    assert (programme.terms.costs, programme.terms.margin) == (Costs(), None)


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ("costs: {gift: [mug]}", "wrong_type"), ("costs: {gifts: {mug: 1.00}}", "unknown_field"),
        ("costs: {gift: {mug: 1.005}}", "too_precise"), ("costs: {coupon: {five-off: -1.00}}", "out_of_range"),
        ("costs: {coupon: {five-off: much}}", "wrong_type"), ("costs: 5", "wrong_type"),
        ("margin: 120%", "out_of_range"), ("margin: 0.25", "wrong_type"), ("points: {price: -1}", "out_of_range"),
        ("points: {price: 0.0000000000000000001}", "too_precise"), ("points: {price: cheap}", "wrong_type"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_refused(section: str, code: str) -> None:
    assert [problem.code.value for problem in load(section).errors] == [code]


def test_a_point_may_be_worth_more_than_a_major_unit() -> None:
    programme = load_programme(NO_RULES.replace("EUR", "JPY") + "points: {liability_per_point: 25.5}", "p").programme
    assert programme is not None
    assert programme.terms.points.liability_per_point == Fraction(51, 2)
