"""Show one member by the views and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store.database import snapshot
from engine.store.generations import live_generation
from operations.member.projected import balances_of, rewards_of, tier_of
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

REWARD_EVENTS_SHOWN = 20
EXPIRING_WITHIN_S = 30 * 86_400

LAST_REWARD_EVENTS = """
WITH own AS MATERIALIZED (
    SELECT pos FROM guerdon.reward_event
    WHERE generation = %(live)s AND shard = %(shard)s AND member_id = %(member)s
)
SELECT * FROM guerdon.identified_reward_event
WHERE shard = %(shard)s AND pos = ANY(ARRAY(SELECT pos FROM own ORDER BY pos DESC LIMIT %(last)s))
ORDER BY pos DESC
"""
"""The index by member finds all of the member's reward events; reading backwards from the log's end would be a scan."""


def member(
    database_url: str,
    member_id: str,
    reward_events_max: int = REWARD_EVENTS_SHOWN,
    *,
    expiring_within_s: int = EXPIRING_WITHIN_S,
) -> dict[str, Any]:
    """Return the member's balances, tier, rewards, what expires soon, last reward events, and records that hold them.

    Raises:
        AnswerIsNo: no event of this member was ever recorded.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with snapshot(database_url) as cursor:
        return member_view(cursor, member_id, reward_events_max, expiring_within_s=expiring_within_s)


def member_view(
    cursor: Cursor, member_id: str, reward_events_max: int, *, expiring_within_s: int = EXPIRING_WITHIN_S
) -> dict[str, Any]:
    """Return the same as `member`, read by `cursor`: the log and the views as of one instant, where it has a snapshot.

    Raises:
        AnswerIsNo: no event of this member was ever recorded.
    """
    shard = shard_of(member_id)
    last_events = dictionaries(
        cursor,
        """
        /* keep the plan */
        SELECT e.seq AS last_seq, e.occurred_at AS last_occurred_at, e.recorded_at AS last_recorded_at,
               e.kind::text AS last_type, e.event_id AS last_event_id
        FROM guerdon.member_state m JOIN guerdon.source_event e USING (shard, seq)
        WHERE m.shard = %s AND m.member_id = %s
        """,
        (shard, member_id),
    )
    if not last_events:
        raise unknown(member_id)

    events = []
    if reward_events_max:
        live = live_generation.live(cursor)
        place = {"live": live, "shard": shard, "member": member_id, "last": reward_events_max}
        events = dictionaries(cursor, LAST_REWARD_EVENTS, place)
    return {
        "member_id": member_id,
        "shard": shard,
        **last_events[0],
        **_views(cursor, member_id, expiring_within_s),
        "reward_events": events,
    }


def unknown(member_id: str) -> AnswerIsNo:
    """Return the error of a member without any recorded event."""
    return AnswerIsNo(
        f'no event of a member "{member_id}" was recorded; ids are compared as they are, capitals included'
    )


def check_known(cursor: Cursor, member_id: str) -> None:
    """Refuse a member without any recorded event.

    Raises:
        AnswerIsNo: with the reason.
    """
    cursor.execute(
        "/* keep the plan */ SELECT FROM guerdon.member_state WHERE shard = %s AND member_id = %s",
        (shard_of(member_id), member_id),
    )
    if cursor.fetchone() is None:
        raise unknown(member_id)


def _views(cursor: Cursor, member_id: str, expiring_within_s: int) -> dict[str, Any]:
    """Return the member's rows of the views."""
    balances, expiring = balances_of(cursor, member_id, expiring_within_s)

    # the records in quarantine that hold them
    holds = dictionaries(
        cursor,
        """
        /* keep the plan */ SELECT id, event_id, message FROM guerdon.quarantine
        WHERE member_id = %s AND seq IS NOT NULL AND status = 'open' ORDER BY id
        """,
        (member_id,),
    )

    return {
        **_referrals(cursor, member_id),
        "tier": tier_of(cursor, member_id),
        "balances": balances,
        "expiring": expiring,
        "rewards": rewards_of(cursor, member_id),
        "held_because": holds,
    }


def codes_of(cursor: Cursor, member_id: str) -> list[str]:
    """Return the referral codes of a member."""
    cursor.execute(
        "/* keep the plan */ SELECT code FROM guerdon.identified_member_code WHERE member_id = %s ORDER BY code",
        (member_id,),
    )
    return [code for (code,) in cursor.fetchall()]


def _referrals(cursor: Cursor, member_id: str) -> dict[str, Any]:
    """Return the member's codes, who referred them, and a summary of the members that they referred."""
    referred_by = dictionaries(
        cursor,
        """
        /* keep the plan */ SELECT referrer_id, status, reason, attributed_at
        FROM guerdon.identified_referral WHERE referee_id = %s
        """,
        (member_id,),
    )
    referrer = dictionaries(
        cursor,
        "/* keep the plan */ SELECT * FROM guerdon.identified_referrer WHERE referrer_id = %s",
        (member_id,),
    )
    return {
        "codes": codes_of(cursor, member_id),
        "referred_by": referred_by,
        "referrer": referrer[0] if referrer else None,
    }
