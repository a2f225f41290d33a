"""Make valid histories of movements: what a ledger may write, without the ledger that decides it.

Lots are kept in plain dictionaries and each step takes what one lot has, so that whatever is drawn is a history that
keeps every rule of the ledger's table of movements. A list of reward events is what one source event led to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from schemas.rewards import MOVES, Posting, RewardEvent
from tests.system.load import START_MS

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_MS = 3_600_000
TIERS = ("regular", "silver", "gold")
GRANTS = {"coupon": "issued", "gift": "awarded", "badge": "awarded", "benefit": "granted"}
ENDS = {
    "coupon": ("released", "used", "revoked", "expired"), "gift": ("released", "revoked"),
    "badge": ("released", "revoked"), "benefit": ("released", "ended"),
}  # fmt: skip


class Entry(NamedTuple):
    """Hold the reward events of one source event of a member."""

    member_id: str
    rewards: list[RewardEvent]


@dataclass
class Lot:
    """Hold the rest of one grant by account; an item is `held` or not."""

    member_id: str
    unit: str
    key: bytes
    available_at_ms: int | None
    expires_at_ms: int | None
    amounts: dict[str, int]
    item: str | None = None


@dataclass
class Ledger:
    """Make movements that lots allow; `draw` is Hypothesis's."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    members: tuple[str, ...]
    now_ms: int = START_MS
    number: int = 0
    lots: list[Lot] = field(default_factory=list)
    debts: dict[tuple[str, str], int] = field(default_factory=dict)

    def step(self) -> Entry | None:
        """Return the reward events of the next source event; None where the drawn movement has nothing to move."""
        self.now_ms += self.draw(st.integers(0, 48)) * HOUR_MS
        member_id = self.draw(st.sampled_from(self.members))
        act = self.draw(
            st.sampled_from((self.grant, self.move, self.owe, self.give, self.end, self.change, self.refuse))
        )
        rewards = act(member_id)
        return Entry(member_id, rewards) if rewards else None

    def grant(self, member_id: str) -> list[RewardEvent]:
        """Open a lot, with or without a hold and an expiry; active amounts settle debts at once."""
        unit = self.draw(st.sampled_from(("points", "status", "USD")))
        amount = self.draw(st.one_of(st.integers(1, 300), st.just(2**63 - 1)))
        account = self.draw(st.sampled_from(("pending", "active")))
        available_ms = self.now_ms + 24 * HOUR_MS if account == "pending" else None
        expires_ms = self.draw(st.sampled_from((None, 24, 48, 480)))
        expires_at_ms = (
            None if expires_ms is None else (available_ms or START_MS + 480 * HOUR_MS) + expires_ms * HOUR_MS
        )
        key = self.key()
        lot = Lot(member_id, unit, key, available_ms, expires_at_ms, {account: amount})
        self.lots.append(lot)
        verb = self.draw(st.sampled_from(("granted", "adjusted")))
        return [self.event(lot, verb, amount, "issued", account, own=True), *self.settle(lot)]

    def move(self, member_id: str) -> list[RewardEvent]:
        """Move a part of one account of a lot as the table of movements allows; active amounts settle debts."""
        movable = [
            (lot, verb, debit, credit)
            for lot in self.lots
            for verb, ways in MOVES.items()
            for debit, credit in ways
            if lot.member_id == member_id and "debt" not in {debit, credit} and lot.amounts.get(debit)
        ]
        if not movable:
            return []
        lot, verb, debit, credit = self.draw(st.sampled_from(movable))
        amount = self.draw(st.one_of(st.just(lot.amounts[debit]), st.integers(1, lot.amounts[debit])))
        return [self.moved(lot, verb, amount, debit, credit), *(self.settle(lot) if credit == "active" else [])]

    def owe(self, member_id: str) -> list[RewardEvent]:
        """Reverse more than a lot covers, where the member has nothing active."""
        lots = [
            lot for lot in self.lots
            if lot.member_id == member_id and not lot.item and not self.active(member_id, lot.unit)
        ]  # fmt: skip
        if not lots:
            return []
        lot, amount = self.draw(st.sampled_from(lots)), self.draw(st.integers(1, 50))
        self.debts[member_id, lot.unit] = self.debts.get((member_id, lot.unit), 0) + amount
        return [self.event(lot, "reversed", amount, "debt", "reversed")]

    def settle(self, lot: Lot) -> list[RewardEvent]:
        """Pay debt with what `lot` has: a member with debt has nothing active."""
        owner = (lot.member_id, lot.unit)
        amount = min(self.debts.get(owner, 0), lot.amounts.get("active", 0))
        if not amount:
            return []
        self.debts[owner] -= amount
        return [self.moved(lot, "settled", amount, "active", "debt")]

    def give(self, member_id: str) -> list[RewardEvent]:
        """Give a coupon, a gift, a badge or a benefit, on hold or not, for good or for a time."""
        unit = self.draw(st.sampled_from(sorted(GRANTS)))
        hours = self.draw(st.sampled_from((None, 24, 72)))
        is_pending = self.draw(st.booleans())
        lot = Lot(
            member_id, unit, self.key(), self.now_ms + 12 * HOUR_MS if is_pending else None,
            None if hours is None else self.now_ms + hours * HOUR_MS, {"held": self.draw(st.integers(1, 3))},
            f"{unit}-{self.draw(st.integers(1, 3))}",
        )  # fmt: skip
        self.lots.append(lot)
        return [self.event(lot, GRANTS[unit], lot.amounts["held"], None, None, own=self.draw(st.booleans()))]

    def end(self, member_id: str) -> list[RewardEvent]:
        """Release, use, take back or end what the member holds."""
        lots = [lot for lot in self.lots if lot.member_id == member_id and lot.amounts.get("held")]
        if not lots:
            return []
        lot = self.draw(st.sampled_from(lots))
        verb, amount = self.draw(st.sampled_from(ENDS[lot.unit])), lot.amounts["held"]
        if verb != "released":
            lot.amounts["held"] = 0
        return [self.event(lot, verb, amount, None, None)]

    def change(self, _member_id: str) -> list[RewardEvent]:
        """Change the member's tier, once or twice in one source event."""
        reason = self.draw(st.sampled_from(("reached", "review", "refund", "programme", "opening")))
        return [
            RewardEvent(
                Posting(type="tier.changed", unit="tier", item=tier, reason=reason),
                self.draw(st.integers(0, 9_000)), self.key(), self.now_ms,
            )
            for tier in self.draw(st.lists(st.sampled_from(TIERS), min_size=1, max_size=2))
        ]  # fmt: skip

    def refuse(self, _member_id: str) -> list[RewardEvent]:
        """Refuse something, which moves nothing, whatever it names."""
        unit, item = self.draw(st.sampled_from((("points", None), ("points", "mug"), ("coupon", "five-off"))))
        posting = Posting(type="reward.refused", unit=unit, item=item, reason="insufficient")
        return [RewardEvent(posting, 7, self.key(), self.now_ms)]

    def active(self, member_id: str, unit: str) -> int:
        """Return what the member has active of `unit`."""
        return sum(lot.amounts.get("active", 0) for lot in self.lots if (lot.member_id, lot.unit) == (member_id, unit))

    def moved(self, lot: Lot, verb: str, amount: int, debit: str, credit: str) -> RewardEvent:
        """Take `amount` from one account of `lot` to another."""
        lot.amounts[debit] -= amount
        lot.amounts[credit] = lot.amounts.get(credit, 0) + amount
        return self.event(lot, verb, amount, debit, credit)

    def event(
        self, lot: Lot, verb: str, amount: int, debit: str | None, credit: str | None, *, own: bool = False
    ) -> RewardEvent:
        """Return one movement of `lot`; with `own` it is the grant, which need not name itself."""
        prefix = "cash" if lot.unit == "USD" else lot.unit
        posting = Posting(type=f"{prefix}.{verb}", unit=lot.unit, debit=debit, credit=credit, item=lot.item)
        grants = verb in {"granted", "adjusted", "issued", "awarded"}
        key = lot.key if grants else self.key()
        times = (lot.available_at_ms, lot.expires_at_ms)
        return RewardEvent(posting, amount, key, self.now_ms, None, None if own else lot.key, *times)

    def key(self) -> bytes:
        """Return a key that no other reward event of the history has."""
        self.number += 1
        return sha256(f"{self.members} {self.number}".encode()).digest()


@st.composite
def histories(draw: Callable[[st.SearchStrategy[Any]], Any], members: tuple[str, ...]) -> list[Entry]:
    """Draw a history of `members`, up to 40 source events long."""
    ledger = Ledger(draw, members)
    steps = draw(st.integers(1, 40))
    return [entry for entry in (ledger.step() for _ in range(steps)) if entry is not None]
