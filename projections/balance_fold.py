"""Fold reward events into balances in memory, as `projections.balances` does in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from schemas.rewards import ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.rewards import RewardEvent


class Balance(Struct, frozen=True):
    """Hold the amounts of the view `reward.member_balance` for one member and unit (docs: the ledger's identities)."""

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


def fold_balances(rows: Iterable[tuple[str, RewardEvent]]) -> dict[tuple[str, str], Balance]:
    """Return the balance of each (member_id, unit) that anything moved in, after all of `rows` (member_id, event)."""
    accounts: dict[tuple[str, str], dict[str, int]] = {}
    for member_id, reward in rows:
        posting = reward.posting
        if posting.debit is None or posting.credit is None:
            continue
        sums = accounts.setdefault((member_id, posting.unit), dict.fromkeys(ACCOUNTS, 0))
        sums[posting.debit] -= reward.amount
        sums[posting.credit] += reward.amount
    return {owner: _balance(sums) for owner, sums in accounts.items()}


def _balance(sums: dict[str, int]) -> Balance:
    return Balance(
        granted=-sums["issued"],
        pending=sums["pending"],
        active=sums["active"],
        reserved=sums["reserved"],
        spent=sums["spent"],
        expired=sums["expired"],
        settled=sums["reversed"] + sums["debt"],
        reversed=sums["reversed"],
        debt=-sums["debt"],
        available=sums["active"] + sums["debt"],
    )
