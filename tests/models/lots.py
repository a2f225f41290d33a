"""Model lots, debt and balances slowly and plainly: every sum is computed from the list of lots."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from engine.programme.localtime import DAY_MS, DAY_ZERO
from tests.models.family import duration_from

if TYPE_CHECKING:
    from tests.models.family import Settings

NEVER_MS = 10**15
GrantName = tuple[str, str]
"""The event that granted a lot and the rule, "adjust" for an operator's."""


@dataclass
class Lot:
    """Hold the points of one grant in their accounts; the accounts always add up to `amount`."""

    key: str
    unit: str
    amount: int
    granted_ms: int
    available_ms: int
    expires_ms: int | None
    pending: int = 0
    active: int = 0
    reserved: int = 0
    spent: int = 0
    expired: int = 0
    reversed: int = 0
    settled: int = 0

    def move(self, source: str, target: str, amount: int) -> None:
        """Move an amount from one part to another; none is ever negative."""
        left = getattr(self, source) - amount
        assert amount >= 0
        assert left >= 0, f"{self.key}: {amount} of {source} are not there"
        setattr(self, source, left)
        setattr(self, target, getattr(self, target) + amount)


@dataclass
class Wallet:
    """Hold a member's lots and what they owe, and do the arithmetic that every movement shares."""

    settings: Settings
    keys: dict[GrantName, str]
    clock_ms: int
    lots: list[Lot] = field(default_factory=list)
    uncovered: dict[str, int] = field(default_factory=dict)
    """What was reversed without cover, by unit, whether settled since or not."""

    def lapsed(self, lot: Lot) -> bool:
        return lot.expires_ms is not None and lot.expires_ms <= self.clock_ms

    def spendable(self, unit: str) -> list[Lot]:
        """Return the active lots: soonest-expiring first, never-expiring last, then the older grant, then the key."""
        lots = [lot for lot in self.lots if lot.unit == unit and lot.active and not self.lapsed(lot)]
        return sorted(lots, key=lambda lot: (lot.expires_ms or NEVER_MS, lot.granted_ms, lot.key))

    def debt(self, unit: str) -> int:
        """Return the debt: what was reversed without cover, less what was settled."""
        return self.uncovered.get(unit, 0) - sum(lot.settled for lot in self.lots if lot.unit == unit)

    def available(self, unit: str) -> int:
        """Return what can be spent."""
        return sum(lot.active for lot in self.spendable(unit)) - self.debt(unit)

    def settle(self) -> None:
        for unit in self.uncovered:
            for lot in self.spendable(unit):
                lot.move("active", "settled", min(lot.active, self.debt(unit)))

    def expire(self) -> None:
        for lot in self.lots:
            if lot.active and self.lapsed(lot):
                lot.move("active", "expired", lot.active)

    def follow_up(self) -> None:
        """Settle debts with points that became active, then let expired points go."""
        self.settle()
        self.expire()

    def grant(self, name: GrantName, unit: str, amount: int, at_ms: int, hold: str | None = None) -> Lot:
        calendar = self.settings.calendar
        available_ms = at_ms if hold is None else calendar.after(at_ms, duration_from(hold))
        expires_ms = None
        if unit == "points" and self.settings.validity is not None:
            expires_ms = self._rounded_up(calendar.after(available_ms, duration_from(self.settings.validity)))
        key = self.keys.get(name, f"{len(self.lots):06}")
        lot = Lot(key, unit, amount, at_ms, available_ms, expires_ms)
        setattr(lot, "active" if hold is None else "pending", amount)
        self.lots.append(lot)
        return lot

    def _rounded_up(self, at_ms: int) -> int:
        """Put an expiry off to the next local midnight, of any day, of a month's first or of a year's first."""
        if self.settings.round_expiry == "none":
            return at_ms
        calendar = self.settings.calendar
        day = calendar.local_day(at_ms)
        while not self._is_boundary(day) or calendar.instant_of(day * DAY_MS) < at_ms:
            day += 1
        return calendar.instant_of(day * DAY_MS)

    def _is_boundary(self, day: int) -> bool:
        local = date.fromordinal(day + DAY_ZERO)
        first = {"day": True, "month": local.day == 1, "year": (local.month, local.day) == (1, 1)}
        return first[self.settings.round_expiry]

    def reverse(self, lot: Lot, part: str, wanted: int) -> int:
        """Reverse up to `wanted` of one part of a lot, and return what is still wanted."""
        amount: int = min(getattr(lot, part), wanted)
        lot.move(part, "reversed", amount)
        return wanted - amount

    def owe(self, unit: str, amount: int) -> None:
        if amount:
            self.uncovered[unit] = self.uncovered.get(unit, 0) + amount

    def balance(self, unit: str) -> dict[str, int | None]:
        """Return the row of `member_balance` for a unit."""
        lots = [lot for lot in self.lots if lot.unit == unit]
        parts = ("pending", "active", "reserved", "spent", "expired")
        row: dict[str, int | None] = {part: sum(getattr(lot, part) for lot in lots) for part in parts}

        settled = sum(lot.reversed + lot.settled for lot in lots)
        expiries = [lot.expires_ms for lot in lots if lot.active and lot.expires_ms is not None]
        soonest_ms = min(expiries, default=None)
        expiring = sum(lot.active for lot in lots if soonest_ms is not None and lot.expires_ms == soonest_ms)

        return row | {
            "granted": sum(lot.amount for lot in lots),
            "settled": settled,
            "debt": self.debt(unit),
            "reversed": settled + self.debt(unit),
            "available": self.available(unit),
            "next_expiry_at": soonest_ms,
            "next_expiry_amount": expiring or None,
        }
