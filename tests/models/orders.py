"""Model orders: the goods bought and returned, and what the rest earns."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from tests.models.family import BASE_RULES, Goods, Line, duration_from, wanted_by

if TYPE_CHECKING:
    from tests.models.family import Settings
    from tests.models.lots import Lot
    from tests.models.tiers import Entry


@dataclass
class Award:
    """Hold what a rule gave for an order: the lot, the room its limit had, and what refunds have claimed."""

    rule: str
    lot: Lot
    room: int | None = None
    period: tuple[int, int] = (0, 0)
    claimed: int = 0
    taken: int = 0


@dataclass
class Order:
    """Hold an order with the facts of its award, and the goods returned.

    It was bought at `at_ms`, and judged when the member's clock stood at `judged_ms`.
    """

    at_ms: int
    judged_ms: int
    settings: Settings
    tier: str
    amount: int
    lines: list[Line] | None
    entry: Entry | None = None
    awards: list[Award] = field(default_factory=list)
    returned: dict[str, tuple[int, Fraction]] = field(default_factory=dict)
    by_amount: int = 0

    def refundable_until(self, since_ms: int) -> int:
        """Return the end of a refund window that begins at an instant."""
        return self.settings.calendar.after(since_ms, duration_from(self.settings.refund_window))

    def bought_less_items(self) -> int:
        """Return T: the order as bought less the items returned."""
        return self.amount - sum(amount for amount, _ in self.returned.values())

    def left(self) -> Goods:
        """Return the rest of the order."""
        total = self.bought_less_items()
        rest = total - self.by_amount
        if self.lines is None:
            return Goods(rest, None)
        share = Fraction(rest, total) if total else Fraction()
        lines = []
        for line in self.lines:
            amount, quantity = self.returned.get(line.line_id, (0, Fraction()))
            if line.quantity and quantity == line.quantity:  # all pieces are back: it is no line any more
                continue
            amount_left = line.amount - amount
            # a line whose whole amount came back is gone, with or without a quantity in the refund
            units = line.quantity - quantity if amount_left else Fraction()
            lines.append(Line(line.line_id, line.category, amount_left * share, units * share))
        return Goods(rest if lines else 0, lines)

    def gives(self) -> dict[str, int]:
        """Return what the awarding version gives for the rest, with the facts of the award; no award rises."""
        goods = self.left()
        gives: dict[str, int] = {}
        for rule in self.settings.rules:
            for award in self.awards:
                if award.rule == rule:
                    base_given = sum(gives.get(base, 0) for base in BASE_RULES if base != "status")
                    wanted = wanted_by(rule, self.settings.numbers, goods, base_given, self.tier)
                    if award.room is not None and rule != "big":
                        wanted = min(wanted, award.room)
                    gives[rule] = min(wanted, award.lot.amount)
        return gives
