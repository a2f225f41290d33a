"""Add up orders, buyers and refunds by period."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.customers.satisfaction import Answers, answers_by_period, score
from operations.report.frame import ratio
from operations.report.orders import ORDERS
from operations.report.periods import ALL
from operations.report.rolled import orders as rolled
from operations.report.split import UNKNOWN, shown, split

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame


class OrderDay(NamedTuple):
    """Hold the orders of a local day with one value of what the report is split by, money in minor units."""

    day: date
    value: str
    orders: int
    amount: int
    net: int
    gross: int
    net_positive: int
    """The orders with something left after refunds."""

    gross_net_positive: int
    """Their gross amount."""


class RefundDay(NamedTuple):
    """Hold what was refunded on a local day with one value of what the report is split by, in minor units."""

    day: date
    value: str
    amount: int


def order_periods(of: Frame) -> dict[str, dict[str, Any]]:
    """Return what was bought and returned in each period, and how satisfied the members said they were.

    Split, an order and a refund count for what their buyer was just before them, and members for what they are at the
    period's end.
    """
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for order_day in order_days(of):
        numbers = {name: number for name, number in order_day._asdict().items() if name not in {"day", "value"}}
        for name in (of.name_of_day(order_day.day), ALL):
            sums[name, order_day.value].update(numbers)
    for refund_day in refund_days(of):
        for name in (of.name_of_day(refund_day.day), ALL):
            sums[name, refund_day.value]["refunds"] += refund_day.amount
    buyers, answers = buyers_by_period(of), answers_by_period(of)

    # every value has a row in every period, also an empty one
    values = {UNKNOWN} if of.by is None else {value for _, value in (*sums, *buyers, *answers)}
    rows = {
        (name, value): {
            **_row(sums[name, value], buyers.get((name, value), 0)),
            **score(answers.get((name, value), Answers())),
        }
        for name in of.period_names
        for value in values
    }
    return {name: shown(of, {value: rows[name, value] for value in values}) for name in of.period_names}


def order_days(of: Frame) -> list[OrderDay]:
    """Return the orders of each day that has any."""
    if of.rolled:
        return [OrderDay(day, UNKNOWN, *sums) for day, sums in rolled.order_days(of)]
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}, {ORDERS}
        SELECT {of.day("o.occurred_at")}, {by.value_of_order("o")}, count(*), sum(o.amount), sum(o.net), sum(o.gross),
               count(*) FILTER (WHERE o.net > 0), coalesce(sum(o.gross) FILTER (WHERE o.net > 0), 0)
        FROM orders o {by.joined_order("o")} WHERE o.occurred_at >= %(since)s GROUP BY 1, 2
        """,
        **by.parameters,
    )
    return [OrderDay(day, value, *map(int, numbers)) for day, value, *numbers in rows]


def refund_days(of: Frame) -> list[RefundDay]:
    """Return how much was refunded on each day that has any, by the refund's own time."""
    if of.rolled:
        return [RefundDay(day, UNKNOWN, amount) for day, amount in rolled.refund_days(of)]
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}, refunds AS (
            SELECT r.member_id, r.occurred_at, r.amount, p.channel FROM guerdon.fact_refund r
            JOIN guerdon.fact_purchase p ON p.build = r.build AND p.shard = r.shard AND p.seq = r.purchase_seq
            WHERE r.build = %(facts)s AND r.outcome = 'applied' AND r.applied_at < %(known_at)s
              AND r.occurred_at >= %(since)s AND r.occurred_at < %(cut)s
        )
        SELECT {of.day("r.occurred_at")}, {by.value_of_order("r")}, sum(r.amount)
        FROM refunds r {by.joined_order("r")} GROUP BY 1, 2
        """,
        **by.parameters,
    )
    return [RefundDay(day, value, int(amount)) for day, value, amount in rows]


def buyers_by_period(of: Frame) -> dict[tuple[str, str], int]:
    """Return the number of distinct members who bought, by the period's name and value; each that has any."""
    if of.rolled:
        return {
            (ALL if day is None else of.name_of_day(day), UNKNOWN): members
            for day, members in rolled.buyers(of).items()
        }
    by = split(of)
    channel = "channel" if by.order_value else "NULL::text"
    rows = of.rows(
        f"""
        WITH {by.table}, bought AS (
            SELECT DISTINCT {of.period("occurred_at")} AS start, member_id, {channel} AS channel
            FROM guerdon.fact_purchase
            WHERE build = %(facts)s AND recorded_at < %(known_at)s
              AND occurred_at >= %(since)s AND occurred_at < %(cut)s
        ), once AS (
            SELECT start, member_id, channel, least({of.period_end("start")}, %(cut)s) AS occurred_at FROM bought
            UNION ALL
            SELECT NULL, member_id, channel, %(cut)s FROM bought
        )
        SELECT o.start, {by.value_of_order("o")}, count(DISTINCT o.member_id)
        FROM once o {by.joined_order("o")} GROUP BY 1, 2
        """,
        **by.parameters,
    )
    return {(of.name(start), value): members for start, value, members in rows}


def _row(sums: Counter[str], buyers: int) -> dict[str, Any]:
    return {
        "orders": sums["orders"],
        "buyers": buyers,
        "frequency": ratio(sums["orders"], buyers),
        "amount": sums["amount"],
        "net": sums["net"],
        "gross": sums["gross"],
        "refunds": sums["refunds"],
        "orders_net_positive": sums["net_positive"],
        "gross_net_positive": sums["gross_net_positive"],
        "aov_net": ratio(sums["net"], sums["net_positive"]),
        "aov_gross": ratio(sums["gross_net_positive"], sums["net_positive"]),
    }
