"""Record a batch: append each event in its order to the source log, judge it, and append what it gives."""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

from engine.evaluate import fold
from engine.intake.own_events import Attribution
from engine.live.duplicates import DUPLICATE
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
    from collections.abc import Mapping

    from engine.intake.batch import Admitted, SetAside
    from engine.intake.own_events import Forwarded
    from engine.live.tick import Tick
    from engine.live.work import Work
    from engine.programme.compile.module import CompiledJudge
    from engine.programme.model import Programme
    from engine.store.logs.forwards import Due
    from engine.store.logs.reward_log import RewardRows
    from engine.store.logs.source_log import Head
    from engine.store.members.member_states import Member
    from schemas.events import Event

_pack_source = lru_cache(1_000)(pack_text)  # a programme has few producers and many events of each


class Recorder:
    """Record what one attempt has loaded, in memory; the steps that follow write it.

    Args:
        work: the attempt's.
        reward_rows: collects what events give.
        judges: by version, those of all versions in force in the batch's shards.
        unjudgeable: events, and ticks of members, that failed before: they are set aside, and their members held.
    """

    def __init__(
        self,
        work: Work,
        reward_rows: RewardRows,
        judges: Mapping[int, CompiledJudge],
        unjudgeable: Mapping[bytes, Exception],
    ) -> None:
        self._work = work
        self._reward_rows = reward_rows
        self._judges = judges
        self._unjudgeable = unjudgeable

    def record_all(self) -> None:
        """Record ticks, signups that waited, and then events merged with what was forwarded, in the order of time."""
        work = self._work
        for record in work.batch.set_aside:
            work.counts[record.topic or "", record.partition][QUARANTINED] += 1
        for tick in work.ticks:
            self._tick(tick)
        overtaken = work.overtaken if work.batch.portion is None else None
        turns = work.referrals.turns = Turns(work.drained or (), overtaken)
        waiting = [(work.referrals.came_ms(due, self._programme(due.shard)), due) for due in work.due or ()]
        waiting = sorted(waiting, key=itemgetter(0))[::-1]  # the first is taken from the end
        reached_ms = 0
        for event in work.batch.admitted:
            reached_ms = max(reached_ms, event.event.occurred_at)
            while waiting and waiting[-1][0] <= reached_ms:
                self._decide(waiting.pop()[1])
            for drained in turns.until(reached_ms):
                self._record_own(drained.event, drained.shard)
            self._take(event)
        while waiting:
            self._decide(waiting.pop()[1])
        for drained in turns.until(INT64_MAX):
            self._record_own(drained.event, drained.shard)

    def _take(self, event: Admitted) -> None:
        """Record an event that is new; count a repeated one, and set a contradicting one aside."""
        work = self._work
        verdict = work.seen.verdict(event)
        member = work.members[event.shard].get(event.member_id)
        if verdict == DUPLICATE:
            work.counts[event.topic, event.partition][REPEATED] += 1
        elif verdict:
            work.reject(event, Reason.ID_CONFLICT, verdict)
        elif member is not None and member.state.erased:
            work.seen.must_be_known()
            work.reject(event, Reason.MEMBER_ERASED, "the member asked for erasure; nothing more is kept of them")
        else:
            work.seen.add(event)
            work.counts[event.topic, event.partition][ACCEPTED] += 1
            if member is None:
                self._append_memberless(event)
            else:
                self._record(event, member)

    def _programme(self, shard: int) -> Programme:
        return self._judges[self._work.heads[shard].version].programme

    def _tick(self, tick: Tick) -> None:
        """Append one tick and what it brings about; a member for whom that fails is held."""
        work, head = self._work, self._work.heads[tick.shard]
        judge = self._judges[head.version]
        tick.append(work.source_rows, head)
        for member_id in tick.member_ids:
            member = work.members[tick.shard][member_id]
            work.touched[tick.shard, member_id] = member
            failure = tick.failure_of(member_id)
            if failure in self._unjudgeable:
                self._hold(tick.set_aside(member_id, self._unjudgeable[failure]), member, head)
                continue
            try:
                rewards = tick.advance(member, head, judge, work.books)
            except Exception as error:
                if not is_judging(error):
                    raise
                work.failures[failure] = error
                member.state.suspended_since = head.seq  # as with an event
                continue
            if rewards:
                self._reward_rows.append(rewards, head, tick.names(member))

    def _decide(self, due: Due) -> None:
        """Decide about a signup that waited for its referrer."""
        decided = self._work.referrals.decide_waiting(due, self._work.passed_ms, self._programme(due.shard))
        if decided is not None:
            self._record_own(decided, due.shard, self._unjudgeable.get(forwards.failure_of(due)))

    def _record_own(self, event: Attribution | Forwarded, shard: int, failure: Exception | None = None) -> None:
        """Append what Guerdon itself writes of referrals, and what it leads to, or with a `failure` hold the member."""
        work = self._work
        head, member = work.heads[shard], work.members[shard][event.member_id]
        payload, identity = forwards.payload_of(event), event_identity(event.source, event.event_id)
        kind = forwards.kind_of(event)
        work.source_rows.append_own(
            kind, head, event_id=event.event_id, payload=payload, member_id=event.member_id, prev_seq=member.seq,
            occurred_ms=event.occurred_at,
        )  # fmt: skip
        member.seq = head.seq
        work.touched[shard, event.member_id] = member
        void = None
        if isinstance(event, Attribution):
            void = work.referrals.attributed(event, (shard, head.seq), self._programme(shard))
        failure = failure or self._unjudgeable.get(identity)
        if failure is not None:
            self._hold(failed(failure, payload, event), member, head)
        elif not member.state.suspended_since:
            self._judge(event, identity, member, head, pack_text(event.event_id))
        if void is not None:
            self._record(void, member)

    def _judge(self, event: Event, identity: bytes, member: Member, head: Head, event_id: bytes) -> None:
        """Fold an event and append what it gives; an exception in it voids the attempt, and the next one holds them."""
        judge, books = self._judges[head.version], self._work.books.of(member)
        try:
            occurrence = Occurrence(identity, head.seq, head.recorded_ms)
            rewards = fold(member.state, event, occurrence, judge, books)  # type: ignore[arg-type]  # a touch has no member
        except Exception as error:
            if not is_judging(error):
                raise
            self._work.failures[identity] = error
            member.state.suspended_since = head.seq  # this attempt is void: find the other members' failures, too
            return
        if rewards:
            self._reward_rows.append(rewards, head, member.packed_id + event_id)

    def _append_memberless(self, event: Admitted) -> None:
        """Append a touch, which has no member and no state."""
        work, head = self._work, self._work.heads[event.shard]
        work.referrals.before(event.event, (event.shard, head.seq + 1), self._programme(event.shard))
        texts = pack_text("") + _pack_source(event.event.source) + pack_text(event.event.event_id)
        work.source_rows.append(event, head, 0, texts, None)

    def _record(self, event: Admitted, member: Member) -> None:
        """Append one event and what it leads to; an event of a held member is appended and waits."""
        work, head = self._work, self._work.heads[event.shard]
        owner, programme = (event.shard, event.member_id), self._judges[head.version].programme
        self._record_before(event, member, programme)
        sealed = None
        if personal.is_personal(event.event):
            sealed = personal.seal(event.event, event.identity, work.keys[owner])
            work.profiles.setdefault(owner, member.state.profile)
        event_id = pack_text(event.event.event_id)
        texts = member.packed_id + _pack_source(event.event.source) + event_id
        work.source_rows.append(event, head, member.seq, texts, sealed)
        member.seq = head.seq
        work.touched[owner] = member
        if member.tracker is not None or (programme.terms.referral is not None and type(event.event) in FORWARDED):
            work.referrals.after(event.event, member, (event.shard, head.seq), programme)
        if event.kind == "erasure":
            work.erased.append(owner)
            member.state.erased = True  # of a held member, too: nothing more is kept of them
            member.state.profile = None
            work.keys[owner] = None
        if event.identity in self._unjudgeable:
            self._hold(set_aside(event, *verdict_on(self._unjudgeable[event.identity])), member, head)
        elif not member.state.suspended_since:
            if event.order_identity is not None:
                work.books.record(member, event.event, head.version)  # type: ignore[arg-type]  # only purchases have one
            self._judge(event.event, event.identity, member, head, event_id)
        for due in work.referrals.woken_by(event.member_id):
            self._decide(due)

    def _record_before(self, event: Admitted, member: Member, programme: Programme) -> None:
        """Append what stands directly before an event: an attribution, or the void of a referral."""
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
        """Hold a member from the head's last event on, and set aside why."""
        work = self._work
        if not member.state.suspended_since:
            member.state.suspended_since = head.seq
        work.places[len(work.set_aside)] = (member.shard, head.seq)
        work.held[len(work.set_aside)] = member.member_id
        work.set_aside.append(record)
