"""Judge a held member's events after all, in their order, once what could not be judged can be."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from msgspec import msgpack

from engine.evaluate import advance, fold
from engine.ledger.adjustments import counts
from engine.ledger.ranks import report_of
from engine.programme.rules.occurrence import Occurrence
from engine.store.campaigns.budgets import StoredBudgets
from engine.store.generations import adjustments, live_generation
from engine.store.logs import history, source_log
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.reward_log import PostingFields, RewardRows
from engine.store.members import member_states, personal, profiles
from engine.store.members.books import StoredBooks
from engine.store.programmes import load_judge
from engine.store.session.failures import is_data
from schemas.canonical import event_identity
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import Head
    from engine.store.members.member_states import Member


def release_member(cursor: Cursor, shard: int, member_id: str) -> int:
    """Append a `release` to the member's history, judge what waited, and return how many reward events that gave.

    Each event is judged by the version of its own place in the log. The reward events stand at the release, the source
    event that brought them about, and name the event that earned them.

    Raises:
        AnswerIsNo: the member is not held, or an event still cannot be judged; nothing was changed.
    """
    generation = live_generation.lock_live(cursor)
    recorded_ms = live_generation.now_ms(cursor)
    member_states.prepare(cursor)
    (head,) = source_log.lock_heads(cursor, [shard], generation).values()
    owner = (shard, member_id)
    (member,) = member_states.load(cursor, [owner])
    profiles.open_profiles(cursor, [member])
    if not member.state.suspended_since:
        raise AnswerIsNo(f'member "{member_id}" is not held; nothing was changed')
    head.record_at(max(head.recorded_ms, recorded_ms))
    tick_ms = history.tick_at(cursor, shard, member.state.suspended_since)
    waiting = list(history.History(cursor, bare=True).of_member(shard, member.seq, member.state.suspended_since))[::-1]
    rows = source_log.SourceRows()
    suspended_since = member.state.suspended_since
    payload = msgpack.encode({"held_since": suspended_since})
    rows.append_own(
        "release",
        head,
        event_id=_event_id(shard, head.seq + 1),
        payload=payload,
        member_id=member_id,
        prev_seq=member.seq,
    )
    member.seq = head.seq
    member.state.suspended_since = 0
    before = member.state.profile
    rewards = RewardRows(generation, PostingFields())
    budgets = StoredBudgets(cursor, at_once=True)
    books = StoredBooks(cursor, generation, lru_cache(partial(load_judge, cursor)), budgets)
    if tick_ms is not None:
        _advance(books, head, member, (suspended_since, tick_ms), rewards)
    counted = adjustments.counted(cursor, generation)
    for recorded in waiting:
        if counts(recorded.event, counted):
            _judge(books, head, member, recorded, rewards)
    member.tier_report = report_of(books.judge(head.version), member.state)
    books.save([member])
    budgets.save(generation)
    rows.write_events(cursor)
    rewards.write(cursor)
    changed = {}
    if member.state.profile is not before:
        changed[owner] = profiles.sealed(member_id, member.state.profile, personal.keys_for(cursor, [owner])[owner])
    member_states.save(cursor, [member], changed)
    source_log.save_heads(cursor, [head], generation)
    return len(rewards)


def _event_id(shard: int, seq: int) -> str:
    return f"release-{shard}-{seq}"


def _advance(books: StoredBooks, head: Head, member: Member, tick: tuple[int, int], rewards: RewardRows) -> None:
    """Move the member's clock as the tick would have done that failed for them; `tick` is its seq and its time."""
    seq, until_ms = tick
    event_id = _event_id(head.shard, head.seq)
    occurrence = Occurrence(event_identity("guerdon", event_id), head.seq, head.recorded_ms)
    judge = books.judge_at(head.shard, seq)
    try:
        given = advance(member.member_id, member.state, occurrence, judge, books.of(member, seq), until_ms)
    except Exception as error:
        if not is_data(error):
            raise
        raise AnswerIsNo(
            f"what was due for {member.member_id} still cannot be performed ({type(error).__name__}: {error}); "
            "nothing was changed: install the release that mends it, then release again"
        ) from error
    rewards.append(given, head, member.packed_id + pack_text(event_id))


def _judge(books: StoredBooks, head: Head, member: Member, recorded: history.Recorded, rewards: RewardRows) -> None:
    if recorded.event is None:
        return
    seq = recorded.occurrence.seq
    judge = books.judge_at(head.shard, seq)
    occurrence = Occurrence(recorded.occurrence.identity, head.seq, head.recorded_ms)
    try:
        given = fold(member.state, recorded.event, occurrence, judge, books.of(member, seq))  # type: ignore[arg-type]  # a touch has no member
    except Exception as error:
        if not is_data(error):
            raise
        raise AnswerIsNo(
            f"event {recorded.event_id} still cannot be judged ({type(error).__name__}: {error}); "
            "nothing was changed: install the release that mends it, then release again"
        ) from error
    rewards.append(given, head, pack_text(member.member_id) + pack_text(recorded.event_id))
