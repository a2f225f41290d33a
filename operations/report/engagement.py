"""Report who takes part in the programme, what points they earn, burn and let lapse, and what is outstanding."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.frame import UPSTREAM, ratio
from operations.report.movements import BURNED, EARNED, EXPIRED, MOVES, entered, left
from operations.report.periods import ALL, begin_of, midnight
from operations.report.rolled import engagement as rolled
from operations.report.rolled.reward_days import reward_table
from operations.report.rolled.taking_part import earning_orders, participants
from operations.report.split import UNKNOWN, shown, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from operations.report.frame import Frame

GRANTS = ("points.granted", "cash.granted", "coupon.issued", "gift.awarded", "benefit.granted")
"""The types of reward events with which a member gets something, also where it is held or taken back later."""

_CODE = "upper(regexp_replace(t.code, '[[:space:]-]', '', 'g'))"
"""The code of a touch `t` as codes are stored: in capitals, without blanks and hyphens."""

_ORDERS = """
p.build = %(facts)s AND p.recorded_at < %(known_at)s AND p.occurred_at >= %(since)s AND p.occurred_at < %(cut)s
"""

_FACT = "build, member_id, occurred_at, recorded_at FROM guerdon.{}"
_MOVEMENT = """
%(facts)s, member_id, occurred_at, recorded_at FROM guerdon.reward_event
WHERE generation = %(generation)s AND type IN ({})
"""
_DID = {
    "active_members": [
        _FACT.format(table) for table in ("fact_purchase", "fact_activity", "fact_redemption", "fact_share")
    ],
    "referrers": [
        _FACT.format("fact_share"),
        f"""
        t.build, c.member_id, t.occurred_at, t.recorded_at
        FROM guerdon.fact_touch t JOIN guerdon.member_code c ON c.code = {_CODE}
        WHERE c.member_id NOT IN (SELECT member_id FROM unknown_owner)
        """,
    ],
    "participants": [_MOVEMENT.format("'points.granted', 'points.captured'")],
    "redeemers": [_MOVEMENT.format("'points.captured'")],
}
"""Where each measure of members stands in the logs: a build, a member, and when they did it."""

_FLOWS = ("points_earned", "points_burned", "points_expired")
_STANDING = ("pending", "active", "reserved", "debt")


class _Cell(NamedTuple):
    """Hold a part of sums: the start of its period, the value that the report is split by, and the amounts by name."""

    start: datetime
    value: str
    amounts: Mapping[str, int]


Tallies = defaultdict[str, Counter[str]]
"""The sums of a period by value and name."""


def engagement(of: Frame) -> dict[str, Any]:
    """Return for each period, and for all of them, who took part and what moved, and what was left at its end.

    A rate stands beside its numerator and its denominator, and is null where there is nothing to divide by.
    """
    sums: defaultdict[str, Tallies] = defaultdict(lambda: defaultdict(Counter))

    # counts of members, each once a period, and of orders, which add up
    for measure, start, value, members in _participants(of):
        sums[of.name(start)][value][measure] += members
    for cell in (*_orders(of), *_orders_earning(of)):
        _add(sums, of, cell)

    # flows of the time of the report; with those before it they add up to the cumulative rate
    before, within = _flows(of)
    for cell in within:
        _add(sums, of, cell)
    _stand(sums, of, [_renamed(cell, "_cumulative") for cell in (*before, *within)])

    # what stands at each period's end
    _stand(sums, of, _members(of))
    _stand(sums, of, _standing(of))

    # every value has a row in every period, also an empty one
    values = {UNKNOWN} if of.by is None else {value for by_value in sums.values() for value in by_value}
    names = [*(period.name for period in of.periods), ALL]
    return {name: shown(of, {value: _row(sums[name][value]) for value in values}) for name in names}


def _row(of: Counter[str]) -> dict[str, Any]:
    earned, burned = of["points_earned"], of["points_burned"]
    gross = of["pending"] + of["active"] + of["reserved"]
    return {
        "members": of["members"],
        "active": of["active_members"],
        "participants": of["participants"],
        "participation_of_members": ratio(of["participants"], of["members"]),
        "participation_of_active": ratio(of["participants"], of["active_members"]),
        "orders": of["orders"],
        "orders_earning": of["orders_earning"],
        "order_earning_rate": ratio(of["orders_earning"], of["orders"]),
        "points_earned": earned,
        "points_burned": burned,
        "points_expired": of["points_expired"],
        "earn_burn": ratio(earned, burned),
        "burn_earn": ratio(burned, earned),
        "points_earned_cumulative": of["points_earned_cumulative"],
        "points_burned_cumulative": of["points_burned_cumulative"],
        "redemption_cumulative": ratio(of["points_burned_cumulative"], of["points_earned_cumulative"]),
        "redeemers": of["redeemers"],
        "redeemer_rate": ratio(of["redeemers"], of["active_members"]),
        "referrers": of["referrers"],
        "referrer_rate": ratio(of["referrers"], of["active_members"]),
        "outstanding": {
            "pending": of["pending"],
            "active": of["active"],
            "reserved": of["reserved"],
            "gross": gross,
            "debt": of["debt"],
            "net": gross - of["debt"],
        },
    }


def _add(sums: defaultdict[str, Tallies], of: Frame, cell: _Cell) -> None:
    """Add a cell to its period, and to all of them."""
    for name in (of.name(cell.start), ALL):
        sums[name][cell.value].update(cell.amounts)


def _stand(sums: defaultdict[str, Tallies], of: Frame, cells: Iterable[_Cell]) -> None:
    """Give each period the sum of all cells up to its end, those from before the first period too."""
    coming = sorted(cells, key=lambda cell: cell.start, reverse=True)
    running: Tallies = defaultdict(Counter)
    for period in of.periods:
        while coming and coming[-1].start <= period.start:
            cell = coming.pop()
            running[cell.value].update(cell.amounts)
        for value, amounts in running.items():
            sums[period.name][value].update(amounts)

    # a log with nothing but operators' decisions has no period
    for cell in coming:
        running[cell.value].update(cell.amounts)
    for value, amounts in running.items():
        sums[ALL][value].update(amounts)


def _renamed(cell: _Cell, ending: str) -> _Cell:
    return cell._replace(amounts={f"{name}{ending}": amount for name, amount in cell.amounts.items()})


def _participants(of: Frame) -> Iterator[tuple[str, datetime | None, str, int]]:
    """Yield how many members did something in a period, or in all of them (None): once each, however often.

    A code's owner is known from their signup on: at an earlier K a visit by their link was nobody's.
    """
    by = split(of)
    measures = set(_DID)
    if of.rolled:
        measures -= {"active_members", "participants", "redeemers"}
        for day, members in rolled.active_members(of).items():
            yield "active_members", None if day is None else midnight(day, of.zone), UNKNOWN, members
        for measure, start, members in participants(of):
            yield measure, start, UNKNOWN, members

    did = " UNION ALL ".join(f"SELECT '{measure}', {did}" for measure in sorted(measures) for did in _DID[measure])
    yield from of.rows(
        f"""
        WITH {by.table}, unknown_owner AS (
            SELECT member_id FROM guerdon.fact_signup WHERE build = %(facts)s
            GROUP BY member_id HAVING min(recorded_at) >= %(known_at)s
        ), did (measure, build, member_id, occurred_at, recorded_at) AS (
            {did}
        ), within AS (
            SELECT DISTINCT measure, member_id, {of.period("occurred_at")} AS start FROM did
            WHERE build = %(facts)s AND recorded_at < %(known_at)s
              AND occurred_at >= %(since)s AND occurred_at < %(cut)s
        ), once AS (
            SELECT measure, member_id, start, least({of.period_end("start")}, %(cut)s) AS until FROM within
            UNION ALL
            SELECT DISTINCT measure, member_id, NULL::timestamptz, %(cut)s::timestamptz FROM within
        )
        SELECT o.measure, o.start, {by.value("o")}, count(*)
        FROM once o {by.joined("o", "o.until")} GROUP BY 1, 2, 3
        """,
        **by.parameters,
    )


def _members(of: Frame) -> Iterator[_Cell]:
    """Yield by how many the members became more, or fewer, in a period; who is erased was none at any time."""
    if of.rolled:
        for day, change in rolled.member_days(of):
            yield _Cell(midnight(begin_of(of.every, day), of.zone), UNKNOWN, {"members": change})
        return

    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}, member AS (
            SELECT member_id, min(occurred_at) AS first_at FROM guerdon.source_event
            WHERE member_id <> '' AND kind::text = ANY(%(upstream)s) AND recorded_at < %(known_at)s
            GROUP BY member_id HAVING NOT bool_or(kind = 'erasure')
        )
        SELECT {of.period("x.at")}, {by.value("m")}, sum(x.sign)
        FROM member m {by.steps("m", "m.first_at")}
        WHERE x.at < %(cut)s GROUP BY 1, 2
        """,
        upstream=list(UPSTREAM),
        **by.parameters,
    )
    for start, value, change in rows:
        yield _Cell(start, value, {"members": int(change)})


def _orders(of: Frame) -> Iterator[_Cell]:
    """Yield how many orders there were."""
    if of.rolled:
        for day, orders in rolled.order_days(of):
            yield _Cell(midnight(begin_of(of.every, day), of.zone), UNKNOWN, {"orders": orders})
        return

    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}
        SELECT {of.period("p.occurred_at")}, {by.value("p")}, count(*)
        FROM guerdon.fact_purchase p {by.joined("p", "p.occurred_at")} WHERE {_ORDERS} GROUP BY 1, 2
        """,
        **by.parameters,
    )
    for start, value, orders in rows:
        yield _Cell(start, value, {"orders": orders})


def _orders_earning(of: Frame) -> Iterator[_Cell]:
    """Yield how many orders gave their buyer something."""
    if of.rolled:
        for start, orders in earning_orders(of):
            yield _Cell(start, UNKNOWN, {"orders_earning": orders})
        return

    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}, earning AS (
            SELECT DISTINCT shard, seq FROM guerdon.reward_event
            WHERE generation = %(generation)s AND type::text = ANY(%(grants)s) AND recorded_at < %(known_at)s
        )
        SELECT {of.period("p.occurred_at")}, {by.value("p")}, count(*)
        FROM guerdon.fact_purchase p JOIN earning USING (shard, seq) {by.joined("p", "p.occurred_at")}
        WHERE {_ORDERS} GROUP BY 1, 2
        """,
        grants=list(GRANTS),
        **by.parameters,
    )
    for start, value, orders in rows:
        yield _Cell(start, value, {"orders_earning": orders})


def _flows(of: Frame) -> tuple[list[_Cell], list[_Cell]]:
    """Return what was earned, burned and lapsed before the time of the report, and in it."""
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}
        SELECT e.occurred_at >= %(since)s, {of.period("e.occurred_at")}, {by.value("e")},
               sum({EARNED}), sum({BURNED}), sum({EXPIRED})
        FROM {reward_table(of)} e {by.joined("e", "e.occurred_at")}
        WHERE {MOVES} AND e.unit = %(unit)s GROUP BY 1, 2, 3
        """,
        **by.parameters,
    )
    cells: dict[bool, list[_Cell]] = {False: [], True: []}
    for is_within, start, value, *amounts in rows:
        cells[is_within].append(_Cell(start, value, dict(zip(_FLOWS, map(int, amounts), strict=True))))
    return cells[False], cells[True]


def _standing(of: Frame) -> Iterator[_Cell]:
    """Yield by how much the points in each account, and what is owed, became more or less in a period."""
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}
        SELECT {of.period("x.at")}, {by.value("e")},
               sum(x.sign * {entered("pending")}), sum(x.sign * {entered("active")}),
               sum(x.sign * {entered("reserved")}), sum(x.sign * {left("debt")})
        FROM {reward_table(of)} e {by.steps("e", "e.occurred_at")}
        WHERE {MOVES} AND e.unit = %(unit)s AND x.at < %(cut)s GROUP BY 1, 2
        """,
        **by.parameters,
    )
    for start, value, *amounts in rows:
        yield _Cell(start, value, dict(zip(_STANDING, map(int, amounts), strict=True)))
