"""The net of orders is split as the standards' examples say, from a log in which these sales were made."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import NamedTuple

import pytest

from engine.store.database import snapshot
from operations.report.arithmetic.lot_hazards import Hazards
from operations.report.frame import Asked, frame
from operations.report.liability.close import close_month
from operations.report.liability.closes import Close, Closes
from operations.report.liability.methods import Estimate
from operations.report.liability.outcomes import Said
from operations.report.liability.sales import deferral
from tests.operations.report.history import HEAD, History

pytestmark = pytest.mark.postgres

RULES = (
    "rules:\n- {id: base, on: purchase, give: [{points: {rate: 1, per: 10.00, of: purchase.amount}}]}\n"
    "- {id: hello, on: signup, give: [{points: 500}]}\n"
)


class Year(NamedTuple):
    """Hold a year of a published example: all that was redeemed by its end, all that is expected, and its revenue."""

    redeemed: int
    expected: int
    revenue: int


class Example(NamedTuple):
    """Hold a published example: sales in whole units with 10,000 points, a point's price, and the rate expected."""

    sales: int
    price: int
    rate: float
    deferred: int
    years: list[Year]


EXAMPLES = {
    "sales of 7,200,000": Example(
        7_200_000, 100, 0.8, 720_000,
        [Year(4_000, 8_000, 360_000), Year(8_100, 9_000, 288_000), Year(9_000, 9_000, 72_000)],
    ),
    "IFRS 15 example 52": Example(
        100_000, 1, 0.95, 8_676, [Year(4_500, 9_500, 4_110), Year(8_500, 9_700, 3_493)]
    ),
}  # fmt: skip


def expects(rate: float, still: float) -> Estimate:
    """Return an estimate of M3 by which a part of all that is outstanding will be redeemed, whatever its age."""
    return Estimate(rate=rate, hazards=Hazards(survival=(1.0,) * 999, cumulative=(0.0,) * 998 + (still,)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_published_sale_is_split_and_recognised_as_published(database_url: str, name: str) -> None:
    example = EXAMPLES[name]
    per = f"{example.sales / 10_000:.2f}"
    history = History(database_url, HEAD + RULES.replace("10.00", per))
    history.buys("ann", "2024-03-01", "o1", example.sales * 100)
    price, recognised, redeemed = Fraction(example.price * 100), 0, 0
    for number, year in enumerate(example.years):
        # what was redeemed of 10,000 points so far, and what is expected of the others
        history.redeems("ann", f"{2024 + number}-06-01", "spend", f"r{number}", year.redeemed - redeemed)
        redeemed = year.redeemed
        now = expects(example.rate, (year.expected - redeemed) / (10_000 - redeemed))
        history.report("liability")
        with snapshot(database_url) as cursor:
            of = frame(cursor, Asked(until=date(2025 + number, 1, 1)))
            row = deferral(of, Closes((), of.zone), {}, now, price)["all"]
        assert (row["orders"], row["points"], row["redeemed"]) == (1, 10_000, redeemed)
        assert row["goods"] + row["deferred"] == row["net"] == example.sales * 100
        assert round(row["deferred"] / 100) == example.deferred
        assert round((row["recognised"] - recognised) / 100) == year.revenue
        assert row["liability"] == row["deferred"] - row["recognised"]
        recognised = row["recognised"]


def test_points_without_a_sale_are_no_part_of_one_and_a_refund_lowers_the_net(database_url: str) -> None:
    """A point costs 1 cent and sells for 2; of 50 + 30 points of two orders the refund of the second takes 30."""
    points = "points: {liability_per_point: 0.01, price: 0.02, validity: 300d}\n"
    history = History(database_url, HEAD + points + RULES)
    history.take(history.signup("ann", "2026-01-01"), history.signup("ben", "2026-01-01"))
    history.buys("ann", "2026-01-10", "o1", 50_000)
    history.buys("ben", "2026-02-10", "o2", 30_000)
    history.returns("ben", "2026-02-12", "o2")
    history.redeems("ann", "2026-02-20", "spend", "r1", 110)  # the 500 of her signup come first
    history.redeems("ann", "2026-03-20", "spend", "r2", 410)
    data = history.report("liability", "2026-04-01")
    rows, rate = data["deferral"], data["methods"]["M3"]["ultimate_redemption_rate"]
    of_points = round(50_000 * 50 * 2 * rate / (50_000 + 50 * 2 * rate))
    january = {"orders": 1, "net": 50_000, "points": 50, "rate": rate, "deferred": of_points, "redeemed": 20}
    assert 0 < of_points < 100
    assert january.items() <= rows["2026-01"].items()
    assert rows["2026-01"]["goods"] == 50_000 - of_points
    assert (rows["2026-02"]["orders"], rows["2026-02"]["net"], rows["2026-02"]["deferred"]) == (1, 0, 0)
    assert rows["2026-03"]["orders"] == 0
    assert rows["all"]["points"] == 80
    assert rows["all"]["liability"] == sum(rows[f"2026-0{month}"]["liability"] for month in (1, 2, 3))


def test_a_closed_month_keeps_the_rate_of_its_close(database_url: str) -> None:
    points = "points: {liability_per_point: 0.01, validity: 300d}\n"
    history = History(database_url, HEAD + points + RULES)
    history.buys("ann", "2026-01-10", "o1", 50_000)
    history.redeems("ann", "2026-01-12", "spend", "r1", 10)
    history.passes("2026-02-02T12:00:00Z")
    close_month(database_url, "2026-01", "fin", "books")
    history.redeems("ann", "2026-02-12", "spend", "r2", 40)
    history.buys("ann", "2026-02-13", "o2", 50_000)
    rows = history.report("liability", "2026-03-01")["deferral"]
    assert rows["2026-01"]["rate"] == 10 / 50
    assert rows["2026-02"]["rate"] > 0.5
    assert rows["2026-01"]["recognised"] == rows["2026-01"]["deferred"]


def test_without_a_price_or_a_rate_the_amounts_are_empty_with_a_note(database_url: str) -> None:
    history = History(database_url, HEAD + RULES)
    history.buys("ann", "2026-01-10", "o1", 50_000)
    document = history.document("liability", "2026-02-01")
    row = document["data"]["deferral"]["2026-01"]
    assert (row["orders"], row["net"], row["points"]) == (1, 50_000, 50)
    assert row["goods"] is row["deferred"] is row["recognised"] is row["liability"] is None
    assert any(note.startswith("sales are not split") for note in document["notes"])

    with snapshot(database_url) as cursor:
        of = frame(cursor, Asked(until=date(2026, 2, 1)))
        close = Close(date(2026, 1, 1), of.zone, of.known_at, "fin", "books", 1, 0, 0)
        silent = {"2026-01": {"M3": Said(None, None)}}
        row = deferral(of, Closes((close,), of.zone), silent, Estimate(), Fraction(1))["2026-01"]
    assert row["rate"] is row["deferred"] is None
