"""Report members' tiers again as of an instant: time alone changes them, as numbers leave their window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.extras import execute_values

from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.logs import source_log
from engine.store.members.member_states import decode_state
from engine.store.programmes import load_judge

if TYPE_CHECKING:
    from engine.programme.rules.tiers import TierClock
    from engine.store.cursor import Cursor

MEMBERS_AT_ONCE = 5_000

_COLUMNS = "tier, tier_since, tier_until, qualifying, next_tier, to_next_tier"


def report_again(database_url: str, shard: int, at_ms: int) -> int:
    """Write the tier reports of a shard's members as of an instant, and return how many of them changed.

    `reward.member_tier` shows these reports. States stay as they are: the next event or tick of a member reports the
    tier as of the member's own clock again.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        # lock the shard, and find the clock of its tiers
        generation = live_generation.lock_live(cursor)
        (head,) = source_log.lock_heads(cursor, [shard], generation).values()
        clock = load_judge(cursor, head.version).tier_clock if head.version else None
        if clock is None:
            return 0

        # report page by page
        changed, last = 0, ""
        while True:
            members = _members_after(cursor, shard, last)
            if not members:
                return changed
            last = members[-1][0]
            rows = [(shard, member_id, *_report_of(clock, body, at_ms)) for member_id, body in members]
            changed += _write(cursor, rows)


def _members_after(cursor: Cursor, shard: int, member_id: str) -> list[tuple[str, bytes]]:
    cursor.execute(
        """
        SELECT member_id, state FROM guerdon.member_state
        WHERE shard = %s AND member_id > %s AND tier IS NOT NULL ORDER BY member_id LIMIT %s
        """,
        (shard, member_id, MEMBERS_AT_ONCE),
    )
    return [(each_id, bytes(body)) for each_id, body in cursor.fetchall()]


def _report_of(clock: TierClock, body: bytes, at_ms: int) -> tuple[object, ...]:
    state = decode_state(body)
    return tuple(clock.report(state.tier_state, max(at_ms, state.clock_ms), state.first_ms))


def _write(cursor: Cursor, rows: list[tuple[object, ...]]) -> int:
    """Write the reports that say something else than the table, and return their number."""
    # rows that would stay as they are would only burden those who read snapshots
    changed = execute_values(
        cursor,
        f"""
        UPDATE guerdon.member_state m SET ({_COLUMNS}) = (v.tier, v.since, v.until, v.qualifying, v.next, v.missing)
        FROM (
            SELECT shard::smallint, member_id, tier, to_timestamp(since / 1000.0), to_timestamp(until / 1000.0),
                   qualifying::bigint, next, missing::bigint
            FROM (VALUES %s) AS r (shard, member_id, tier, since, until, qualifying, next, missing)
        ) AS v (shard, member_id, tier, since, until, qualifying, next, missing)
        WHERE m.shard = v.shard AND m.member_id = v.member_id
          AND (m.tier, m.tier_since, m.tier_until, m.qualifying, m.next_tier, m.to_next_tier) IS DISTINCT FROM
              (v.tier, v.since, v.until, v.qualifying, v.next, v.missing)
        RETURNING m.member_id
        """,
        rows,
        template="(%s, %s, %s, %s::bigint, %s::bigint, %s, %s, %s::bigint)",
        page_size=MEMBERS_AT_ONCE,
        fetch=True,
    )
    return len(changed)
