"""Explain reward events that no event from outside brought about: what a tick let happen, what a contest gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.live import load_judge
from engine.meaning import MEANING
from engine.programme.explain_values import Wording, quoted
from engine.referral.facts import Attribution, Forwarded
from engine.store import generations
from operations.rows import plain
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from engine.store.history import Recorded
    from engine.store.shadows import Generation
    from schemas.events import Event


OTHERWISE = "the reward log says otherwise than this release would decide; run `guerdon verify`"


class Reward(NamedTuple):
    """Hold the columns of a reward event that its explanation needs."""

    shard: int
    seq: int
    member_id: str
    event_id: str
    type: str
    unit: str
    amount: int
    lot: bytes | None
    item: str | None
    rule_id: str | None
    rule_version: int | None
    reason: str | None
    available_at: datetime | None
    expires_at: datetime | None
    occurred_at: datetime


def find_reward(cursor: Cursor, generation: int, key: bytes, member: tuple[int, str] | None = None) -> Reward | None:
    """Return the reward event under a key, of one member, by (shard, member_id), where it is known whose it is."""
    whose = "" if member is None else " AND shard = %(shard)s AND member_id = %(member_id)s"
    shard, member_id = member or (None, None)
    cursor.execute(
        f"""
        SELECT shard, seq, member_id, event_id, type::text, unit, amount, lot, item, rule_id, rule_version, reason,
               available_at, expires_at, occurred_at
        FROM guerdon.reward_event WHERE generation = %(generation)s AND reward_key = %(key)s{whose}
        """,  # noqa: S608  a text of this function
        {"generation": generation, "key": key, "shard": shard, "member_id": member_id},
    )
    row = cursor.fetchone()
    return None if row is None else Reward(*row)


def explain_own(cursor: Cursor, generation: int, reward: Reward, recorded: Recorded) -> dict[str, Any]:
    """Return the document of a reward event that Guerdon's own source event `recorded` brought about."""
    return {
        "event_id": reward.event_id, "source": "guerdon", "type": recorded.kind, "member_id": reward.member_id,
        "shard": reward.shard, "seq": reward.seq, "occurred_at": plain(reward.occurred_at),
        "recorded_at": iso_from_instant(recorded.occurrence.recorded_at_ms), "status": "by itself", "programme": None,
        "rule_version": reward.rule_version, "log_agrees": None, "notes": [_sentence(cursor, generation, reward)],
        "rules": [], "tier": None,
    }  # fmt: skip


def origin_of(event: Event | None) -> list[str]:
    """Return for which upstream event Guerdon wrote this one: its own event_id may be a digest of that."""
    if isinstance(event, Forwarded):
        did = event.event
        return [f'it passes on what referee "{event.referee_id}" did: event "{did.event_id}" of source "{did.source}"']
    if isinstance(event, Attribution) and event.origin_event_id is not None:
        return [f'it decides on the signup: event "{event.origin_event_id}" of source "{event.origin_source}"']
    return []


_BY_ITSELF = {
    "expired": "lapsed: they were valid until {expires_at}",
    "released": "became available: their hold ended at {available_at}",
    "voided": "were given back: nobody captured the reservation in time",
    "settled": "paid a debt as they became available",
    "reversed": "were taken back",
    "ended": "came to an end at {expires_at}",
    "revoked": "was taken back",
}


def _sentence(cursor: Cursor, generation: int, reward: Reward) -> str:
    """Return what happened, and what had brought about what it happened to."""
    version = reward.rule_version or generations.version_at(cursor, generation, reward.shard, reward.seq)
    wording = Wording.of(load_judge(cursor, version).programme)
    what = wording.reward(reward.unit, reward.amount, reward.item)
    verb = reward.type.partition(".")[2]
    if reward.type == "tier.changed":
        return f"a review was due: the tier became {reward.item} ({reward.reason})"
    if reward.type == "contest.won":
        return f"contest {quoted(reward.item or '')} was closed, and the member came in at {reward.reason}"
    if reward.type == "reward.refused":
        return f"{what} were refused: {reward.reason}"
    if reward.lot is None or verb not in _BY_ITSELF:
        by = f"rule {reward.rule_id}" if reward.rule_id else f"the programme ({reward.reason})"
        return f"{by} gave {what}: its time had come, no event was needed"
    times = {
        name: "-" if at is None else wording.instant(int(at.timestamp() * 1000))
        for name, at in (("expires_at", reward.expires_at), ("available_at", reward.available_at))
    }
    grant = find_reward(cursor, generation, reward.lot, (reward.shard, reward.member_id))
    came = "" if grant is None else f"; they came with event {grant.event_id}, by {_giver(grant)}"
    return f"{what} {_BY_ITSELF[verb].format(**times)}{came}"


def _giver(grant: Reward) -> str:
    return f"rule {grant.rule_id}" if grant.rule_id else f"no rule ({grant.reason})"


def with_meaning(document: dict[str, Any], by: Generation) -> dict[str, Any]:
    """Return the document with the meaning that has decided, and what follows for an explanation by another one."""
    if by.meaning != MEANING:
        document["notes"] = [note for note in document["notes"] if note != OTHERWISE]
        document["notes"].append(
            f"generation {by.number} was decided by meaning {by.meaning}, and this release explains by meaning "
            f"{MEANING}: the reward log {'says' if document['log_agrees'] else 'may say'} "
            f"{'the same here' if document['log_agrees'] else 'otherwise'}"
        )
    return document | {"meaning": by.meaning}
