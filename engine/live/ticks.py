"""Tick: move the clocks of members who have no event, by a source event of their shard, within the live transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.evaluate import TICK_MEMBERS_MAX
from engine.live.tick import Tick
from engine.programme.occasions import Anniversary, Birthday, ChallengeCompletion, ContestWon, ReferralEvent, TierChange
from engine.store.logs import forwards, source_log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.intake.batch import ClockMove
    from engine.live.batch import Batch
    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import Head

HOUR_MS = 3_600_000

SHARDS_MAX = 4
"""Shards without traffic in one transaction: it stays short, and leaves other shards to other workers."""

_OCCASIONS_OF_TICKS = frozenset((Birthday, Anniversary, TierChange, ChallengeCompletion, ContestWon, ReferralEvent))


def find(cursor: Cursor, heads: Iterable[Head], move: ClockMove | None) -> list[Tick]:
    """Find the ticks that are due in locked shards, one a shard at most, and note in the heads how far time has come.

    A tick reaches TICK_MEMBERS_MAX members. Where more are due, the shard's head stays where it was, so that the next
    transaction finds the others.
    """
    if move is None:
        return []
    due_heads = [head for head in heads if _is_due(head, move)]
    if not due_heads:
        return []

    # find the members who are due
    members: dict[int, list[str]] = {head.shard: [] for head in due_heads}
    cursor.execute(DUE, {"shards": sorted(members), "until_ms": move.until_ms, "members_max": TICK_MEMBERS_MAX})
    for shard, member_id in cursor.fetchall():
        members[shard].append(member_id)

    # note up to when everything is performed
    for head in due_heads:
        if len(members[head.shard]) < TICK_MEMBERS_MAX:
            head.ticked_ms = max(head.ticked_ms or 0, move.until_ms)

    # a promotion asks for ticks of some shards, though nobody may be due there in the live generation
    ticked = {shard: member_ids for shard, member_ids in members.items() if member_ids or shard in move.shards}
    return [Tick(shard, move.until_ms, member_ids) for shard, member_ids in ticked.items()]


def _is_due(head: Head, move: ClockMove) -> bool:
    """Whether a shard may have a tick now: if ticks come hourly, an hour has passed since its last one."""
    return not move.hourly or head.ticked_ms is None or move.until_ms >= head.ticked_ms + HOUR_MS


DUE = """
SELECT w.shard, d.member_id
FROM unnest(%(shards)s::smallint[]) AS w (shard)
CROSS JOIN LATERAL (
    SELECT m.due_at, m.member_id FROM guerdon.member_state m
    WHERE m.shard = w.shard AND m.due_at <= to_timestamp(%(until_ms)s / 1000.0)
    ORDER BY m.due_at, m.member_id LIMIT %(members_max)s
) AS d
ORDER BY w.shard, d.due_at, d.member_id
"""
"""Find due members along the index by due time, and no more of them than one tick reaches."""


def lock_due_heads(cursor: Cursor, move: ClockMove, generation: int) -> dict[int, Head]:
    """Lock the heads of some shards in which a tick is due, or something waits to be taken in.

    Shards on which somebody else works are left out.
    """
    # lock rows that nobody ever changes, and skip those that others have locked
    cursor.execute(
        f"""
        SELECT h.shard FROM guerdon.shard_lock h
        CROSS JOIN LATERAL (
            SELECT s.ticked_at FROM guerdon.shard_head s WHERE s.shard = h.shard ORDER BY s.seq DESC LIMIT 1
        ) last
        WHERE (
              (NOT %(hourly)s OR last.ticked_at IS NULL
               OR last.ticked_at <= to_timestamp((%(until_ms)s - %(hour_ms)s) / 1000.0))
              AND EXISTS (
                  SELECT FROM guerdon.member_state m
                  WHERE m.shard = h.shard AND m.due_at <= to_timestamp(%(until_ms)s / 1000.0)
              )
          ) OR {forwards.WAITS}
        ORDER BY h.shard LIMIT %(shards_max)s FOR UPDATE OF h SKIP LOCKED
        """,
        {
            "hourly": move.hourly,
            "until_ms": move.until_ms,
            "hour_ms": HOUR_MS,
            "shards_max": SHARDS_MAX,
            "passed_ms": move.reached_ms,
        },
    )

    # read the heads under these locks
    shards = [shard for (shard,) in cursor.fetchall()]
    return source_log.lock_heads(cursor, shards, generation) if shards else {}


def lock_heads_of(cursor: Cursor, batch: Batch, generation: int) -> dict[int, Head]:
    """Lock the heads of the shards that a batch works on."""
    move, portion = batch.clock, batch.portion
    if move is not None and move.everywhere:
        return lock_due_heads(cursor, move, generation)
    shards = {event.shard for event in batch.admitted} | set(() if move is None else move.shards)
    shards |= set() if portion is None else portion.shards
    return source_log.lock_heads(cursor, shards, generation)


def is_any_due(cursor: Cursor, move: ClockMove) -> bool:
    """Whether any shard has a member who is due, or forwarded events or signups that wait to be taken in."""
    cursor.execute(
        f"""
        SELECT FROM guerdon.shard_lock h
        WHERE EXISTS (
            SELECT FROM guerdon.member_state m
            WHERE m.shard = h.shard AND m.due_at <= to_timestamp(%(until_ms)s / 1000.0)
        ) OR {forwards.WAITS} LIMIT 1
        """,
        {"until_ms": move.until_ms, "passed_ms": move.reached_ms},
    )
    return cursor.fetchone() is not None


def reads_profiles(judge: CompiledJudge) -> bool:
    """Whether a tick needs its members' profiles, for birthdays or for rules on occasions that a tick can bring."""
    return Birthday in judge.timed or not judge.profiled.isdisjoint(_OCCASIONS_OF_TICKS)
