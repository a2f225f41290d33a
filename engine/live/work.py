"""Hold what one attempt at a live transaction finds and decides, and say what it came to."""

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
    from engine.referral.turns import Drained
    from engine.store.campaigns.budgets import Row
    from engine.store.logs.forwards import Due
    from engine.store.logs.reward_log import RewardRows
    from engine.store.logs.source_log import Head
    from engine.store.members.books import StoredBooks
    from engine.store.members.member_states import Member
    from engine.store.members.personal import Owner
    from engine.store.referrals.attribution import Referrals
    from schemas.rejection import Reason

ACCEPTED, REPEATED, QUARANTINED = range(3)


class EvaluationFailed(Exception):  # noqa: N818  caught where the batch is begun anew, never shown
    """Say that the fold could not judge some events; the next attempt sets them aside and holds their members."""


@dataclass(slots=True)
class Work:
    """Hold what one attempt has found and decided; thrown away with it."""

    batch: Batch
    generation: int = 0
    recorded_ms: int = 0
    locked_budgets: Mapping[Row, LimitUse] | None = None
    seen: Seen = field(init=False)
    heads: dict[int, Head] = field(default_factory=dict)
    members: dict[int, dict[str, Member]] = field(default_factory=dict)
    touched: dict[Owner, Member] = field(default_factory=dict)
    keys: dict[Owner, bytes | None] = field(default_factory=dict)
    erased: list[Owner] = field(default_factory=list)
    profiles: dict[Owner, MemberProfile | None] = field(default_factory=dict)
    books: StoredBooks = field(init=False)
    source_rows: SourceRows = field(default_factory=SourceRows)
    reward_rows: RewardRows | None = None
    set_aside: list[SetAside] = field(default_factory=list)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    held: dict[int, str] = field(default_factory=dict)
    failures: dict[bytes, Exception] = field(default_factory=dict)
    ticks: list[Tick] = field(default_factory=list)
    drained: list[Drained] | None = None
    overtaken: set[tuple[int, int]] = field(default_factory=set)
    due: list[Due] | None = None
    referrers: set[Owner] = field(default_factory=set)
    reached_ms: int = field(init=False)
    passed_ms: int = field(init=False)
    referrals: Referrals = field(init=False)
    counts: dict[Partition, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))

    def __post_init__(self) -> None:
        """Say what all partitions have passed, and how far time has come for what was forwarded."""
        move, portion = self.batch.clock, self.batch.portion
        self.passed_ms = max(0 if move is None else move.reached_ms, 0 if portion is None else portion.reached_ms)
        last_ms = max((event.event.occurred_at for event in self.batch.admitted), default=0)
        self.reached_ms = max(last_ms, self.passed_ms)

    def reject(self, event: Admitted, reason: Reason, message: str) -> None:
        """Set an admitted event aside after all."""
        self.counts[event.topic, event.partition][QUARANTINED] += 1
        self.set_aside.append(set_aside(event, "append", reason, message))


@dataclass(frozen=True, slots=True)
class Detail:
    """Tell the numbers of an outcome apart, for logs and metrics.

    `counts` has accepted, duplicate and quarantined by partition, `reasons` why events were set aside, `rewards` the
    types of the reward events, `refusals` the reasons of those that refuse.
    """

    counts: Mapping[Partition, list[int]] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    rewards: Mapping[str, int] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say what a committed batch came to, in numbers of events; `ticks` counts those of Guerdon's own.

    `retried` is how often the transaction was begun anew, after a deadlock or a race: nothing of it shows elsewhere.
    """

    accepted: int
    duplicate: int
    quarantined: int
    rewards: int
    ticks: int = 0
    retried: int = 0
    detail: Detail = field(default_factory=Detail, compare=False, repr=False)


def set_aside(event: Admitted, stage: str, reason: Reason, message: str) -> SetAside:
    """Return the record of an admitted event that cannot be taken after all."""
    return SetAside(
        stage, reason, message, event.topic or None, event.partition, event.offset, event.payload, event.event,
        event.schema_id,
    )  # fmt: skip


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Add up what the parts of a batch came to."""
    return Outcome(
        sum(each.accepted for each in outcomes),
        sum(each.duplicate for each in outcomes),
        sum(each.quarantined for each in outcomes),
        sum(each.rewards for each in outcomes),
        sum(each.ticks for each in outcomes),
        detail=_details([each.detail for each in outcomes]),
    )


def _details(details: Sequence[Detail]) -> Detail:
    """Add up what the outcomes of a batch's parts tell apart."""
    counts: dict[Partition, list[int]] = {}
    for each in details:
        for partition, numbers in each.counts.items():
            before = counts.get(partition, [0] * len(numbers))
            counts[partition] = [one + other for one, other in zip(before, numbers, strict=True)]
    reasons: Counter[str] = Counter()
    rewards: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for each in details:
        reasons.update(each.reasons)
        rewards.update(each.rewards)
        refusals.update(each.refusals)
    return Detail(counts, reasons, rewards, refusals)


def outcome_of(work: Work) -> Outcome:
    """Say what an attempt that was committed came to."""
    totals = [sum(column) for column in zip(*work.counts.values(), strict=True)] or [0, 0, 0]
    accepted, duplicate, quarantined = totals
    own = len(work.ticks) + len(work.drained or ()) + len(work.due or ())
    rewards, refusals = ({}, {}) if work.reward_rows is None else work.reward_rows.counts()
    reasons = Counter(str(record.reason) for record in work.set_aside)
    detail = Detail(work.counts, reasons, rewards, refusals)
    return Outcome(accepted, duplicate, quarantined, len(work.reward_rows or ()), own, detail=detail)
