"""Name the movements of the ledger, and open the lots that grants bring."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from engine.member.lots import Lot
from schemas.events import INT64_MAX
from schemas.rewards import ITEM_UNITS, ITEM_VERBS, Posting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.state import MemberState
    from schemas.rewards import RewardEvent

ENDED = {unit: f"{unit}.{verbs.end}" for unit, verbs in ITEM_VERBS.items()}
"""The type of the reward event with which an item ends without anybody taking it back: by its time, or by erasure."""

REVOKED = {unit: f"{unit}.{verbs.revoke}" for unit, verbs in ITEM_VERBS.items()}
"""The type of the reward event that takes an item back."""


class Accounts(NamedTuple):
    """Name the account that a movement leaves (`debit`), and the one that it enters (`credit`)."""

    debit: str
    credit: str


NO_ACCOUNTS: Accounts | None = None
"""Items move between no accounts, and a refusal or a change of tier moves nothing."""

GRANTED = Accounts("issued", "active")
"""A grant that can be spent at once."""


class Source(NamedTuple):
    """Name what brought a reward event about: a rule, the version of its programme, its campaign; None: no rule did."""

    rule_id: str | None = None
    version: int | None = None
    campaign: str | None = None


@lru_cache(maxsize=10_000)
def posting_of(
    kind: str,
    unit: str,
    accounts: Accounts | None,
    source: Source,
    *,
    item: str | None = None,
    reason: str | None = None,
) -> Posting:
    """Return an interned posting; callers keep its packed bytes by identity."""
    debit, credit = accounts or (None, None)
    return Posting(
        type=kind, unit=unit, debit=debit, credit=credit, rule_id=source.rule_id, rule_version=source.version,
        campaign=source.campaign, item=item, reason=reason,
    )  # fmt: skip


def kind_of_unit(unit: str) -> str:
    """Return how types of reward events name a unit: points and status by themselves, every currency cash."""
    return unit if unit in ("points", "status") else "cash"


ACCOUNTS_OF_VERB = {
    "released": Accounts("pending", "active"),
    "reserved": Accounts("active", "reserved"),
    "captured": Accounts("reserved", "spent"),
    "voided": Accounts("reserved", "active"),
    "restored": Accounts("spent", "active"),
    "expired": Accounts("active", "expired"),
    "settled": Accounts("active", "debt"),
    "reversed pending": Accounts("pending", "reversed"),
    "reversed active": Accounts("active", "reversed"),
    "reversed expired": Accounts("expired", "reversed"),
    "reversed debt": Accounts("debt", "reversed"),
}
"""The accounts of a movement, by its verb; a reversal's verb names the account that it leaves, too."""


def is_grant(posting: Posting) -> bool:
    """Whether a reward event with this posting hands something out, in points, status, cash or pieces."""
    return posting.debit == "issued" or (posting.unit in ITEM_UNITS and posting.type != "reward.refused")


def open_lots(state: MemberState, given: Sequence[RewardEvent]) -> None:
    """Open a lot for each grant among reward events: pending until the end of its hold, where it has one."""
    for reward in given:
        # is_grant, written out: this is the hot path
        posting = reward.posting
        if not (posting.debit == "issued" or (posting.unit in ITEM_UNITS and posting.type != "reward.refused")):
            continue

        amount, at_ms, expires_ms = reward.amount, reward.occurred_at_ms, reward.expires_at_ms
        available_ms = at_ms if reward.available_at_ms is None else reward.available_at_ms
        judged_ms = state.clock_ms if state.clock_ms > at_ms else None

        # a hold keeps the grant pending; without one it can be spent at once
        active, pending, due_ms = amount, 0, expires_ms
        if available_ms > at_ms:
            active, pending, due_ms = 0, amount, available_ms
        elif posting.unit == "points":
            state.available = min(state.available + amount, INT64_MAX)

        # state.note_due, written out: this is the hot path
        if due_ms is not None and (state.due_ms is None or due_ms < state.due_ms):
            state.due_ms = due_ms
        state.lots.append(
            Lot(
                reward.reward_key, posting.unit, amount, active, pending, at_ms, available_ms, expires_ms,
                posting.rule_id, posting.rule_version, reward.give, reward.order_id, posting.item, posting.campaign,
                judged_ms=judged_ms,
            )
        )  # fmt: skip
