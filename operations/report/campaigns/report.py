"""Report what each campaign gave, in which orders it did, what it costs, and how much of its budget is left."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from operations.report.campaigns.budgets import budgets
from operations.report.campaigns.costs import Costs, Given, Item
from operations.report.campaigns.increment import increments
from operations.report.campaigns.influence import influences
from operations.report.movements import BURNED, EARNED, EXPIRED, IS_OPERATORS, MOVES
from operations.report.periods import ALL
from operations.report.rewards import USES_UNKNOWN, unknown_uses
from operations.report.rolled.reward_days import reward_table
from operations.report.split import UNKNOWN, shown, split

if TYPE_CHECKING:
    from operations.report.frame import Frame

_MOVED = ("points_granted", "points_earned", "points_redeemed", "points_expired", "cash_earned", "cash_paid")


@dataclass
class _Sums:
    """Add up what one campaign gave to members, or in orders, with one value of the split."""

    amounts: Counter[str] = field(default_factory=Counter)
    items: Counter[Item] = field(default_factory=Counter)


_Campaigns = defaultdict[str, defaultdict[str, _Sums]]
"""The sums of each campaign, and of all of them, by value."""


def campaigns(of: Frame) -> dict[str, Any]:
    """Return a row for each campaign, and one named `all`, in which an order counts once, whoever gave in it.

    Points and orders are those of the time of the report, costs in minor units. A cost that the programme or the log
    does not say is null, and a note says so.
    """
    sums: _Campaigns = defaultdict(lambda: defaultdict(_Sums))
    for name in (ALL, *(rule.campaign for rule in of.programme.rules if rule.campaign is not None)):
        sums[name][UNKNOWN].amounts.update()
    _add_moved(sums, of)
    _add_items(sums, of)
    for campaign, value, orders, revenue in influences(of):
        counted = {"orders_influenced": orders, "revenue_influenced": revenue}
        sums[ALL if campaign is None else campaign][value].amounts.update(counted)

    # costs, and a note on those that are missing
    costs = Costs(of)
    missing = costs.unknown(item for row in sums[ALL].values() for item, pieces in row.items.items() if pieces)
    if missing:
        of.notes.append(f"items have no cost: the programme does not say {', '.join(missing)}")

    # what coupons cost is known where their uses are
    unknown = {campaign for campaign in unknown_uses(of) if campaign is not None}
    if unknown:
        of.notes.append(USES_UNKNOWN)
        unknown.add(ALL)

    # every value has a row in each campaign
    values = {UNKNOWN} if of.by is None else {value for value, row in sums[ALL].items() if row.amounts or row.items}
    budget_of = budgets(of) if of.by is None else {}
    increment_of = increments(of) if of.by is None else {}
    rows = {}
    for name in sorted(sums):
        are_uses_known = name not in unknown
        row = shown(of, {value: _row(sums[name][value], costs, are_uses_known=are_uses_known) for value in values})
        for key, part_of in (("budget", budget_of), ("incremental", increment_of)):
            row |= {key: part_of[name]} if name in part_of else {}
        rows[name] = row
    return rows


def _row(of: _Sums, costs: Costs, *, are_uses_known: bool) -> dict[str, Any]:
    amounts = of.amounts
    revenue = amounts["revenue_influenced"]
    cost = costs.of(
        Given(
            earned=amounts["points_earned"], redeemed=amounts["points_redeemed"], cash_earned=amounts["cash_earned"],
            cash_paid=amounts["cash_paid"], items=of.items, are_uses_known=are_uses_known,
        )
    )  # fmt: skip
    return {
        "points_granted": amounts["points_granted"],
        "points_earned": amounts["points_earned"],
        "points_redeemed": amounts["points_redeemed"],
        "points_expired": amounts["points_expired"],
        "cash_earned": amounts["cash_earned"],
        "orders_influenced": amounts["orders_influenced"],
        "revenue_influenced": revenue,
        "cost_face": cost.face,
        "cost_committed": cost.committed,
        "cost_realised": cost.realised,
        "cost_gifts": cost.gifts,
        "cost_coupons": cost.coupons,
        "cost_total_committed": cost.total_committed,
        "cost_total_realised": cost.total_realised,
        "give_back_rate": None if cost.face is None or not revenue else cost.face / revenue,
    }


def _add_moved(sums: _Campaigns, of: Frame) -> None:
    """Add the points and the cash of campaigns that moved in the time of the report."""
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}
        SELECT e.campaign, {by.value("e")},
               coalesce(sum(e.amount) FILTER (WHERE e.type = 'points.granted'), 0),
               coalesce(sum({EARNED}) FILTER (WHERE e.unit = %(unit)s), 0),
               coalesce(sum({BURNED}) FILTER (WHERE e.unit = %(unit)s), 0),
               coalesce(sum({EXPIRED}) FILTER (WHERE e.unit = %(unit)s), 0),
               coalesce(sum({EARNED}) FILTER (WHERE e.unit = %(currency)s), 0),
               coalesce(sum({BURNED}) FILTER (WHERE e.unit = %(currency)s), 0)
        FROM {reward_table(of)} e {by.joined("e", "e.occurred_at")}
        WHERE {MOVES} AND e.campaign IS NOT NULL AND e.unit IN (%(unit)s, %(currency)s) AND e.occurred_at >= %(since)s
          AND {IS_OPERATORS} IS NOT TRUE
        GROUP BY 1, 2
        """,
        currency=of.currency,
        **by.parameters,
    )
    for campaign, value, *amounts in rows:
        moved = dict(zip(_MOVED, map(int, amounts), strict=True))
        for name in (campaign, ALL):
            sums[name][value].amounts.update(moved)


def _add_items(sums: _Campaigns, of: Frame) -> None:
    """Add the gifts of campaigns, less those taken back, and the coupons used, in the time of the report."""
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}
        SELECT e.campaign, {by.value("e")}, e.unit, e.item,
               sum(CASE WHEN e.type = 'gift.revoked' THEN -e.amount ELSE e.amount END)
        FROM {reward_table(of)} e {by.joined("e", "e.occurred_at")}
        WHERE e.generation = %(generation)s AND e.recorded_at < %(known_at)s AND e.campaign IS NOT NULL
          AND e.occurred_at >= %(since)s AND e.occurred_at < %(cut)s
          AND e.type IN ('gift.awarded', 'gift.revoked', 'coupon.used')
        GROUP BY 1, 2, 3, 4
        """,
        **by.parameters,
    )
    for campaign, value, unit, item, pieces in rows:
        for name in (campaign, ALL):
            sums[name][value].items[Item(unit, item)] += int(pieces)
