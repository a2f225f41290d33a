"""The balances of the ledger's movements, folded in memory."""

from __future__ import annotations

from projections.balance_fold import Balance, fold_balances
from schemas.rewards import Posting, RewardEvent


def moved(type_: str, amount: int, debit: str | None, credit: str | None, unit: str = "points") -> RewardEvent:
    return RewardEvent(Posting(type=type_, unit=unit, debit=debit, credit=credit), amount, b"key", 0)


def test_every_movement_of_the_ledger_reaches_its_column() -> None:
    history = [
        moved("points.granted", 100, "issued", "pending"),
        moved("points.granted", 1_000, "issued", "active"),
        moved("points.released", 60, "pending", "active"),
        moved("points.reserved", 50, "active", "reserved"),
        moved("points.captured", 30, "reserved", "spent"),
        moved("points.voided", 5, "reserved", "active"),
        moved("points.restored", 4, "spent", "active"),
        moved("points.expired", 7, "active", "expired"),
        moved("points.reversed", 1_012, "active", "reversed"),
        moved("points.reversed", 90, "debt", "reversed"),
    ]
    assert fold_balances(("m", reward) for reward in history) == {
        ("m", "points"): Balance(
            granted=1_100, pending=40, active=0, reserved=15, spent=26, expired=7, settled=1_012, reversed=1_102,
            debt=90, available=-90,
        )
    }  # fmt: skip

    settled = [*history, moved("points.granted", 20, "issued", "active"), moved("points.settled", 20, "active", "debt")]
    after = fold_balances(("m", reward) for reward in settled)["m", "points"]
    assert (after.granted, after.debt, after.settled, after.active, after.available) == (1_120, 70, 1_032, 0, -70)


def test_members_and_units_are_kept_apart_and_refusals_move_nothing() -> None:
    rows = [
        ("a", moved("points.granted", 1, "issued", "active")),
        ("b", moved("points.granted", 2, "issued", "active")),
        ("a", moved("status.granted", 3, "issued", "active", unit="status")),
        ("a", moved("points.granted", 4, "issued", "active")),
        ("c", moved("reward.refused", 9, None, None)),
    ]
    available = {owner: balance.available for owner, balance in fold_balances(rows).items()}
    assert available == {("a", "points"): 5, ("b", "points"): 2, ("a", "status"): 3}
