"""Save what a batch has led to: both logs, the members' states, the heads, what was set aside, and the offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.ranks import report_of
from engine.store import quarantine
from engine.store.campaigns import contests
from engine.store.generations import live_generation
from engine.store.kafka import offsets
from engine.store.logs import source_log
from engine.store.members import member_states, personal, profiles

if TYPE_CHECKING:
    from engine.live.work import Work
    from engine.programme.rules.judge import Judge
    from engine.store.cursor import Cursor
    from engine.store.members.member_states import Member


def append_identities(cursor: Cursor, work: Work) -> None:
    """Append the identities of the batch's events: the primary key refuses one that came before."""
    work.source_rows.write_identities(cursor)


def append_rewards(cursor: Cursor, work: Work) -> None:
    """Append the reward events."""
    if work.reward_rows is not None:
        work.reward_rows.write(cursor)


def save_states(cursor: Cursor, work: Work) -> None:
    """Save the members, and all that lies beside their states."""
    # seal the profiles that have changed
    changed = {
        owner: profiles.sealed(owner[1], work.touched[owner].state.profile, work.keys[owner])
        for owner, before in work.profiles.items()
        if work.touched[owner].state.profile != before
    }
    changed |= dict.fromkeys(work.erased, profiles.NOTHING)

    # save the books first: they turn the pages of states that are full
    members = work.touched.values()
    for member in members:
        report_tier(work.judges[work.heads[member.shard].version], member)
    work.books.save(members)
    work.books.budgets.save(work.generation)
    member_states.save(cursor, members, changed)

    # save what members share
    work.referrals.save()
    contests.save_scores(cursor, work.generation, _ranked(work))
    personal.drop_keys(cursor, work.erased)


def report_tier(judge: Judge, member: Member) -> None:
    """Set what `reward.member_tier` says of a member."""
    member.tier_report = report_of(judge, member.state)


def _ranked(work: Work) -> list[Member]:
    """Return the members whom contests may rank otherwise now."""
    followed = {shard for shard, head in work.heads.items() if work.judges[head.version].is_followed}
    return [member for (shard, _), member in work.touched.items() if shard in followed] if followed else []


def save_heads(cursor: Cursor, work: Work) -> None:
    """Save where both logs of the batch's shards end."""
    if work.heads:
        source_log.save_heads(cursor, work.heads.values(), work.generation)


def set_aside(cursor: Cursor, work: Work) -> None:
    """Write the records set aside into the quarantine, resolve the record that is released, and note who is held."""
    if work.batch.released is None:
        quarantine.add(cursor, work.set_aside, work.keys, work.places)
    elif not work.set_aside or work.places:
        quarantine.resolve(cursor, work.batch.released, "released", None)
        quarantine.add(cursor, work.set_aside, work.keys, work.places)
    for index, place in work.places.items():
        held: dict[str, object] = {"member_id": work.held[index], "reason": work.set_aside[index].message}
        live_generation.add_fact(cursor, work.generation, place, "member_held", held)


def advance_offsets(cursor: Cursor, work: Work) -> None:
    """Move the offsets to where the batch ends."""
    offsets.advance(cursor, work.batch.moves, work.counts)
