"""Read what was decided on a redemption: its reward events, and what was available after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store.cursor import one
from operations.rows import dictionaries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.programme.model import Programme
    from engine.store.cursor import Cursor
    from engine.store.logs.history import Recorded
    from operations.redemption.lookups import Lookups
    from schemas.events import Redemption

VERBS = {"reserve": "reserved", "capture": "captured", "void": "voided", "spend": "captured", "restore": "restored"}
"""The verb of the reward events by which each action moves an amount."""


OWN = """
WITH own AS MATERIALIZED (
    SELECT pos, seq, type, unit, amount, debit, credit, item, reason, rule_id, event_id, expires_at
    FROM guerdon.reward_event WHERE generation = %(generation)s AND shard = %(shard)s AND member_id = %(member)s
)
"""
"""The member's reward events, by the index by member: in the order of positions the whole shard would be read."""


class Judged(NamedTuple):
    """Hold a redemption with its decision."""

    recorded: Recorded
    event: Redemption
    generation: int
    version: int
    programme: Programme

    rows: Sequence[dict[str, Any]]
    """The reward events that the redemption brought about."""

    available: int
    """How much the member could spend after it, in its unit."""

    @property
    def unit(self) -> str:
        """Return the unit in which the redemption is paid."""
        moved = (row["unit"] for row in self.rows if row["verb"] in VERBS.values() and row["reason"] is None)
        return next(moved, self.event.unit or "points")

    @property
    def refused(self) -> dict[str, Any] | None:
        """Return the reward event that refuses the redemption, or None."""
        refusals = (row for row in self.rows if row["verb"] == "refused" and row["rule_id"] is None)
        return next(refusals, None)

    def moved(self) -> int:
        """Return how much of the unit the redemption has moved as its action says."""
        verb = VERBS[self.event.action]
        return sum(row["amount"] for row in self.rows if row["verb"] == verb and row["reason"] is None)


def judged_at(cursor: Cursor, lookups: Lookups, shard: int, recorded: Recorded, event: Redemption) -> Judged:
    """Return what the generation decided that was live then, or the live one where that is gone."""
    seq, member_id = recorded.occurrence.seq, event.member_id
    generation, version = one(
        cursor,
        """
        WITH live AS (SELECT generation FROM guerdon.generation WHERE status = 'live'), decided AS (
            SELECT coalesce(
                (SELECT s.previous FROM guerdon.generation_switch s
                 WHERE guerdon.ms(s.at) > %(recorded)s ORDER BY s.at LIMIT 1),
                (SELECT generation FROM live)
            ) AS number
        ), kept AS (
            SELECT CASE WHEN to_regclass(format('guerdon.reward_event_g%%s', number)) IS NOT NULL THEN number
                        ELSE (SELECT generation FROM live) END AS number
            FROM decided
        )
        SELECT k.number, (
            SELECT s.version FROM guerdon.generation_schedule s
            WHERE s.generation = k.number AND s.shard = %(shard)s AND s.from_seq < %(seq)s
            ORDER BY s.from_seq DESC LIMIT 1
        )
        FROM kept k
        """,
        {"recorded": recorded.occurrence.recorded_at_ms, "shard": shard, "seq": seq},
    )
    whose = {"generation": generation, "shard": shard, "member": member_id, "seq": seq, "event": event.event_id}
    rows = dictionaries(
        cursor,
        f"""
        {OWN}
        SELECT r.pos, r.seq, split_part(r.type::text, '.', 2) AS verb, r.unit, r.amount, r.item, r.reason, r.rule_id,
               r.expires_at
        FROM own r
        WHERE r.event_id = %(event)s
          AND (r.seq = %(seq)s OR r.seq > %(seq)s AND EXISTS (
              SELECT FROM guerdon.source_event e WHERE e.shard = %(shard)s AND e.seq = r.seq AND e.kind = 'release'
          ))
        ORDER BY r.pos
        """,
        whose,
    )

    programme = lookups.programme(cursor, version)
    judged = Judged(recorded, event, generation, version, programme, rows, available=0)
    upto = {"pos": rows[-1]["pos"] if rows else None, "unit": judged.unit}
    (available,) = one(
        cursor,
        f"""
        {OWN}
        SELECT coalesce(sum(CASE WHEN credit IN ('active', 'debt') THEN amount ELSE 0 END
                          - CASE WHEN debit IN ('active', 'debt') THEN amount ELSE 0 END), 0)
        FROM own WHERE unit = %(unit)s AND (pos <= %(pos)s OR %(pos)s IS NULL AND seq <= %(seq)s)
        """,
        whose | upto,
    )
    return judged._replace(available=int(available))
