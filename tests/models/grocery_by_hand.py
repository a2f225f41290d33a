"""Work out by hand what two programmes give for real grocery baskets, with nothing of the engine's.

The rules of `examples/grocery/programme.yaml` and of NEXT stand below as plain arithmetic on what the parquet files
say, in `Decimal` dollars and in the days of New York.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from operations.demo.check import NEW_YORK, dollars

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

NEXT = """\
schema: guerdon/1
programme: grocery
timezone: America/New_York
currency: USD
points: {liability_per_point: 0.005}
tiers:
  metric: spent
  window: lifetime
  levels: [{id: basic, from: 0}, {id: silver, from: 500.00}, {id: gold, from: 2500.00}]
metrics:
  spent: {sum: purchase.amount}
rules:
- {id: welcome, on: signup, give: [{points: 40}], limits: [{times: 1, per: member, every: day}]}
- id: point-a-dollar
  on: purchase
  campaign: everyday
  give: [{points: {rate: 2, per: 1.00, of: purchase.amount, round: floor}}]
  limits: [{max: 90, per: member, every: day}]
- id: huge-basket
  on: purchase
  campaign: baskets
  when: {purchase.amount: {gte: 80.00}}
  give: [{points: 60}, {status: 1}]
- id: coffee
  on: purchase
  campaign: drinks
  when: {items: {some: {category: COFFEE}}}
  give: [{coupon: free-coffee}]
  limits: [{times: 1, per: member, every: month}]
"""
"""Points for dollars doubled and capped, big baskets ended, huge ones wider, and status, coupons and tiers begun."""

CAMPAIGNS = {
    "welcome": None, "point-a-dollar": "everyday", "big-basket": "baskets", "huge-basket": "baskets",
    "coffee": "drinks",
}  # fmt: skip
SILVER_FROM, GOLD_FROM = 500, 2500


class Basket(NamedTuple):
    """Hold a purchase: what was paid is in dollars."""

    member_id: str
    at: datetime
    paid: Decimal
    has_coffee: bool


class Award(NamedTuple):
    """Hold what a rule gave a member once."""

    member_id: str
    unit: str
    rule_id: str
    campaign: str | None
    amount: int
    at: datetime


class Given:
    """Collect the awards of rules, and the uses of their limits."""

    def __init__(self) -> None:
        self.awards: list[Award] = []
        self._used: Counter[tuple[object, ...]] = Counter()

    def give(self, rule_id: str, basket: Basket, amount: int, unit: str = "points") -> None:
        """Give without a limit; an amount of 0 is no award."""
        if amount:
            self.awards.append(Award(basket.member_id, unit, rule_id, CAMPAIGNS[rule_id], amount, basket.at))

    def give_up_to(self, most: int, rule_id: str, basket: Basket, amount: int) -> None:
        """Give an award, trimmed so that the member has at most `most` points of the rule in this day of New York."""
        key = (rule_id, basket.member_id, basket.at.astimezone(NEW_YORK).date())
        amount = min(amount, most - self._used[key])
        self._used[key] += amount
        self.give(rule_id, basket, amount)

    def is_within(self, times: int, rule_id: str, member_id: str, period: object) -> bool:
        """Count one more time in the period, and say whether it is one of the first `times`."""
        self._used[rule_id, member_id, period] += 1
        return self._used[rule_id, member_id, period] <= times


def read_baskets(folder: Path, households: Sequence[int]) -> list[Basket]:
    """Return the baskets of `households` in the order of their times, then numbers."""
    import pyarrow as pa  # noqa: PLC0415  an extra
    import pyarrow.compute as pc  # noqa: PLC0415  as above
    from pyarrow import parquet  # noqa: PLC0415  as above

    products = parquet.read_table(folder / "products.parquet", columns=["product_id", "product_category"])
    coffee = set(products.filter(pc.equal(products["product_category"], "COFFEE"))["product_id"].to_pylist())
    names = ["household_id", "basket_id", "transaction_timestamp", "product_id", "sales_value", "coupon_disc"]
    table = parquet.read_table(folder / "transactions.parquet", columns=names)
    table = table.filter(pc.is_in(table["household_id"], value_set=pa.array(households)))
    stamps = table["transaction_timestamp"].cast("timestamp[us]").to_pylist()
    paid: dict[int, Decimal] = defaultdict(Decimal)
    about: dict[int, tuple[datetime, int]] = {}
    with_coffee = set()
    for at, household, basket, product, sales, coupon in zip(
        stamps, *(table[name].to_pylist() for name in names if name != "transaction_timestamp"), strict=True
    ):
        paid[basket] += dollars(sales) - dollars(coupon)
        about[basket] = (at.replace(tzinfo=UTC), household)
        if product in coffee:
            with_coffee.add(basket)
    ordered = sorted(about, key=lambda basket: (about[basket][0], basket))
    return [
        Basket(f"household-{about[basket][1]}", about[basket][0], max(paid[basket], Decimal(0)), basket in with_coffee)
        for basket in ordered
    ]


def joined(baskets: Iterable[Basket]) -> Iterator[Basket]:
    """Yield each member's signup, a minute before the first basket, as an empty basket."""
    seen = set()
    for basket in baskets:
        if basket.member_id not in seen:
            seen.add(basket.member_id)
            yield Basket(basket.member_id, basket.at - timedelta(minutes=1), Decimal(0), has_coffee=False)


def given(baskets: Sequence[Basket], next_from: datetime | None) -> list[Award]:
    """Return what was given if NEXT judges from an instant on (None: never), and the example's programme before."""
    given = Given()
    for member in joined(baskets):
        given.give("welcome", member, 40 if _is_next(member, next_from) else 100)
    for basket in baskets:
        if _is_next(basket, next_from):
            _give_next(given, basket)
        else:
            _give_now(given, basket)
    return given.awards


def tiers(baskets: Sequence[Basket], next_from: datetime) -> dict[str, str]:
    """Return each member's tier by NEXT, whose metric begins where it begins to judge."""
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for basket in baskets:
        spent[basket.member_id] += basket.paid if _is_next(basket, next_from) else 0
    return {
        member_id: "gold" if money >= GOLD_FROM else "silver" if money >= SILVER_FROM else "basic"
        for member_id, money in spent.items()
    }


def _is_next(basket: Basket, next_from: datetime | None) -> bool:
    return next_from is not None and basket.at >= next_from


def _give_now(given: Given, basket: Basket) -> None:
    day = basket.at.astimezone(NEW_YORK).date()
    given.give_up_to(500, "point-a-dollar", basket, int(basket.paid))
    if 50 <= basket.paid < 100 and given.is_within(2, "big-basket", basket.member_id, day):
        given.give("big-basket", basket, 25)
    if basket.paid >= 100 and given.is_within(2, "huge-basket", basket.member_id, day):
        given.give("huge-basket", basket, 60)


def _give_next(given: Given, basket: Basket) -> None:
    given.give_up_to(90, "point-a-dollar", basket, int(basket.paid * 2))
    if basket.paid >= 80:
        given.give("huge-basket", basket, 60)
        given.give("huge-basket", basket, 1, "status")
    month = basket.at.astimezone(NEW_YORK).strftime("%Y-%m")
    if basket.has_coffee and given.is_within(1, "coffee", basket.member_id, month):
        given.give("coffee", basket, 1, "coupon")
