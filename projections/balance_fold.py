"""Fold reward events into balances in memory, as `projections.balances` does in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from schemas.rewards import ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.rewards import RewardEvent


class Balance(Struct, frozen=True):
    """Hold a row of the view `reward.member_balance`: the amounts of one member in one unit.

    The next expiry takes `next_expiry_amount` of the active amount at `next_expiry_at_ms`, in ms since 1970.
    """

    granted: int = 0
    pending: int = 0
    active: int = 0
    reserved: int = 0
    spent: int = 0
    expired: int = 0
    settled: int = 0
    reversed: int = 0
    debt: int = 0
    available: int = 0
    next_expiry_at_ms: int | None = None
    next_expiry_amount: int | None = None


def fold_balances(rows: Iterable[tuple[str, RewardEvent]]) -> dict[tuple[str, str], Balance]:
    """Return the balance of each (member_id, unit) with movements, after all `rows` (member_id, event)."""
    accounts: dict[tuple[str, str], dict[str, int]] = {}
    lapsing: dict[tuple[str, str], dict[int, int]] = {}
    for member_id, reward in rows:
        posting = reward.posting
        if posting.debit is None or posting.credit is None:
            continue

        # every movement takes from one account and adds to another
        sums = accounts.setdefault((member_id, posting.unit), dict.fromkeys(ACCOUNTS, 0))
        sums[posting.debit] -= reward.amount
        sums[posting.credit] += reward.amount

        # the active amount by the instant at which it lapses
        if reward.expires_at_ms is not None:
            amounts = lapsing.setdefault((member_id, posting.unit), {})
            change = reward.amount * ((posting.credit == "active") - (posting.debit == "active"))
            amounts[reward.expires_at_ms] = amounts.get(reward.expires_at_ms, 0) + change

    return {owner: _balance(sums, lapsing.get(owner, {})) for owner, sums in accounts.items()}


def _balance(sums: dict[str, int], lapsing: dict[int, int]) -> Balance:
    """Return a balance from the sums of the accounts and from the active amounts by expiry (ms)."""
    next_ms = min((at_ms for at_ms, amount in lapsing.items() if amount), default=None)

    # `issued` and `debt` are the accounts that stand below 0
    return Balance(
        granted=-sums["issued"],
        pending=sums["pending"],
        active=sums["active"],
        reserved=sums["reserved"],
        spent=sums["spent"],
        expired=sums["expired"],
        settled=sums["reversed"] + sums["debt"],  # of what was claimed, what is no longer owed
        reversed=sums["reversed"],
        debt=-sums["debt"],
        available=sums["active"] + sums["debt"],
        next_expiry_at_ms=next_ms,
        next_expiry_amount=None if next_ms is None else lapsing[next_ms],
    )
