"""Name the members and rewards that a batch concerns before it is judged, so that all are read and locked at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.evaluate import LEDGER_EVENTS
from engine.live import ticks
from engine.referral.tracker import FORWARDED
from schemas.events import Redemption
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from engine.live.work import Work
    from engine.store.members.member_states import Member
    from engine.store.members.personal import Owner


def own(work: Work) -> list[Owner]:
    """Return the members of ticks, forwarded events and waiting signups, and the receivers of the batch's events."""
    return [
        *((tick.shard, member_id) for tick in work.ticks for member_id in tick.member_ids),
        *((row.shard, row.event.member_id) for row in work.drained or ()),
        *((row.shard, row.waiting.signup.member_id) for row in work.waited or ()),
        *work.referrers,
    ]


def senders(work: Work) -> list[Owner]:
    """Return the members whose own events are in the batch."""
    return [(event.shard, event.member_id) for event in work.batch.admitted if event.member_id]


def referrers(work: Work) -> set[Owner]:
    """Return the members of the batch's own shards who may get forwarded events from it."""
    member_ids = set(work.referrals.referrers)
    for event in work.batch.admitted:
        member = work.members[event.shard].get(event.member_id)
        if member is not None and member.tracker is not None and type(event.event) in FORWARDED:
            member_ids.add(member.tracker.referrer_id)
    return {(shard, member_id) for member_id in member_ids if (shard := shard_of(member_id)) in work.heads}


def movers(work: Work) -> dict[Owner, Member]:
    """Return the members whose lots the batch is known to move; other ledgers are opened when they are needed."""
    # ticks, forwarded events and decided signups
    members = {(shard, member_id): work.members[shard][member_id] for shard, member_id in own(work)}

    # events that move lots, or let happen what is due by their time
    for event in work.batch.admitted:
        member = work.members[event.shard].get(event.member_id)
        if member is not None and (member.state.pages or member.state.is_booked):
            due_ms = member.state.due_ms
            if type(event.event) in LEDGER_EVENTS or (due_ms is not None and due_ms <= event.event.occurred_at):
                members[event.shard, event.member_id] = member
    return members


def stocked(work: Work) -> set[str]:
    """Return the rewards with a limited stock that the batch may take from."""
    rewards = set()
    for event in work.batch.admitted:
        asked = event.event
        if isinstance(asked, Redemption) and asked.reward is not None and asked.action in ("reserve", "spend"):
            reward = work.judges[work.heads[event.shard].version].programme.terms.reward(asked.reward)
            if reward is not None and reward.stock is not None:
                rewards.add(reward.id)
    return rewards


def readers(work: Work) -> set[Owner]:
    """Return the members whose profile a rule may read.

    Any event may let due instants happen, so rules on those count, too. A member who still follows an earlier version
    counts always: that version may decide the due instants, and its rules may read any profile.
    """
    in_force = {shard: work.judges[head.version] for shard, head in work.heads.items()}
    behind = _behind(work)
    if not any(judge.profiled or judge.timed for judge in in_force.values()):
        return behind
    return (
        behind
        | {owner for owner in own(work) if ticks.reads_profiles(in_force[owner[0]])}
        | {
            (event.shard, event.member_id)
            for event in work.batch.admitted
            if event.member_id
            and (type(event.event) in in_force[event.shard].profiled or ticks.reads_profiles(in_force[event.shard]))
        }
    )


def _behind(work: Work) -> set[Owner]:
    """Return the members who still follow an earlier version than the one in force."""
    in_force = {shard: (0, head.version) for shard, head in work.heads.items()}
    members = work.members
    owners = {owner for owner in own(work) if members[owner[0]][owner[1]].state.version not in in_force[owner[0]]}
    for event in work.batch.admitted:
        member = members[event.shard].get(event.member_id)
        if member is not None and member.state.version not in in_force[event.shard]:
            owners.add((event.shard, event.member_id))
    return owners
