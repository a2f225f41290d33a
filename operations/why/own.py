"""Explain reward events that no event from outside brought about, but a tick or the closing of a contest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.explain.moves import sentence_of
from engine.explain.values import Wording
from engine.intake.own_events import Attribution, Forwarded
from engine.store.generations import live_generation
from engine.store.programmes import load_judge
from schemas.rewards import Posting, RewardEvent

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from schemas.events import Event


class Whose(NamedTuple):
    """Name a member with their shard."""

    shard: int
    member_id: str


class Reward(NamedTuple):
    """Hold the columns of a reward event that its explanation needs."""

    key: bytes
    shard: int
    seq: int
    member_id: str
    event_id: str
    type: str
    unit: str
    amount: int
    debit: str | None
    credit: str | None
    lot: bytes | None
    item: str | None
    rule_id: str | None
    rule_version: int | None
    reason: str | None
    available_ms: int | None
    expires_ms: int | None
    occurred_ms: int


COLUMNS = """
reward_key, shard, seq, member_id, event_id, type::text, unit, amount, debit::text, credit::text, lot, item, rule_id,
rule_version, reason, guerdon.ms(available_at), guerdon.ms(expires_at), guerdon.ms(occurred_at)
"""
"""The fields of a `Reward` as the log has them."""

BY_KEY = f"SELECT {COLUMNS} FROM guerdon.{{log}} WHERE reward_key = %(key)s"

LAST_BROUGHT = """
WITH own AS MATERIALIZED (
    SELECT seq, event_id, pos FROM guerdon.reward_event
    WHERE generation = %(generation)s AND shard = %(shard)s AND member_id = %(member)s
)
SELECT seq, event_id FROM own GROUP BY seq, event_id ORDER BY max(pos) DESC LIMIT %(last)s
"""
"""Find all of the member's reward events by the index by member; reading the log backwards would be a scan."""


def find_reward(cursor: Cursor, generation: int, key: bytes, member: Whose | None = None) -> Reward | None:
    """Return the reward event with a key, or None.

    Args:
        cursor: reads the log.
        generation: its log is read.
        key: the key of the reward event.
        member: the member of the reward event, where known: then the index by member finds it.

    Only the log of a generation that is or was live has that index, and another that names the range of pages for a
    key; the log of a shadow is read through.
    """
    by_key = BY_KEY.format(log=f"reward_event_g{generation:d}")
    if member is None:
        cursor.execute("SET LOCAL enable_seqscan = off")  # the planner believes that the index of ranges is of no use
        cursor.execute(by_key, {"key": key})
    else:
        parameters = {"key": key, "shard": member.shard, "member": member.member_id}
        cursor.execute(f"{by_key} AND shard = %(shard)s AND member_id = %(member)s", parameters)
    row = cursor.fetchone()
    return None if row is None else Reward(*row)


def last_brought(cursor: Cursor, generation: int, member: Whose, last: int) -> list[tuple[int, str]]:
    """Return where a member had reward events last: seq and event_id of each place."""
    cursor.execute(
        LAST_BROUGHT, {"generation": generation, "shard": member.shard, "member": member.member_id, "last": last}
    )
    return [(seq, event_id) for seq, event_id in cursor.fetchall()]


def origin_of(event: Event | None) -> list[str]:
    """Return a sentence that names the upstream event for which Guerdon wrote this one, if it did."""
    if isinstance(event, Forwarded):
        did = event.event
        return [f'it passes on what referee "{event.referee_id}" did: event "{did.event_id}" of source "{did.source}"']
    if isinstance(event, Attribution) and event.origin_event_id is not None:
        return [f'it decides on the signup: event "{event.origin_event_id}" of source "{event.origin_source}"']
    return []


def sentence_of_row(cursor: Cursor, generation: int, reward: Reward) -> str:
    """Return a sentence on the change of a lot or an item, and on the event that had granted it."""
    version = reward.rule_version or live_generation.version_at(cursor, generation, reward.shard, reward.seq)
    grant = None
    if reward.lot is not None:
        grant = find_reward(cursor, generation, reward.lot, Whose(reward.shard, reward.member_id))
    wording = Wording.of(load_judge(cursor, version).programme)
    return sentence_of(event_of(reward), wording, None if grant is None else grant.event_id)


def event_of(reward: Reward) -> RewardEvent:
    """Return a row of the log as the reward event that it was written from."""
    posting = Posting(
        type=reward.type, unit=reward.unit, debit=reward.debit, credit=reward.credit, rule_id=reward.rule_id,
        rule_version=reward.rule_version, item=reward.item, reason=reward.reason,
    )  # fmt: skip
    return RewardEvent(
        posting,
        reward.amount,
        reward.key,
        reward.occurred_ms,
        order_id=None,
        lot=reward.lot,
        available_at_ms=reward.available_ms,
        expires_at_ms=reward.expires_ms,
    )
