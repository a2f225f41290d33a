"""Compare two generations: how much each rule gave, who gains and who loses, and the cost.

The amount that a member *keeps* counts: granted, less reversed and expired; of items, those not revoked or expired.
`after` is the generation that would take the place of `before`; a change is after less before. PostgreSQL adds up; only
lists that somebody asks for come row by row.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store.cursor import one
from engine.store.database import NO_LIMIT, connect
from engine.store.generations import live_generation, meanings
from operations.replay.difference_sides import MAKE, add_generation, terms_of
from operations.rows import dictionaries, plain
from schemas.errors import InputError
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from engine.store.cursor import Connection, Cursor
    from operations.replay.difference_sides import FigureTerms

_PART = """
CREATE TEMPORARY TABLE difference_part ON COMMIT DROP AS
SELECT shard, member_id, unit, rule_id, campaign,
       coalesce(sum(kept) FILTER (WHERE NOT is_after), 0) AS before,
       coalesce(sum(kept) FILTER (WHERE is_after), 0) AS after,
       coalesce(sum(spent) FILTER (WHERE NOT is_after), 0) AS spent_before,
       coalesce(sum(spent) FILTER (WHERE is_after), 0) AS spent_after,
       coalesce(sum(awards) FILTER (WHERE NOT is_after), 0) AS awards_before,
       coalesce(sum(awards) FILTER (WHERE is_after), 0) AS awards_after,
       coalesce(sum(given) FILTER (WHERE NOT is_after), 0) AS given_before,
       coalesce(sum(given) FILTER (WHERE is_after), 0) AS given_after
FROM difference_side GROUP BY shard, member_id, unit, rule_id, campaign
"""
_TIERS = """
CREATE TEMPORARY TABLE difference_tier ON COMMIT DROP AS
WITH member AS (
    SELECT shard, member_id FROM difference_standing UNION SELECT shard, member_id FROM difference_part
)
SELECT m.shard, m.member_id, coalesce(b.tier, %(lowest_before)s) AS before, coalesce(a.tier, %(lowest_after)s) AS after
FROM member m
LEFT JOIN difference_standing b ON NOT b.is_after AND b.shard = m.shard AND b.member_id = m.member_id
LEFT JOIN difference_standing a ON a.is_after AND a.shard = m.shard AND a.member_id = m.member_id
"""
_MEMBERS = """
CREATE TEMPORARY TABLE difference_member ON COMMIT DROP AS
SELECT shard, member_id, unit, sum(before) AS before, sum(after) AS after, sum(after) - sum(before) AS change,
       sum(spent_before) AS spent_before, sum(spent_after) AS spent_after,
       greatest(sum(spent_before) - greatest(sum(after), 0), 0) AS spent_not_given
FROM difference_part GROUP BY shard, member_id, unit
"""
_UNITS = """
SELECT unit, sum(before) AS before, sum(after) AS after, sum(change) AS change,
       count(*) FILTER (WHERE change > 0) AS gain, count(*) FILTER (WHERE change < 0) AS lose,
       count(*) FILTER (WHERE change = 0) AS same,
       coalesce(sum(change) FILTER (WHERE change > 0), 0) AS gained,
       coalesce(-sum(change) FILTER (WHERE change < 0), 0) AS lost,
       sum(spent_before) AS spent_before, sum(spent_after) AS spent_after, sum(spent_not_given) AS spent_not_given
FROM difference_member GROUP BY unit ORDER BY unit
"""
_BY = """
SELECT {column} AS {name}, unit, sum(before) AS before, sum(after) AS after, sum(after - before) AS change,
       sum(awards_before) AS awards_before, sum(awards_after) AS awards_after,
       sum(given_before) AS given_before, sum(given_after) AS given_after,
       count(DISTINCT (shard, member_id)) FILTER (WHERE awards_before > 0) AS members_before,
       count(DISTINCT (shard, member_id)) FILTER (WHERE awards_after > 0) AS members_after
FROM difference_part GROUP BY 1, 2
HAVING count(*) FILTER (WHERE before <> 0 OR after <> 0 OR awards_before <> 0 OR awards_after <> 0) > 0
ORDER BY abs(sum(after - before)) DESC, 1, 2
"""
_BY_TIER = """
SELECT t.before AS tier, m.unit, count(*) AS members, sum(m.before) AS before, sum(m.after) AS after,
       sum(m.change) AS change
FROM difference_member m JOIN difference_tier t USING (shard, member_id) GROUP BY 1, 2 ORDER BY 1, 2
"""
_TIER_CHANGES = """
SELECT before, after, count(*) AS members FROM difference_tier WHERE before IS DISTINCT FROM after
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""
# classes by the power of ten of the change: a manager reads "lost 100 to 999", and no outlier flattens the chart
_DISTRIBUTION = """
SELECT unit, sign(change)::integer AS sign, length(abs(change)::text) AS digits, count(*) AS members,
       sum(change) AS change
FROM difference_member WHERE change <> 0 GROUP BY 1, 2, 3 ORDER BY 1, min(change)
"""
_PAIRS = """
SELECT count(*) FILTER (WHERE a.reward_key IS NULL) AS only_before,
       count(*) FILTER (WHERE b.reward_key IS NULL) AS only_after,
       count(*) FILTER (WHERE (b.amount, b.type, b.item, b.available_at, b.expires_at)
                              IS DISTINCT FROM (a.amount, a.type, a.item, a.available_at, a.expires_at)
                        AND a.reward_key IS NOT NULL AND b.reward_key IS NOT NULL) AS differ,
       count(*) FILTER (WHERE (b.amount, b.type, b.item, b.available_at, b.expires_at)
                              IS NOT DISTINCT FROM (a.amount, a.type, a.item, a.available_at, a.expires_at)) AS same
FROM (SELECT * FROM guerdon.reward_event WHERE generation = %(before)s) b
FULL JOIN (SELECT * FROM guerdon.reward_event WHERE generation = %(after)s) a
    ON a.shard = b.shard AND a.reward_key = b.reward_key
"""
_CHANGES = """
SELECT m.member_id, m.unit, m.before, m.after, m.change, t.before AS tier_before, t.after AS tier_after,
       m.spent_not_given, coalesce(r.rules, '[]'::jsonb) AS rules
FROM (
    SELECT * FROM difference_member
    UNION ALL
    SELECT shard, member_id, 'tier', 0, 0, 0, 0, 0, 0 FROM difference_tier
    WHERE before IS DISTINCT FROM after AND NOT EXISTS (
        SELECT 1 FROM difference_member d
        WHERE d.shard = difference_tier.shard AND d.member_id = difference_tier.member_id)
) m
JOIN difference_tier t USING (shard, member_id)
LEFT JOIN (
    SELECT shard, member_id, unit,
           jsonb_agg(jsonb_build_object('rule_id', rule_id, 'change', change) ORDER BY abs(change) DESC, rule_id)
               AS rules
    FROM (SELECT shard, member_id, unit, rule_id, sum(after - before) AS change FROM difference_part
          GROUP BY 1, 2, 3, 4) AS by_rule
    WHERE change <> 0 GROUP BY 1, 2, 3
) r USING (shard, member_id, unit)
WHERE (m.change <> 0 OR m.spent_not_given > 0 OR t.before IS DISTINCT FROM t.after)
"""
_LIST = f'{_CHANGES} ORDER BY abs(m.change) DESC, m.member_id COLLATE "C", m.unit'
_PAGE = f"""
SELECT * FROM ({_CHANGES}) c
WHERE (-abs(change), member_id COLLATE "C", unit) > (-%(change)s::numeric, %(member_id)s, %(unit)s)
ORDER BY abs(change) DESC, member_id COLLATE "C", unit LIMIT %(limit)s
"""
_SIDE = """
SELECT encode(reward_key, 'hex') AS reward_key, type::text AS type, unit, amount, debit::text AS debit,
       credit::text AS credit, item, rule_id, rule_version, campaign, event_id, reason, available_at, expires_at,
       occurred_at
FROM guerdon.reward_event WHERE generation = %s AND shard = %s AND member_id = %s ORDER BY pos
"""


class ChangePlace(NamedTuple):
    """Hold the place of a member in the list of those who gain or lose."""

    change: int
    """How much they gain or lose, without the sign."""

    member_id: str
    unit: str


class TwoSides:
    """Answer questions on two sides, in the transaction in which they were added up."""

    def __init__(self, connection: Connection, before: FigureTerms, after: FigureTerms) -> None:
        self._connection = connection
        self._cursor: Cursor = connection.cursor()
        self._terms = {"before": before, "after": after}
        lowest = {"lowest_before": before.lowest_tier, "lowest_after": after.lowest_tier}
        self._cursor.execute(_TIERS, lowest)

    def figures(self) -> dict[str, Any]:
        """Return totals per unit, rule, campaign and tier, and the cost of the change, for JSON."""
        rows = self._rows
        units = rows(_UNITS)
        return {
            "units": units,
            "rules": rows(_BY.format(column="rule_id", name="rule_id")),
            "campaigns": rows(_BY.format(column="campaign", name="campaign")),
            "tiers": rows(_BY_TIER),
            "tier_changes": rows(_TIER_CHANGES),
            "distribution": rows(_DISTRIBUTION),
            "liability": self._liability(units),
        }

    def members(self) -> Iterator[dict[str, Any]]:
        """Yield the members who gain, lose or change tier, the largest change first, with the rules that cause it."""
        with self._connection.cursor("difference_list") as cursor:
            cursor.itersize = 5_000
            cursor.execute(_LIST)
            names: list[str] = []
            for row in cursor:
                names = names or [column.name for column in cursor.description or ()]
                yield dict(zip(names, map(plain, row), strict=True))

    def members_after(self, place: ChangePlace | None, limit: int) -> list[dict[str, Any]]:
        """Return a part of `members`: those after the place of one, or the first."""
        if place is None:
            return dictionaries(self._cursor, f"{_LIST} LIMIT %s", (limit,))
        return dictionaries(self._cursor, _PAGE, {**place._asdict(), "limit": limit})

    def _rows(self, query: str) -> list[dict[str, Any]]:
        return dictionaries(self._cursor, query)

    def _liability(self, units: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the points that members may still spend, and their cost; money as a decimal string, or None."""
        points = next((unit for unit in units if unit["unit"] == "points"), None)
        liability: dict[str, Any] = {}

        # each side by its own terms
        costs: list[Decimal | None] = []
        for side, (_, cost_per_point, currency) in self._terms.items():
            open_points = 0 if points is None else points[side] - points[f"spent_{side}"]
            costs.append(None if cost_per_point is None else cost_per_point * open_points)
            liability["currency"] = currency or liability.get("currency")
            liability[f"points_{side}"] = open_points
            liability[f"cost_{side}"] = _money(costs[-1])

        before, after = costs
        liability["cost_change"] = None if before is None or after is None else _money(after - before)
        return liability


class GenerationDifference(TwoSides):
    """Answer questions on two generations, all from one snapshot of the database."""

    def __init__(self, connection: Connection, after: int, before: int | None) -> None:
        cursor = connection.cursor()
        self.after = after
        self.before = live_generation.live(cursor) if before is None else before
        for number in (self.after, self.before):
            live_generation.check_exists(cursor, number)
        if self.after == self.before:
            raise InputError(
                f"generation {after} would be compared with itself; name another, `guerdon diff {after} OTHER`"
            )
        (since,) = one(
            cursor,
            "SELECT coalesce(from_at::text, '-infinity') FROM guerdon.generation WHERE generation = %s",
            (after,),
        )
        add_up(cursor, self.before, self.after, since)
        super().__init__(connection, terms_of(cursor, self.before), terms_of(cursor, self.after))

    def document(self) -> dict[str, Any]:
        """Return the figures, and the counts of equal and differing reward events, for JSON."""
        places = {"before": self.before, "after": self.after}
        meanings_ = {f"meaning_{side}": meanings.of(self._cursor, number) for side, number in places.items()}
        events = dictionaries(self._cursor, _PAIRS, places)[0]
        differs = any(events[name] for name in ("only_before", "only_after", "differ"))
        return {**places, **meanings_, "reward_events": events, **self.figures(), "differs": differs}

    def member(self, member_id: str) -> list[dict[str, Any]]:
        """Return the reward events of a member on both sides, paired by their key; None where a side lacks one."""
        place = (shard_of(member_id), member_id)
        sides = [
            {row.pop("reward_key"): row for row in dictionaries(self._cursor, _SIDE, (number, *place))}
            for number in (self.before, self.after)
        ]
        before, after = sides
        return [
            {"reward_key": key, "before": before.get(key), "after": after.get(key)}
            for key in (*before, *(key for key in after if key not in before))
        ]


def add_up(cursor: Cursor, before: int, after: int, since: str = "-infinity") -> None:
    """Make temporary tables in this transaction, and add both generations up in them, member by member."""
    cursor.execute(MAKE)
    for number in (before, after):
        add_generation(cursor, number, since, is_after=number == after)
    sum_up(cursor)


def sum_up(cursor: Cursor) -> None:
    """Bring both sides together: by member, unit and rule, and by member and unit."""
    for statement in (_PART, _MEMBERS):
        cursor.execute(statement)


def compared_by(cursor: Cursor, after: int, before: int | None = None) -> GenerationDifference:
    """Return the same as `compared` yields, read in the transaction of `cursor`, which has read nothing yet.

    Raises:
        InputError: there is no such generation, or both are the same.
    """
    cursor.execute("SET TRANSACTION READ WRITE")  # tables that end with the transaction are made
    return GenerationDifference(cursor.connection, after, before)


@contextmanager
def compared(database_url: str, after: int, before: int | None = None) -> Iterator[GenerationDifference]:
    """Yield the difference between generation `after` and `before`, which is the live one if None.

    Raises:
        InputError: there is no such generation, or both are the same.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    # no time limit: a reader may look at a long list for long, and no writer waits for it
    with closing(connect(database_url, idle_max=NO_LIMIT, statement_max=NO_LIMIT)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection:
            yield GenerationDifference(connection, after, before)


def _money(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"
