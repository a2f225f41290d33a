"""Add up orders, buyers and refunds by period."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.customers.satisfaction import satisfaction
from operations.report.frame import ratio
from operations.report.orders import ORDERS
from operations.report.periods import ALL

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame


class OrderDay(NamedTuple):
    """Hold the orders of a local day, money in minor units."""

    day: date
    orders: int
    amount: int
    net: int
    gross: int
    net_positive: int
    """The orders with something left after refunds."""

    gross_net_positive: int
    """Their gross amount."""


def order_periods(of: Frame) -> dict[str, dict[str, Any]]:
    """Return what was bought and returned in each period, and how satisfied the members said they were."""
    orders, refunds = _order_sums(of), _refund_sums(of)
    buyers, scores = buyers_by_period(of), satisfaction(of)
    return {
        name: {**_row(orders[name], refunds[name], buyers.get(name, 0)), **scores(name)} for name in of.period_names
    }


def order_days(of: Frame) -> list[OrderDay]:
    """Return the orders of each day that has any."""
    rows = of.rows(
        f"""
        WITH {ORDERS}
        SELECT {of.day("occurred_at")}, count(*), sum(amount), sum(net), sum(gross),
               count(*) FILTER (WHERE net > 0), coalesce(sum(gross) FILTER (WHERE net > 0), 0)
        FROM orders WHERE occurred_at >= %(since)s GROUP BY 1
        """
    )
    return [OrderDay(day, *map(int, numbers)) for day, *numbers in rows]


def refund_days(of: Frame) -> list[tuple[date, int]]:
    """Return how much was refunded on each day that has any, in minor units: by the refund's own time."""
    rows = of.rows(
        f"""
        SELECT {of.day("occurred_at")}, sum(amount) FROM guerdon.fact_refund
        WHERE build = %(facts)s AND outcome = 'applied' AND applied_at < %(known_at)s
          AND occurred_at >= %(since)s AND occurred_at < %(cut)s
        GROUP BY 1
        """
    )
    return [(day, int(amount)) for day, amount in rows]


def buyers_by_period(of: Frame) -> dict[str, int]:
    """Return the number of distinct members who bought in each period that has any, and in all of them."""
    rows = of.rows(
        f"""
        SELECT period, count(*) FROM (
            SELECT DISTINCT w.period, p.shard, p.member_id FROM guerdon.fact_purchase p
            CROSS JOIN LATERAL (VALUES ({of.period("p.occurred_at")}), (NULL)) w (period)
            WHERE p.build = %(facts)s AND p.recorded_at < %(known_at)s
              AND p.occurred_at >= %(since)s AND p.occurred_at < %(cut)s
        ) bought GROUP BY period
        """
    )
    return {of.name(start): members for start, members in rows}


def _order_sums(of: Frame) -> dict[str, Counter[str]]:
    """Return the sums of each period's days by the names of `OrderDay`."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for each in order_days(of):
        numbers = {name: number for name, number in each._asdict().items() if name != "day"}
        for name in (of.name_of_day(each.day), ALL):
            sums[name].update(numbers)
    return sums


def _refund_sums(of: Frame) -> Counter[str]:
    sums: Counter[str] = Counter()
    for day, amount in refund_days(of):
        sums.update({of.name_of_day(day): amount, ALL: amount})
    return sums


def _row(orders: Counter[str], refunds: int, buyers: int) -> dict[str, Any]:
    return {
        "orders": orders["orders"],
        "buyers": buyers,
        "frequency": ratio(orders["orders"], buyers),
        "amount": orders["amount"],
        "net": orders["net"],
        "gross": orders["gross"],
        "refunds": refunds,
        "orders_net_positive": orders["net_positive"],
        "gross_net_positive": orders["gross_net_positive"],
        "aov_net": ratio(orders["net"], orders["net_positive"]),
        "aov_gross": ratio(orders["gross_net_positive"], orders["net_positive"]),
    }
