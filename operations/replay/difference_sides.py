"""Add up the amounts that members have on one side of a comparison: in a generation, or by a fold in memory.

Both sides become rows of the same temporary tables, so that the same questions serve all comparisons.
"""

from __future__ import annotations

import csv
from decimal import Decimal
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

from engine.programme.file.currencies import MINOR_DIGITS
from engine.store import programmes
from engine.store.cursor import one
from schemas.rewards import HONOURED, ITEM_LOSSES, ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.programme.model import Programme
    from engine.store.cursor import Cursor

MAKE = """
DROP TABLE IF EXISTS difference_side, difference_standing, difference_part, difference_member;
SET LOCAL work_mem = '256MB';
CREATE TEMPORARY TABLE difference_side (
    is_after boolean DEFAULT true, shard smallint, member_id text COLLATE "C", unit text, rule_id text, campaign text,
    kept numeric, spent numeric, awards bigint, given numeric
) ON COMMIT DROP;
CREATE TEMPORARY TABLE difference_standing (
    is_after boolean DEFAULT true, shard smallint, member_id text COLLATE "C", tier text
) ON COMMIT DROP;
"""

# a movement names the rule and the campaign of the lot that moves, so nobody has to look for the grant
_ADD_UP = """
INSERT INTO difference_side
SELECT %(is_after)s, shard, member_id, unit, rule_id, campaign, sum(kept), sum(spent),
       count(*) FILTER (WHERE is_award AND occurred_at >= %(since)s),
       coalesce(sum(amount) FILTER (WHERE is_award AND occurred_at >= %(since)s), 0)
FROM (
    SELECT shard, member_id, unit, rule_id, campaign, amount, occurred_at,
           (debit = 'issued' AND reason IS DISTINCT FROM %(honoured)s)
           OR (debit IS NULL AND coalesce(lot = reward_key, true)) AS is_award,
           CASE WHEN debit IS NOT NULL THEN
                    CASE WHEN credit IN ('pending', 'active', 'reserved', 'spent', 'debt') THEN amount ELSE 0 END
                  - CASE WHEN debit IN ('pending', 'active', 'reserved', 'spent', 'debt') THEN amount ELSE 0 END
                WHEN coalesce(lot = reward_key, true) THEN amount
                WHEN split_part(type::text, '.', 2) = ANY(%(losses)s) THEN -amount
                ELSE 0 END AS kept,
           CASE WHEN credit = 'spent' THEN amount WHEN debit = 'spent' THEN -amount ELSE 0 END AS spent
    FROM guerdon.reward_event
    WHERE generation = %(generation)s AND type <> 'reward.refused'
      AND (debit IS NOT NULL OR (item IS NOT NULL AND unit = ANY(%(items)s)))
) moved
WHERE kept <> 0 OR spent <> 0
GROUP BY shard, member_id, unit, rule_id, campaign
"""
_STANDINGS = """
INSERT INTO difference_standing
SELECT DISTINCT ON (shard, member_id) %(is_after)s, shard, member_id, tier
FROM guerdon.tier_movement WHERE generation = %(generation)s ORDER BY shard, member_id, pos DESC
"""


class FigureTerms(NamedTuple):
    """Hold the parts of a programme that figures need: its lowest tier, the cost of a point, and the currency."""

    lowest_tier: str | None = None
    liability_per_point: Decimal | None = None
    """In major units of the currency."""

    currency: str | None = None


def terms_in(programme: Programme) -> FigureTerms:
    """Return the terms of a programme."""
    each, currency = programme.terms.points.liability_per_point, programme.currency
    cost = None if each is None else (Decimal(each.numerator) / each.denominator).scaleb(-MINOR_DIGITS[currency])
    return FigureTerms(programme.lowest_tier, cost, currency)


def terms_of(cursor: Cursor, generation: int) -> FigureTerms:
    """Return the terms of the newest version that judges in a generation."""
    (version,) = one(cursor, "SELECT max(version) FROM guerdon.generation_head WHERE generation = %s", (generation,))
    return FigureTerms() if version is None else terms_in(programmes.judged_as(cursor, version))


def add_generation(cursor: Cursor, generation: int, since: str, *, is_after: bool) -> None:
    """Add up a generation; awards from `since` on, an instant as PostgreSQL reads it, count as `given`."""
    where = {
        "generation": generation, "is_after": is_after, "since": since, "honoured": HONOURED,
        "items": list(ITEM_UNITS), "losses": sorted(ITEM_LOSSES),
    }  # fmt: skip
    cursor.execute(_ADD_UP, where)
    cursor.execute(_STANDINGS, where)


def csv_of(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV for PostgreSQL's COPY; None becomes NULL, and so would an empty text."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def add_folded(cursor: Cursor, parts: str, standings: str) -> None:
    """Add the results of a fold in memory as the side `after`, as CSV without the column `is_after`."""
    columns = "shard, member_id, unit, rule_id, campaign, kept, spent, awards, given"
    cursor.copy_expert(f"COPY difference_side ({columns}) FROM STDIN (FORMAT csv)", StringIO(parts), size=1 << 20)
    cursor.copy_expert(
        "COPY difference_standing (shard, member_id, tier) FROM STDIN (FORMAT csv)", StringIO(standings), size=1 << 20
    )
