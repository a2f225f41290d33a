"""Resolve refunds against what is left of their orders, whatever the programme made of them.

A refund lowers an order's net as far as something is left of it. A refund of more than that lowers nothing, and so does
one that gives an applied refund's id another content. A refund that comes before its purchase waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from engine.ledger.refunds.rest import after_refund, total_left
from engine.member.pages import Refunded

if TYPE_CHECKING:
    from engine.store.logs.bare_log import BareEvent
    from schemas.events import Purchase, Refund, RefundItem

Outcome = Literal["applied", "waiting", "exceeds", "conflict"]
Content = tuple[str, int | None, tuple["RefundItem", ...]]
"""The parts in which the same refund of an order is the same: refund_id, amount and lines."""

OrderKey = tuple[str, str]
"""A member_id and an order_id."""


@dataclass(slots=True)
class RefundFact:
    """Hold a refund and what became of it; times are PostgreSQL's microseconds since 2000, amounts minor units."""

    bare: BareEvent
    event: Refund
    outcome: Outcome = "waiting"
    amount: int | None = None
    purchase_seq: int | None = None
    applied_us: int | None = None

    def __post_init__(self) -> None:
        self.amount = asked(self.event)

    @property
    def content(self) -> Content:
        """Return the parts in which a repetition of this refund is the same."""
        return self.event.refund_id, self.event.amount, self.event.items or ()


class Applied(NamedTuple):
    """Hold a refund of this fold that has lowered its order."""

    order: Order
    refund: RefundFact
    left: int
    """The rest of the order after it, in minor units."""

    @property
    def seq(self) -> int:
        """Return the seq of the event that applied it: its own, or that of the purchase for which it waited."""
        return max(self.order.bare.seq, self.refund.bare.seq)


def asked(event: Refund) -> int | None:
    """Return the amount that a refund names; None where it asks for the whole rest."""
    return sum(item.amount for item in event.items) if event.items else event.amount


class Order:
    """Hold an order, how much of it was returned, and the refunds that named it so far.

    Args:
        bare: the purchase as it was logged.
        event: the purchase.
        number: the order is the member's first, second, … in the log.
    """

    __slots__ = ("_applied", "_contents", "_refunded", "bare", "event", "number")

    def __init__(self, bare: BareEvent, event: Purchase, number: int) -> None:
        self.bare = bare
        self.event = event
        self.number = number
        self._refunded = Refunded(event, 0)
        self._contents: set[Content] = set()
        self._applied: dict[str, Content] = {}

    @property
    def returned(self) -> int:
        """Return how much of the order was returned, in minor units."""
        return self.event.amount - self._left(self._refunded)

    def has(self, refund: RefundFact) -> bool:
        """Whether the same refund came before."""
        return refund.content in self._contents

    def take(self, refund: RefundFact) -> None:
        """Resolve a refund that comes now, or that has waited for this order."""
        content = refund.content
        self._contents.add(content)
        refund.purchase_seq = self.bare.seq

        # an id that another refund has, or more than is left
        if self._applied.get(refund.event.refund_id, content) != content:
            refund.outcome = "conflict"
            return
        after = after_refund(self._refunded, refund.event)
        if after is None:
            refund.outcome = "exceeds"
            return

        refund.outcome, refund.amount = "applied", self._left(self._refunded) - self._left(after)
        refund.applied_us = max(refund.bare.recorded_us, self.bare.recorded_us)
        self._applied[refund.event.refund_id] = content
        self._refunded = after

    @staticmethod
    def _left(refunded: Refunded) -> int:
        return total_left(refunded) - refunded.amount

    def returned_of_lines(self) -> list[int]:
        """Return how much of each line was returned; together that is what was returned of the order.

        Refunds by amount lower all lines by one fraction of what refunds by line have left of them. Cents are cut at
        the running sum, so that they add up.
        """
        refunded, items = self._refunded, self.event.items or ()
        total, by_amount = total_left(refunded), refunded.amount
        line_of = {item.line_id: number for number, item in enumerate(items)}
        own = dict.fromkeys(range(len(items)), 0)
        for line_id, line in refunded.lines.items():
            own[line_of[line_id]] = line.amount

        returned, running, cut = [], 0, 0
        for number, item in enumerate(items):
            running += item.amount - own[number]
            upto = running * by_amount // total if total else 0
            returned.append(own[number] + upto - cut)
            cut = upto
        return returned
