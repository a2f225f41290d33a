"""Count at which age points leave their lots, and by which way: what method M3 needs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from operations.report.arithmetic.lot_hazards import Leaving
from operations.report.points import MOVEMENTS
from operations.report.rolled import lots as rolled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from operations.report.frame import Frame

REDEEMED, EXPIRED, REVERSED = "red", "exp", "rev"

GROUPS = 1_000
"""Into how many groups members are divided; so a report of a million members reads no more rows than one of these."""


class Move(NamedTuple):
    """Hold a movement of one lot: its way, the lot's age in days, and the points."""

    way: str
    age: int
    points: int


@dataclass(slots=True)
class LotAges:
    """Hold how points left, by age in days, and what is outstanding, by the lots' age at the cut."""

    left: dict[str, dict[int, int]] = field(
        default_factory=lambda: {way: defaultdict(int) for way in (REDEEMED, EXPIRED, REVERSED)}
    )
    outstanding: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, other: LotAges) -> None:
        """Add the points of other members."""
        for way, by_age in other.left.items():
            for age, points in by_age.items():
                self.left[way][age] += points
        for days, points in other.outstanding.items():
            self.outstanding[days] += points

    def leaving(self) -> list[Leaving]:
        """Return each age's points at risk and those that left, from age 0 to the highest that was seen.

        Points that are outstanding at an age in days were at risk at every age below it.
        """
        lasted = [days - 1 for days in self.outstanding] + [age for by_age in self.left.values() for age in by_age]
        at_risk, rows = 0, []
        for age in range(max(lasted, default=-1), -1, -1):
            red, exp, rev = (self.left[way].get(age, 0) for way in (REDEEMED, EXPIRED, REVERSED))
            at_risk += red + exp + rev + self.outstanding.get(age + 1, 0)
            rows.append(Leaving(at_risk=at_risk, redeemed=red, expired=exp, reversed=rev))
        return rows[::-1]


WAYS_OUT = """
CASE m.way WHEN 'captured' THEN 'red' WHEN 'expired' THEN 'exp' WHEN 'erased' THEN 'exp'
           WHEN 'reversed_from_lots' THEN 'rev' WHEN 'settled' THEN 'rev' END
"""


GROUP = "(('x' || left(md5(member_id), 8))::bit(32)::bigint %% %(groups)s)"
"""A member's group, by a hash that is the same for ever: it has nothing to do with what members do."""

_LOT = f"""
lot AS MATERIALIZED (
    SELECT shard, lot, {GROUP} AS member_group, min(occurred_at) FILTER (WHERE debit = 'issued') AS granted_at,
           sum(outstanding) AS points, bool_or(debit IN ('spent', 'expired')) AS is_returned
    FROM movement GROUP BY shard, lot, member_id
)
"""


def lot_ages(of: Frame) -> list[LotAges]:
    """Return by group of members how the points of all lots left, by local dates; groups without lots are left out.

    A movement before its lot's grant counts at age 0. Lots with a restore or a reversal out of expired are followed one
    by one: a restore undoes the latest capture, and a reversal turns an expiry into a reversal at the expiry's age.
    """
    if of.rolled:
        ages = LotAges()
        for age, way, points in rolled.ages_left(of):
            ages.left[way][age] = points
        ages.outstanding.update(rolled.ages_outstanding(of))
        return [ages]
    groups: dict[int, LotAges] = defaultdict(LotAges)
    for group, kind, age, way, points in of.rows(
        f"""
        WITH movement AS NOT MATERIALIZED ({MOVEMENTS}), {_LOT}
        SELECT l.member_group, 'left', greatest(0, {of.day("m.occurred_at")} - {of.day("l.granted_at")}) AS age,
               {WAYS_OUT} AS way, sum(m.amount)
        FROM movement m JOIN lot l USING (shard, lot)
        WHERE {WAYS_OUT} IS NOT NULL AND l.granted_at IS NOT NULL AND NOT l.is_returned GROUP BY 1, 3, 4
        UNION ALL
        SELECT member_group, 'outstanding', {of.day("%(cut)s")} - {of.day("granted_at")} AS age, NULL, sum(points)
        FROM lot WHERE granted_at IS NOT NULL AND points <> 0 GROUP BY 1, 3
        """,
        groups=GROUPS,
    ):
        by_age = groups[group].outstanding if kind == "outstanding" else groups[group].left[way]
        by_age[age] += int(points)

    for group, moves in _returned(of):
        for way, age, points in left_in_the_end(moves):
            groups[group].left[way][age] += points
    return [groups[group] for group in sorted(groups)]


def together(groups: Iterable[LotAges]) -> LotAges:
    """Return the points of all groups."""
    ages = LotAges()
    for group in groups:
        ages.add(group)
    return ages


def _returned(of: Frame) -> Iterable[tuple[int, list[Move]]]:
    """Yield each lot with a restore or a reversal out of expired: its member's group, and its moves as in the log."""
    rows = of.rows(
        f"""
        WITH movement AS NOT MATERIALIZED ({MOVEMENTS}), {_LOT}
        SELECT l.member_group, m.shard, m.lot, m.way,
               greatest(0, {of.day("m.occurred_at")} - {of.day("l.granted_at")}), m.amount
        FROM movement m JOIN lot l USING (shard, lot)
        WHERE m.way IS NOT NULL AND l.is_returned AND l.granted_at IS NOT NULL
        ORDER BY m.shard, m.lot, m.pos
        """,
        groups=GROUPS,
    )
    for (group, _, _), of_lot in groupby(rows, lambda row: (row[0], row[1], bytes(row[2]))):
        yield group, [Move(way, age, points) for _, _, _, way, age, points in of_lot]


def left_in_the_end(moves: Iterable[Move]) -> list[Move]:
    """Return how the points of a lot left for good: `red`, `exp` or `rev`, with the age and the points.

    Args:
        moves: of one lot, in the order of the log.
    """
    captured: list[Move] = []
    expired: list[Move] = []
    reversed_: list[Move] = []
    for move in moves:
        match move.way:
            case "captured":
                captured.append(move._replace(way=REDEEMED))
            case "restored":
                _take_latest(captured, move.points)
            case "expired" | "erased":
                expired.append(move._replace(way=EXPIRED))
            case "reversed_from_expired":
                reversed_ += [each._replace(way=REVERSED) for each in _take_latest(expired, move.points)]
            case "reversed_from_lots" | "settled":
                reversed_.append(move._replace(way=REVERSED))
    return [*captured, *expired, *reversed_]


def _take_latest(moves: list[Move], points: int) -> list[Move]:
    """Take points out of the latest moves, and return the parts that were taken."""
    parts = []
    while points and moves:
        latest = moves.pop()
        part = min(points, latest.points)
        parts.append(latest._replace(points=part))
        if part < latest.points:
            moves.append(latest._replace(points=latest.points - part))
        points -= part
    return parts
