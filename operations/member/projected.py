"""Read what the projections have of one member, by the keys of their tables.

The rows are those of `guerdon.identified_member_balance`, `_tier` and `_reward`, and a test holds that. The keys begin
with the shard, which those views do not have: asked for one member, PostgreSQL would search the index of every shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.rows import dictionaries
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

_BALANCES = """
/* keep the plan */ SELECT b.unit, -b.issued AS granted, b.pending, b.active, b.reserved, b.spent, b.expired,
       b.reversed + b.debt AS settled, b.reversed, -b.debt AS debt, b.active + b.debt AS available,
       x.expires_at AS next_expiry_at, x.active AS next_expiry_amount, c.as_of,
       x.expires_at <= clock_timestamp() + %(within)s * interval '1 second' AS is_soon,
       x.expires_at <= clock_timestamp() AS is_lapsed
FROM guerdon.live_build l
JOIN guerdon.projection_cursor c ON c.build = l.build AND c.shard = %(shard)s
JOIN guerdon.member_balance b ON b.build = l.build AND b.shard = %(shard)s AND b.member_id = %(member)s
LEFT JOIN LATERAL (
    SELECT e.expires_at, e.active FROM guerdon.member_expiry e
    WHERE e.build = b.build AND e.shard = b.shard AND e.member_id = b.member_id AND e.unit = b.unit
    ORDER BY e.expires_at LIMIT 1
) x ON true
WHERE l.projection = 'member_balance' ORDER BY b.unit
"""

_REWARDS = """
/* keep the plan */ SELECT r.unit, r.item, NULL::text AS code, r.amount, r.status, r.granted_at, r.expires_at
FROM guerdon.live_build l
JOIN guerdon.member_reward r ON r.build = l.build AND r.shard = %(shard)s AND r.member_id = %(member)s
WHERE l.projection = 'member_reward' ORDER BY r.granted_at, r.unit, r.item
"""

_SPENDABLE = """
/* keep the plan */ SELECT b.active + b.debt - coalesce((
           SELECT sum(e.active) FROM guerdon.member_expiry e
           WHERE e.build = b.build AND e.shard = b.shard AND e.member_id = b.member_id AND e.unit = b.unit
             AND e.expires_at <= clock_timestamp()
       ), 0)
FROM guerdon.live_build l
JOIN guerdon.member_balance b ON b.build = l.build AND b.shard = %(shard)s AND b.member_id = %(member)s
WHERE l.projection = 'member_balance' AND b.unit = 'points'
"""

_TIER = """
/* keep the plan */ SELECT tier, tier_since AS since, tier_until AS until, qualifying, next_tier, to_next_tier
FROM guerdon.member_state WHERE shard = %(shard)s AND member_id = %(member)s AND tier IS NOT NULL
"""


def balances_of(
    cursor: Cursor, member_id: str, expiring_within_s: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a member's balances by unit, and the amounts that lapse within a time, the soonest first."""
    rows = dictionaries(cursor, _BALANCES, {**_key(member_id), "within": expiring_within_s})
    balances = [{"member_id": member_id, **row} for row in rows]
    expiring = []
    for row in balances:
        is_soon, is_lapsed = row.pop("is_soon"), row.pop("is_lapsed")
        if is_soon:
            at, amount = row["next_expiry_at"], row["next_expiry_amount"]
            expiring.append({"unit": row["unit"], "at": at, "amount": amount, "lapsed": is_lapsed})
    return balances, sorted(expiring, key=lambda row: (row["at"], row["unit"]))


def spendable_points(cursor: Cursor, member_id: str) -> int:
    """Return the points that a member can spend at this instant; below 0 where they owe.

    Points whose time has passed do not count, though the log records their end with the member's next step only.
    """
    cursor.execute(_SPENDABLE, _key(member_id))
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])


def tier_of(cursor: Cursor, member_id: str) -> dict[str, Any] | None:
    """Return the tier that a member is in, and what is missing to the next; None where there are no tiers."""
    tiers = dictionaries(cursor, _TIER, _key(member_id))
    return tiers[0] if tiers else None


def rewards_of(cursor: Cursor, member_id: str) -> list[dict[str, Any]]:
    """Return every coupon, gift, badge and benefit that a member was given, the oldest first."""
    return dictionaries(cursor, _REWARDS, _key(member_id))


def _key(member_id: str) -> dict[str, Any]:
    return {"shard": shard_of(member_id), "member": member_id}
