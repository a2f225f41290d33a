"""Report what each campaign gave, in which orders it did, what it costs, and how much of its budget is left."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.programme.file.currencies import MINOR_DIGITS
from engine.store.cursor import one
from operations.replay.difference_sides import terms_in
from operations.report.campaigns.budgets import budgets
from operations.report.campaigns.influence import influences
from operations.report.movements import BURNED, EARNED, EXPIRED, IS_OPERATORS, MOVES
from operations.report.periods import ALL
from operations.report.redemption.vintages import run_off, vintage_cells, vintages
from operations.report.split import UNKNOWN, shown, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.report.frame import Frame


class _Costs(NamedTuple):
    """Hold what a point costs, in minor units, and which part of the points is redeemed in the end; None: unknown."""

    of_point: Fraction | None
    ultimate_rate: Fraction | None


class _Cell(NamedTuple):
    """Hold a sum of a campaign by its name; None: of all campaigns."""

    campaign: str | None
    value: str
    name: str
    amount: int


def campaigns(of: Frame) -> dict[str, Any]:
    """Return a row for each campaign, and one named `all`, in which an order counts once, whoever gave in it.

    Points and orders are those of the time of the report. Costs are of points alone, in minor units: at their face, as
    far as they will be redeemed, and as far as they were. A cost that nobody knows is null, and a note says why.
    """
    sums: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for rule in of.programme.rules:
        if rule.campaign is not None:
            sums[rule.campaign][UNKNOWN].update()
    for cell in (*_moved(of), *_influenced(of)):
        sums[ALL if cell.campaign is None else cell.campaign][cell.value][cell.name] += cell.amount
    sums[ALL][UNKNOWN].update()

    costs = _costs(of)
    budget_of = budgets(of) if of.by is None else {}
    values = (
        {UNKNOWN} if of.by is None else {value for by_value in sums.values() for value, row in by_value.items() if row}
    )
    rows = {}
    for name in sorted(sums):
        row = shown(of, {value: _row(sums[name][value], costs) for value in values})
        rows[name] = row | ({"budget": budget_of[name]} if name in budget_of else {})
    return rows


def _row(of: Counter[str], costs: _Costs) -> dict[str, Any]:
    face = None if costs.of_point is None else of["points_earned"] * costs.of_point
    realised = None if costs.of_point is None else of["points_redeemed"] * costs.of_point
    committed = None if face is None or costs.ultimate_rate is None else face * costs.ultimate_rate
    revenue = of["revenue_influenced"]
    return {
        "points_granted": of["points_granted"],
        "points_earned": of["points_earned"],
        "points_redeemed": of["points_redeemed"],
        "points_expired": of["points_expired"],
        "cash_earned": of["cash_earned"],
        "orders_influenced": of["orders_influenced"],
        "revenue_influenced": revenue,
        "cost_face": _number(face),
        "cost_committed": _number(committed),
        "cost_realised": _number(realised),
        "give_back_rate": None if face is None or not revenue else float(face / revenue),
    }


def _number(of: Fraction | None) -> float | None:
    return None if of is None else float(of)


def _moved(of: Frame) -> Iterator[_Cell]:
    """Yield what campaigns gave, and what became of it, in the time of the report; then the same of all of them."""
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}
        SELECT e.campaign, {by.value("e")},
               coalesce(sum(e.amount) FILTER (WHERE e.type = 'points.granted'), 0),
               coalesce(sum({EARNED}) FILTER (WHERE e.unit = %(unit)s), 0),
               coalesce(sum({BURNED}) FILTER (WHERE e.unit = %(unit)s), 0),
               coalesce(sum({EXPIRED}) FILTER (WHERE e.unit = %(unit)s), 0),
               coalesce(sum({EARNED}) FILTER (WHERE e.unit = %(currency)s), 0)
        FROM guerdon.reward_event e {by.joined("e", "e.occurred_at")}
        WHERE {MOVES} AND e.campaign IS NOT NULL AND e.unit IN (%(unit)s, %(currency)s) AND e.occurred_at >= %(since)s
          AND {IS_OPERATORS} IS NOT TRUE
        GROUP BY 1, 2
        """,
        currency=of.currency,
        **by.parameters,
    )
    names = ("points_granted", "points_earned", "points_redeemed", "points_expired", "cash_earned")
    for campaign, value, *amounts in rows:
        for name, amount in zip(names, amounts, strict=True):
            yield _Cell(campaign, value, name, int(amount))
            yield _Cell(None, value, name, int(amount))


def _influenced(of: Frame) -> Iterator[_Cell]:
    for campaign, value, orders, revenue in influences(of):
        yield _Cell(campaign, value, "orders_influenced", orders)
        yield _Cell(campaign, value, "revenue_influenced", revenue)


def _costs(of: Frame) -> _Costs:
    """Return what a point costs, and method M1's rate: redeemed ÷ earned over the vintages with nothing outstanding."""
    (body,) = one(of.cursor, "SELECT body FROM guerdon.programme_version WHERE version = %s", (of.version,))
    each = terms_in(body, None, of.currency).liability_per_point
    if each is None:
        of.notes.append("no cost is known: the programme does not say `points.liability_per_point`")
        return _Costs(None, None)

    # vintages of all time, whatever part of it is reported, and however it is split
    cells = vintage_cells(replace(of, by=None), datetime.min.replace(tzinfo=UTC))
    closed = run_off(vintages(cells).get(UNKNOWN, ()))
    if not closed.earned:
        of.notes.append("no cost is committed: no month's points are all redeemed, lapsed or taken back yet")
    rate = Fraction(closed.redeemed, closed.earned) if closed.earned else None
    return _Costs(Fraction(each) * 10 ** MINOR_DIGITS[of.currency], rate)
