"""Release a held member: judge the events that waited, in their order, now that the failing one can be judged."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from msgspec import msgpack

from engine.driver import Advance, MemberStep, perform
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
    from collections.abc import Sequence

    from engine.driver import Pages
    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import Head
    from engine.store.members.member_states import Member
    from schemas.events import Event, Purchase
    from schemas.rewards import RewardEvent


def release_member(cursor: Cursor, shard: int, member_id: str) -> int:
    """Append a `release` to the member's history, judge what waited, and return the number of reward events.

    Each event is judged by the version of its own place in the log. The reward events stand at the release, which
    brought them about, and name the event that earned them.

    Raises:
        AnswerIsNo: the member is not held, or an event still cannot be judged; nothing was changed.
    """
    # lock the shard, and load the member
    generation = live_generation.lock_live(cursor)
    recorded_ms = live_generation.now_ms(cursor)
    member_states.prepare(cursor)
    (head,) = source_log.lock_heads(cursor, [shard], generation).values()
    owner = (shard, member_id)
    (member,) = member_states.load(cursor, [owner])
    profiles.open_profiles(cursor, [member])
    suspended_since = member.state.suspended_since
    if not suspended_since:
        raise AnswerIsNo(f'member "{member_id}" is not held; nothing was changed')

    # read the member's events that waited, and the tick, if one failed for them (ticks are in no member's chain)
    tick_ms = history.tick_at(cursor, shard, suspended_since)
    waiting = list(history.History(cursor, bare=True).of_member(shard, member.seq, suspended_since))[::-1]

    # append the release
    head.record_at(max(head.recorded_ms, recorded_ms))
    rows = source_log.SourceRows()
    event_id = f"release-{shard}-{head.seq + 1}"
    payload = msgpack.encode({"held_since": suspended_since})
    rows.append_own("release", head, member_id=member_id, prev_seq=member.seq, event_id=event_id, payload=payload)
    member.seq = head.seq

    # judge what waited
    before = member.state.profile
    member.state.suspended_since = 0
    release = _Release(cursor, generation, head)
    if tick_ms is not None:
        release.tick(member, event_id, until_ms=tick_ms, tick_seq=suspended_since)
    for recorded in waiting:
        release.judge(member, recorded)

    # write it all down
    member.tier_report = report_of(release.books.judge(head.version), member.state)
    release.books.save([member])
    release.books.budgets.save(generation)
    rows.write_events(cursor)
    release.rewards.write(cursor)
    changed = {}
    if member.state.profile is not before:
        changed[owner] = profiles.sealed(member_id, member.state.profile, personal.keys_for(cursor, [owner])[owner])
    member_states.save(cursor, [member], changed)
    source_log.save_heads(cursor, [head], generation)
    return len(release.rewards)


class _Release:
    """Judge what waited for a release: each step by the version of its own place, with the books as they were there.

    It is also the driver's port.
    """

    pages: Pages[Member] | None = None

    def __init__(self, cursor: Cursor, generation: int, head: Head) -> None:
        budgets = StoredBudgets(cursor, at_once=True)
        self.books = StoredBooks(cursor, generation, lru_cache(partial(load_judge, cursor)), budgets)
        self.rewards = RewardRows(generation, PostingFields())
        self.counted: frozenset[int] | None = adjustments.counted(cursor, generation)
        self._head = head

    def tick(self, member: Member, event_id: str, *, until_ms: int, tick_seq: int) -> None:
        """Move the member's clock as the tick at `tick_seq` would have done, had it not failed for them."""
        identity = event_identity("guerdon", event_id)
        self._perform(member, Advance(until_ms), identity, event_id, waited_seq=tick_seq)

    def judge(self, member: Member, recorded: history.Recorded) -> None:
        """Judge an event that waited; an earlier release in the member's history is no event."""
        if recorded.event is not None:
            waited_seq = recorded.occurrence.seq
            self._perform(
                member, recorded.event, recorded.occurrence.identity, recorded.event_id, waited_seq=waited_seq
            )

    def _perform(
        self, member: Member, cause: Event | Advance, identity: bytes, event_id: str, *, waited_seq: int
    ) -> None:
        judge = self.books.judge_at(self._head.shard, waited_seq)
        occurrence = Occurrence(identity, self._head.seq, self._head.recorded_ms)
        perform(MemberStep(member, cause, judge, occurrence, event_id, waited_seq=waited_seq), self)

    def books_of(self, step: MemberStep[Member]) -> StoredBooks:
        """Return the member's books as they are known at the step's own place."""
        return self.books.of(step.member, step.seq)

    def remember(self, step: MemberStep[Member], purchase: Purchase) -> None:
        """Remember nothing: the log has every purchase that waited."""

    def bring(self, step: MemberStep[Member], rewards: Sequence[RewardEvent]) -> None:
        """Append the reward events of a step, which name the event that earned them."""
        self.rewards.append(rewards, self._head, step.member.packed_id + pack_text(step.event_id))

    def fail(self, step: MemberStep[Member], error: Exception) -> None:
        """Refuse the release."""
        if not is_data(error):
            raise error
        if isinstance(step.cause, Advance):
            what = f"what was due for {step.member.member_id} still cannot be performed"
        else:
            what = f"event {step.event_id} still cannot be judged"
        raise AnswerIsNo(
            f"{what} ({type(error).__name__}: {error}); "
            "nothing was changed: install the release that mends it, then release again"
        ) from error
