"""Hold what one attempt at a live transaction loads and decides, and count its results."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.intake.batch import SetAside
from engine.store.logs.source_log import SourceRows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.intake.batch import Admitted, Partition
    from engine.live.batch import Batch
    from engine.live.duplicates import Seen
    from engine.live.tick import Tick
    from engine.member.profile import MemberProfile
    from engine.member.state import LimitUse
    from engine.programme.compile.module import CompiledJudge
    from engine.referral.turns import Drained
    from engine.store.campaigns.budgets import Row
    from engine.store.logs.forwards import WaitedSignup
    from engine.store.logs.reward_log import RewardRows
    from engine.store.logs.source_log import Head
    from engine.store.members.books import StoredBooks
    from engine.store.members.member_states import Member
    from engine.store.members.personal import Owner
    from engine.store.referrals.attribution import Referrals
    from schemas.rejection import Reason

ACCEPTED, REPEATED, QUARANTINED = range(3)


class EvaluationFailed(Exception):  # caught where the batch is tried again, never shown
    """Say that some events could not be judged; the next attempt sets them aside and holds their members."""


@dataclass(slots=True)
class Work:
    """Hold what one attempt has loaded and decided; thrown away with it."""

    batch: Batch

    # Set when the transaction begins

    generation: int = 0
    """The live generation."""
    recorded_ms: int = 0
    """PostgreSQL's time, at which everything in the batch is recorded."""
    locked_budgets: Mapping[Row, LimitUse] | None = None
    """Budgets that an earlier evaluation in this transaction has locked; None: nothing was evaluated before."""
    seen: Seen = field(init=False)
    """The set that tells new events from repeated ones."""

    # Loaded

    heads: dict[int, Head] = field(default_factory=dict)
    """The locked heads, by shard."""
    judges: Mapping[int, CompiledJudge] = field(default_factory=dict)
    """The judges of all versions in force here, by version."""
    members: dict[int, dict[str, Member]] = field(default_factory=dict)
    """Members by shard and id; the cache's own dictionaries."""
    referrers: set[Owner] = field(default_factory=set)
    """Members here who may get forwarded events from the batch."""
    referrals: Referrals = field(init=False)
    books: StoredBooks = field(init=False)
    keys: dict[Owner, bytes | None] = field(default_factory=dict)
    """The keys that seal personal fields; None for an erased member."""

    # Guerdon's own work

    ticks: list[Tick] = field(default_factory=list)
    drained: list[Drained] | None = None
    """Forwarded events whose turn has come; None: not read yet."""
    overtaken: set[tuple[int, int]] = field(default_factory=set)
    """Pairs of shards (to, from) with forwarded events that must wait still."""
    waited: list[WaitedSignup] | None = None
    """Signups whose wait for a referrer may be over; None: not read yet."""
    reached_ms: int = field(init=False)
    """The time up to which forwarded events have their turn."""
    passed_ms: int = field(init=False)
    """The time that all partitions have passed."""

    # Decided

    source_rows: SourceRows = field(default_factory=SourceRows)
    reward_rows: RewardRows | None = None
    touched: dict[Owner, Member] = field(default_factory=dict)
    """Members who have changed."""
    erased: list[Owner] = field(default_factory=list)
    profiles: dict[Owner, MemberProfile | None] = field(default_factory=dict)
    """Profiles that may have changed, as they were before."""
    set_aside: list[SetAside] = field(default_factory=list)
    """Records for the quarantine."""
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Shard and seq of records that are in the log, by their index in `set_aside`."""
    held: dict[int, str] = field(default_factory=dict)
    """The member whom a record holds, by its index in `set_aside`."""
    failures: dict[bytes, Exception] = field(default_factory=dict)
    """Errors of events and ticks that could not be judged, by identity or by `Tick.failure_key`."""
    counts: dict[Partition, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    """Numbers of accepted, repeated and quarantined events, by partition."""

    def __post_init__(self) -> None:
        """Set how far time has come."""
        move, portion = self.batch.clock, self.batch.portion
        self.passed_ms = max(0 if move is None else move.reached_ms, 0 if portion is None else portion.reached_ms)
        last_ms = max((event.event.occurred_at for event in self.batch.admitted), default=0)
        self.reached_ms = max(last_ms, self.passed_ms)

    def reject(self, event: Admitted, reason: Reason, message: str) -> None:
        """Set aside an event that was admitted."""
        self.counts[event.topic, event.partition][QUARANTINED] += 1
        self.set_aside.append(set_aside(event, "append", reason, message))


@dataclass(frozen=True, slots=True)
class Detail:
    """Break the numbers of an outcome down, for logs and metrics."""

    counts: Mapping[Partition, list[int]] = field(default_factory=dict)
    """Numbers of accepted, repeated and quarantined events, by partition."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Numbers of records set aside, by reason."""
    rewards: Mapping[str, int] = field(default_factory=dict)
    """Numbers of reward events, by type."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Numbers of refusals, by reason."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Count what a committed batch has led to, in events."""

    accepted: int
    duplicate: int
    quarantined: int
    rewards: int
    """Reward events."""
    ticks: int = 0
    """Guerdon's own work that was taken in: ticks, forwarded events and waiting signups."""
    retried: int = 0
    """Attempts that failed before, by a deadlock or a race: they leave no other trace."""
    detail: Detail = field(default_factory=Detail, compare=False, repr=False)


def set_aside(event: Admitted, stage: str, reason: Reason, message: str) -> SetAside:
    """Return the record of an admitted event that cannot be taken."""
    return SetAside(
        stage,
        reason,
        message,
        topic=event.topic or None,
        partition=event.partition,
        offset=event.offset,
        payload=event.payload,
        event=event.event,
        schema_id=event.schema_id,
    )


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Add up the outcomes of a batch's parts."""
    return Outcome(
        accepted=sum(each.accepted for each in outcomes),
        duplicate=sum(each.duplicate for each in outcomes),
        quarantined=sum(each.quarantined for each in outcomes),
        rewards=sum(each.rewards for each in outcomes),
        ticks=sum(each.ticks for each in outcomes),
        detail=_details([each.detail for each in outcomes]),
    )


def _details(details: Sequence[Detail]) -> Detail:
    """Add up the details of a batch's parts."""
    # by partition
    counts: dict[Partition, list[int]] = {}
    for each in details:
        for partition, numbers in each.counts.items():
            before = counts.get(partition, [0] * len(numbers))
            counts[partition] = [one + other for one, other in zip(before, numbers, strict=True)]

    # by name
    reasons: Counter[str] = Counter()
    rewards: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for each in details:
        reasons.update(each.reasons)
        rewards.update(each.rewards)
        refusals.update(each.refusals)
    return Detail(counts, reasons, rewards, refusals)


def outcome_of(work: Work) -> Outcome:
    """Count the results of an attempt, now that it is committed."""
    totals = [sum(column) for column in zip(*work.counts.values(), strict=True)] or [0, 0, 0]
    accepted, duplicate, quarantined = totals
    rewards, refusals = ({}, {}) if work.reward_rows is None else work.reward_rows.counts()
    reasons = Counter(str(record.reason) for record in work.set_aside)
    return Outcome(
        accepted=accepted,
        duplicate=duplicate,
        quarantined=quarantined,
        rewards=len(work.reward_rows or ()),
        ticks=len(work.ticks) + len(work.drained or ()) + len(work.waited or ()),
        detail=Detail(work.counts, reasons, rewards, refusals),
    )
