"""Split the rows of reports by what members are, by what orders are, or by the campaign that gave.

A member's tier changes with time: a movement or an order counts for the tier just before it, a number of members or a
balance for the tier at the period's end. So a split by a property of members is a table of spans, (member_id, value,
since, until]: a member without a row has the value `otherwise`. All parts are SQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from operations.report.frame import Frame

UNKNOWN = ""
"""The value of what has none: a member without a signup, an order without a channel."""

_NOBODY = """
SELECT NULL::text AS member_id, NULL::text AS value, NULL::timestamptz AS since, NULL::timestamptz AS until WHERE false
"""

_TIERS = """
SELECT c.member_id, c.value, c.since, c.until FROM (
    SELECT e.member_id, e.item AS value, e.occurred_at AS since,
           lead(e.occurred_at, 1, 'infinity') OVER (PARTITION BY e.member_id ORDER BY e.occurred_at, e.pos) AS until
    FROM guerdon.reward_event e
    WHERE e.generation = %(generation)s AND e.type = 'tier.changed' AND e.recorded_at < %(known_at)s
) c
UNION ALL
SELECT e.member_id, %(otherwise)s, '-infinity', min(e.occurred_at)
FROM guerdon.reward_event e
WHERE e.generation = %(generation)s AND e.type = 'tier.changed' AND e.recorded_at < %(known_at)s
GROUP BY e.member_id
"""

_MONTHS = """
SELECT f.member_id, to_char(min(f.occurred_at) AT TIME ZONE %(zone)s, 'YYYY-MM') AS value,
       '-infinity'::timestamptz AS since, 'infinity'::timestamptz AS until
FROM guerdon.{table} f WHERE f.build = %(facts)s AND f.recorded_at < %(known_at)s GROUP BY f.member_id
"""


_ARMS = """
SELECT a.member_id, string_agg(CASE WHEN a.salts = 1 THEN a.arm ELSE a.salt || ':' || a.arm END, ', '
                               ORDER BY a.salt) AS value,
       '-infinity'::timestamptz AS since, 'infinity'::timestamptz AS until
FROM (
    SELECT n.member_id, n.salt, n.arm,
           dense_rank() OVER (ORDER BY n.salt) + dense_rank() OVER (ORDER BY n.salt DESC) - 1 AS salts
    FROM (
        SELECT DISTINCT ON (e.member_id, c.salt) e.member_id, c.salt, e.item AS arm
        FROM guerdon.reward_event e JOIN guerdon.programme_version v ON v.version = e.rule_version
        CROSS JOIN LATERAL (VALUES (v.cohorts -> e.rule_id ->> 'salt')) c (salt)
        WHERE e.generation = %(generation)s AND e.type = 'cohort.entered'
          AND e.item IS NOT NULL AND e.debit IS NULL  -- as the index has it
          AND e.recorded_at < %(known_at)s
        ORDER BY e.member_id, c.salt, e.pos
    ) n
) a GROUP BY a.member_id
"""
"""The arm of each member who entered an experiment, with its salt in front where there are several experiments.

Rules that share a salt are one experiment, and the arm of a member's first `cohort.entered` of it counts.
"""


class Split:
    """Split the rows of a report; the plain one gives every row the value UNKNOWN.

    Args:
        spans: a query of spans.
        otherwise: the value of members without a span.
        own_join: a join that finds the value of a row of the log by its lot, with `{row}` for the row's alias.
        own_value: the value of a row of the log, where the row or its lot has it, and not its member.
        order_value: the value of an order, where the order has it, and not its member.
    """

    def __init__(
        self,
        *,
        spans: str = _NOBODY,
        otherwise: str = UNKNOWN,
        own_join: str = "",
        own_value: str = "",
        order_value: str = "",
    ) -> None:
        self.spans = spans
        self.otherwise = otherwise
        self.own_join = own_join
        self.own_value = own_value
        self.order_value = order_value

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters that the parts name beyond those of the frame."""
        return {"otherwise": self.otherwise}

    @property
    def table(self) -> str:
        """Return the spans as a common table expression named `split`."""
        return f"split AS ({self.spans})"

    def joined(self, row: str, at: str) -> str:
        """Return the join that finds the value of a row with a member, just before the instant `at`."""
        if self.own_value:
            return self.own_join.format(row=row)
        return f"LEFT JOIN split s ON s.member_id = {row}.member_id AND s.since < {at} AND {at} <= s.until"

    def value(self, row: str) -> str:
        """Return the value of a row that `joined` has joined."""
        if self.own_value:
            return self.own_value.format(row=row)
        return "coalesce(s.value, %(otherwise)s)"

    def joined_order(self, row: str) -> str:
        """Return the join that finds the value of an order."""
        return "" if self.order_value else self.joined(row, f"{row}.occurred_at")

    def value_of_order(self, row: str) -> str:
        """Return the value of an order that `joined_order` has joined."""
        return self.order_value.format(row=row) or self.value(row)

    def steps(self, row: str, at: str) -> str:
        """Return the joins with which a number that stands from `at` on counts for each value while the member has it.

        `x.at` is then when the number enters (`x.sign` 1) or leaves (-1) the value `s.value`.
        """
        return f"""
        LEFT JOIN split s ON s.member_id = {row}.member_id AND s.until > {at}
        CROSS JOIN LATERAL (VALUES
            (greatest({at}, coalesce(s.since, '-infinity')), 1), (coalesce(s.until, 'infinity'), -1)
        ) x (at, sign)
        """


def _by_tier(of: Frame) -> Split:
    return Split(spans=_TIERS, otherwise=of.programme.lowest_tier or UNKNOWN)


_SPLITS: Mapping[str | None, Callable[[Frame], Split]] = {
    None: lambda _: Split(),
    "tier": _by_tier,
    "joined": lambda _: Split(spans=_MONTHS.format(table="fact_signup")),
    "first_order": lambda _: Split(spans=_MONTHS.format(table="fact_purchase")),
    "arm": lambda _: Split(spans=_ARMS),
    "campaign": lambda _: Split(own_value="coalesce({row}.campaign, '')"),
    "channel": lambda _: Split(
        own_join="""
        LEFT JOIN guerdon.reward_event opened
          ON opened.generation = %(generation)s AND opened.shard = {row}.shard AND opened.lot IS NULL
         AND opened.reward_key = coalesce({row}.lot, {row}.reward_key)
        LEFT JOIN guerdon.fact_purchase bought
          ON bought.build = %(facts)s AND bought.shard = opened.shard AND bought.seq = opened.seq
        """,
        own_value="coalesce(bought.channel, '')",
        order_value="coalesce({row}.channel, '')",
    ),
}

OF_MEMBERS = ("tier", "joined", "first_order", "arm")
"""The splits by a property of the member."""

OF_GRANTS = (*OF_MEMBERS, "campaign", "channel")
"""The splits of what grants became: by the member, by the campaign that gave, or by the channel of the order."""


BY_FACTS = ("joined", "first_order", "channel")
"""The splits whose values stand in the source facts."""


def split(of: Frame) -> Split:
    """Return how the report's rows are split; the catalogue has refused what it cannot be split by."""
    return _SPLITS[of.by](of)


def shown(of: Frame, rows: Mapping[str, Any]) -> Any:
    """Return the rows of a period by their values, or the only row where the report is not split."""
    return rows[UNKNOWN] if of.by is None else {value: rows[value] for value in sorted(rows)}
