"""Record a batch: append each event in its order to the source log, judge it, and append what it gives."""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

from engine.driver import Advance, MemberStep, perform
from engine.intake.own_events import Attribution
from engine.live.duplicates import DUPLICATE
from engine.live.tick import Tick
from engine.live.verdicts import failed, verdict_on
from engine.live.work import ACCEPTED, QUARANTINED, REPEATED, set_aside
from engine.programme.rules.occurrence import Occurrence
from engine.referral.tracker import FORWARDED
from engine.referral.turns import Turns
from engine.store.logs import forwards
from engine.store.logs.binary_copy import pack_text
from engine.store.members import personal
from engine.store.referrals.attribution import NOTED
from engine.store.session.failures import is_judging
from schemas.canonical import event_identity
from schemas.events import INT64_MAX
from schemas.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.driver import Pages
    from engine.intake.batch import Admitted, SetAside
    from engine.intake.own_events import Forwarded
    from engine.live.work import Work
    from engine.programme.model import Programme
    from engine.store.logs.forwards import WaitedSignup
    from engine.store.logs.reward_log import RewardRows
    from engine.store.logs.source_log import Head
    from engine.store.members.books import StoredBooks
    from engine.store.members.member_states import Member
    from schemas.events import Purchase
    from schemas.rewards import RewardEvent

_pack_source = lru_cache(1_000)(pack_text)  # a programme has few producers and many events of each


class Recorder:
    """Record what one attempt has loaded, in memory; the steps that follow write it.

    Args:
        work: the attempt's events and everything that was loaded for them.
        reward_rows: collects the reward events.
        unjudgeable: errors of earlier attempts, by the identity of the event or the key of a member's tick: these are
            set aside now, and their members held.
    """

    def __init__(self, work: Work, reward_rows: RewardRows, unjudgeable: Mapping[bytes, Exception]) -> None:
        self._work = work
        self._reward_rows = reward_rows
        self._unjudgeable = unjudgeable
        self._packed_event_id = b""

    def record_all(self) -> None:
        """Record ticks first, then the batch's events, merged by time with waiting signups and forwarded events."""
        work = self._work
        for record in work.batch.set_aside:
            work.counts[record.topic or "", record.partition][QUARANTINED] += 1
        for tick in work.ticks:
            self._tick(tick)

        # queue forwarded events and waiting signups by time
        overtaken = work.overtaken if work.batch.portion is None else None
        turns = work.referrals.turns = Turns(work.drained or (), overtaken)
        waiting = [(work.referrals.came_ms(each, self._programme(each.shard)), each) for each in work.waited or ()]
        waiting = sorted(waiting, key=itemgetter(0))[::-1]  # the first is taken from the end

        # merge them with the batch's own events, which keep their order
        reached_ms = 0
        for event in work.batch.admitted:
            if event.event.occurred_at > reached_ms:  # noqa: PLR1730  max() costs as much as a look-up of the event
                reached_ms = event.event.occurred_at
            while waiting and waiting[-1][0] <= reached_ms:
                self._decide(waiting.pop()[1])
            for drained in turns.until(reached_ms):
                self._record_own(drained.event, drained.shard)
            self._take(event)

        # record those whose turn comes after the last event
        while waiting:
            self._decide(waiting.pop()[1])
        for drained in turns.until(INT64_MAX):
            self._record_own(drained.event, drained.shard)

    def _take(self, event: Admitted) -> None:
        """Record a new event, count a repeated one, set aside one that contradicts the log or comes after erasure."""
        work = self._work
        verdict = work.seen.verdict(event)
        member = work.members[event.shard].get(event.member_id)

        # not new
        if verdict == DUPLICATE:
            work.counts[event.topic, event.partition][REPEATED] += 1
        elif verdict:
            work.reject(event, Reason.ID_CONFLICT, verdict)

        # new
        elif member is not None and member.state.erased:
            work.seen.require_look_up()
            work.reject(event, Reason.MEMBER_ERASED, "the member asked for erasure; nothing more is kept of them")
        else:
            work.seen.add(event)
            work.counts[event.topic, event.partition][ACCEPTED] += 1
            if member is None:
                self._append_memberless(event)
            else:
                self._record(event, member)

    def _programme(self, shard: int) -> Programme:
        return self._work.judges[self._work.heads[shard].version].programme

    def _tick(self, tick: Tick) -> None:
        """Append a tick, and move the clocks of its members."""
        work, head = self._work, self._work.heads[tick.shard]
        judge = work.judges[head.version]
        tick.append(work.source_rows, head)
        self._packed_event_id = pack_text(tick.event_id)
        occurrence = Occurrence(tick.identity, head.seq, head.recorded_ms)

        for member_id in tick.member_ids:
            member = work.members[tick.shard][member_id]
            work.touched[tick.shard, member_id] = member
            error = self._unjudgeable.get(tick.failure_key(member_id))
            if error is not None:
                self._hold(tick.set_aside(member_id, error), member, head)
            else:
                perform(MemberStep(member, Advance(tick.until_ms), judge, occurrence, tick.event_id), self)

    def _decide(self, waited: WaitedSignup) -> None:
        """Decide about a signup that waited for its referrer, if it need not wait any longer."""
        decided = self._work.referrals.decide_waiting(waited, self._work.passed_ms, self._programme(waited.shard))
        if decided is not None:
            self._record_own(decided, waited.shard, self._unjudgeable.get(forwards.failure_key(waited)))

    def _record_own(self, event: Attribution | Forwarded, shard: int, failure: Exception | None = None) -> None:
        """Append a referral event of Guerdon's own and judge it, or hold the member because of a `failure`."""
        # append it to the log
        work = self._work
        head, member = work.heads[shard], work.members[shard][event.member_id]
        payload, identity = forwards.payload_of(event), event_identity(event.source, event.event_id)
        kind = forwards.kind_of(event)
        work.source_rows.append_own(
            kind,
            head,
            member_id=event.member_id,
            prev_seq=member.seq,
            event_id=event.event_id,
            payload=payload,
            occurred_ms=event.occurred_at,
        )
        member.seq = head.seq
        work.touched[shard, event.member_id] = member

        # note who referred the member, which may void the referral at once
        void = None
        if isinstance(event, Attribution):
            void = work.referrals.note_attribution(event, (shard, head.seq), self._programme(shard))

        # judge it
        failure = failure or self._unjudgeable.get(identity)
        if failure is not None:
            self._hold(failed(failure, payload, event), member, head)
        else:
            self._packed_event_id = pack_text(event.event_id)
            occurrence = Occurrence(identity, head.seq, head.recorded_ms)
            perform(MemberStep(member, event, work.judges[head.version], occurrence, event.event_id), self)
        if void is not None:
            self._record(void, member)

    def _append_memberless(self, event: Admitted) -> None:
        """Append a touch: it has no member, so nothing is judged."""
        work, head = self._work, self._work.heads[event.shard]
        work.referrals.before(event.event, (event.shard, head.seq + 1), self._programme(event.shard))
        texts = pack_text("") + _pack_source(event.event.source) + pack_text(event.event.event_id)
        work.source_rows.append(event, head, 0, texts, None)

    def _record(self, event: Admitted, member: Member) -> None:
        """Append an event and judge it; an event of a held member is appended only, and waits for their release."""
        work, head, content, identity = self._work, self._work.heads[event.shard], event.event, event.identity
        owner, judge = (event.shard, event.member_id), work.judges[head.version]
        programme = judge.programme
        if member.tracker is not None or type(content) in NOTED:
            self._record_before(event, member, programme)

        # append it, with its personal fields sealed
        sealed = None
        if personal.is_personal(content):
            sealed = personal.seal(content, identity, work.keys[owner])
            work.profiles.setdefault(owner, member.state.profile)
        self._packed_event_id = pack_text(content.event_id)
        texts = member.packed_id + _pack_source(content.source) + self._packed_event_id
        work.source_rows.append(event, head, member.seq, texts, sealed)
        member.seq = head.seq
        work.touched[owner] = member

        # forward it to the referrer
        if member.tracker is not None or (programme.terms.referral is not None and type(content) in FORWARDED):
            work.referrals.after(content, member, (event.shard, head.seq), programme)

        # erase even a held member at once: nothing more is kept of them
        if event.kind == "erasure":
            work.erased.append(owner)
            member.state.erased, member.state.profile = True, None
            work.keys[owner] = None

        # judge it
        if identity in self._unjudgeable:
            self._hold(set_aside(event, *verdict_on(self._unjudgeable[identity])), member, head)
        else:
            occurrence = Occurrence(identity, head.seq, head.recorded_ms)
            perform(MemberStep(member, content, judge, occurrence, content.event_id), self)

        # decide about signups that waited for this member
        for waited in work.referrals.woken_by(event.member_id):
            self._decide(waited)

    def _record_before(self, event: Admitted, member: Member, programme: Programme) -> None:
        """Append the attribution, or the void of a referral, that stands directly before an event."""
        referrals = self._work.referrals
        if type(event.event) in NOTED:
            place = (event.shard, self._work.heads[event.shard].seq + 1)
            decided = referrals.before(event.event, place, programme)
            if decided is not None:
                self._record_own(decided, event.shard)
        elif member.tracker is not None and event.order_identity is not None:
            void = referrals.void_before(event.event, member, programme)
            if void is not None:
                self._record(void, member)

    def _hold(self, record: SetAside, member: Member, head: Head) -> None:
        """Hold a member from the head's last event on, and set the event aside."""
        work = self._work
        if not member.state.suspended_since:
            member.state.suspended_since = head.seq
        work.places[len(work.set_aside)] = (member.shard, head.seq)
        work.held[len(work.set_aside)] = member.member_id
        work.set_aside.append(record)

    # The driver's ports

    counted: frozenset[int] | None = None
    pages: Pages[Member] | None = None

    def books_of(self, step: MemberStep[Member]) -> StoredBooks:
        """Return the member's books, with all that was recorded up to now."""
        return self._work.books.of(step.member)

    def remember(self, step: MemberStep[Member], purchase: Purchase) -> None:
        """Remember a purchase of this transaction, which no look-up finds yet."""
        self._work.books.record(step.member, purchase, step.judge.version)

    def bring(self, step: MemberStep[Member], rewards: Sequence[RewardEvent]) -> None:
        """Append the reward events of the shard's last source event."""
        if rewards:
            member = step.member
            names = member.packed_id + self._packed_event_id
            self._reward_rows.append(rewards, self._work.heads[member.shard], names)

    def fail(self, step: MemberStep[Member], error: Exception) -> None:
        """Note the failure: this attempt is void, and the next one holds the member from the start."""
        if not is_judging(error):
            raise error
        is_tick = isinstance(step.cause, Advance)
        key = Tick.failure_key(step.member.member_id) if is_tick else step.occurrence.identity
        self._work.failures[key] = error
        step.member.state.suspended_since = step.occurrence.seq  # go on, to find the failures of others, too
