"""Hold the results of a simulation, and return them with the column names of the reward log and the views."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import structs

from projections.balance_fold import fold_balances
from projections.item_fold import fold_items
from projections.referral_fold import fold_referrals
from projections.tier_fold import fold_tier_changes
from schemas.rewards import shown_order
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from engine.explain.event import RuleExplanation
    from engine.explain.ledger import Account
    from engine.explain.tier import TierExplanation
    from engine.intake.own_events import Attribution
    from engine.programme.file.problems import Problem
    from engine.programme.rules.tiers import TierReport
    from projections.item_fold import ItemRow
    from schemas.rejection import Reason
    from schemas.rewards import RewardEvent

ITEM_COLUMNS = ("member_id", "unit", "item", "code", "amount", "status", "granted_at", "expires_at")


@dataclass(frozen=True)
class Quarantined:
    """Name an event that was set aside, why, and where it stands."""

    event_id: str | None
    """None where none can be read."""
    reason: Reason
    message: str
    file: str
    line: int


class Explained(NamedTuple):
    """Explain one event: a sentence for each rule, the account of the ledger, the tier after it.

    Events of time alone are of kind `tick`, those of a contest of kind `contest`, both of source "guerdon".
    """

    event_id: str
    source: str
    kind: str
    member_id: str | None
    occurred_ms: int
    version: int
    rules: list[RuleExplanation]
    account: Account
    tier: TierExplanation | None

    def document(self) -> dict[str, Any]:
        """Return the explanation for a JSON document."""
        return {
            "event_id": self.event_id,
            "source": self.source,
            "type": self.kind,
            "member_id": self.member_id,
            "occurred_at": iso_from_instant(self.occurred_ms),
            "rule_version": self.version,
            "rules": [rule.document() for rule in self.rules],
            **self.account.document(),
            "tier": None if self.tier is None else self.tier.document(),
        }


class SimulatedReward(NamedTuple):
    """Hold one reward event with its place in the log."""

    shard: int
    pos: int
    seq: int
    member_id: str
    event_id: str
    recorded_at_ms: int
    lowest_tier: str | None
    reward: RewardEvent


@dataclass
class Simulation:
    """Hold the results of a run."""

    recorded: list[SimulatedReward] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    accepted: int = 0
    duplicates: int = 0
    warnings: list[Problem] = field(default_factory=list)
    leaps: list[str] = field(default_factory=list)
    """Sentences on events that moved every clock on by many years."""
    clock_ms: int = 0
    """The latest instant of all events and ticks."""
    is_moved_on: bool = True
    """Whether all members' clocks stand at `clock_ms`; the source log moves those of each shard by its own ticks."""
    tiers: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `reward.member_tier`."""
    explained: list[Explained] | None = None
    """The explanation of each event; None where it was not asked for."""
    attributions: dict[tuple[int, int], Attribution] = field(default_factory=dict)
    """By shard and seq."""
    codes: dict[str, str] = field(default_factory=dict)
    """The member of each referral code."""

    def document(self) -> dict[str, list[dict[str, Any]]]:
        """Return the run as one JSON document, with the column names of the reward log and the views."""
        why = {} if self.explained is None else {"why": [event.document() for event in self.explained]}
        return {
            "reward_events": [_reward_row(recorded) for recorded in self.recorded],
            "balances": self.balances(),
            "tiers": self.tiers,
            "tier_history": self.tier_history(),
            "referrals": self.referrals(),
            "rewards": self.rewards(),
            "codes": [{"member_id": member_id, "code": code} for code, member_id in sorted(self.codes.items())],
            "quarantined": [asdict(event) for event in self.quarantined],
            **why,
        }

    def rewards(self) -> list[dict[str, Any]]:
        """Return the rows of `member_reward`: every coupon, gift, badge and benefit, in the order of their grants."""
        items = fold_items((recorded.member_id, recorded.reward) for recorded in self.recorded)
        return [_item_row(item, self.clock_ms if self.is_moved_on else 0) for item in items.values()]

    def referrals(self) -> list[dict[str, Any]]:
        """Return the rows of `referral`, by referee."""
        rewards = (((each.shard, each.seq), each.member_id, each.reward) for each in self.recorded)
        return [_plain_times(structs.asdict(row)) for row in fold_referrals(rewards, self.attributions)]

    def tier_history(self) -> list[dict[str, Any]]:
        """Return the rows of `tier_history`, in order."""
        changes = fold_tier_changes(
            (recorded.member_id, recorded.reward, recorded.recorded_at_ms, recorded.lowest_tier)
            for recorded in self.recorded
        )
        return [_plain_times(change._asdict()) for change in changes]

    def balances(self) -> list[dict[str, Any]]:
        """Return the rows of `member_balance`, by member and unit."""
        folded = fold_balances((recorded.member_id, recorded.reward) for recorded in self.recorded)
        as_of = iso_from_instant(self.clock_ms)
        return [
            {"member_id": member_id, "unit": unit, **_plain_times(structs.asdict(balance)), "as_of": as_of}
            for (member_id, unit), balance in sorted(folded.items())
        ]


def tier_columns(tier_report: TierReport) -> dict[str, Any]:
    """Return the columns of `reward.member_tier`."""
    return {
        "tier": tier_report.tier,
        "since": _iso(tier_report.since_ms),
        "until": _iso(tier_report.until_ms),
        "qualifying": tier_report.qualifying,
        "next_tier": tier_report.next_tier,
        "to_next_tier": tier_report.to_next_tier,
    }


def _reward_row(recorded: SimulatedReward) -> dict[str, Any]:
    """Return the row of `reward.reward_event`."""
    # a grant opens a lot of its own, which has the grant's key
    reward, posting = recorded.reward, recorded.reward.posting
    key = reward.reward_key.hex()
    own_lot = None if posting.debit is None else key

    return {
        "shard": recorded.shard,
        "pos": recorded.pos,
        "reward_key": key,
        "type": posting.type,
        "member_id": recorded.member_id,
        "unit": posting.unit,
        "amount": reward.amount,
        "debit": posting.debit,
        "credit": posting.credit,
        "lot": own_lot if reward.lot is None else reward.lot.hex(),
        "item": posting.item,
        "rule_id": posting.rule_id,
        "rule_version": posting.rule_version,
        "campaign": posting.campaign,
        "order_id": shown_order(reward.order_id),
        "event_id": recorded.event_id,
        "seq": recorded.seq,
        "reason": posting.reason,
        "available_at": _iso(reward.available_at_ms),
        "expires_at": _iso(reward.expires_at_ms),
        "occurred_at": _iso(reward.occurred_at_ms),
        "recorded_at": _iso(recorded.recorded_at_ms),
    }


def _item_row(item: ItemRow, clock_ms: int) -> dict[str, Any]:
    """Return the row of `reward.member_reward`; an item that has run out by the clock is expired."""
    has_lapsed = item.status == "active" and item.expires_at_ms is not None and item.expires_at_ms <= clock_ms
    row = _plain_times(structs.asdict(item) | {"status": "expired" if has_lapsed else item.status})
    return {name: row.get(name) for name in ITEM_COLUMNS}


def _plain_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with its instants as the views show them: in ISO 8601, and without `_ms` in the name."""
    return {name.removesuffix("_ms"): _iso(value) if name.endswith("_ms") else value for name, value in row.items()}


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso_from_instant(at_ms)
