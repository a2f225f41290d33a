"""Follow a referred member at admission: number their orders, add up what they spend, and pass on what they do.

This is no rule's business, so a replay finds it done: what is forwarded stands in the referrer's source log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field, structs

from engine.intake.own_events import (
    Forwarded,
    ForwardedActivity,
    ForwardedDecision,
    ForwardedPurchase,
    ForwardedRefund,
    ForwardedSignup,
    own_id,
)
from engine.ledger.refunds.rest import after_refund, rest_of
from engine.member.pages import Line, Refunded
from engine.programme.terms import Block
from schemas.events import INT64_MAX, PERSONAL_FIELDS, Activity, Decision, Purchase, Refund, Signup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.intake.own_events import Attribution, Carried
    from engine.programme.terms import ReferralTerms
    from schemas.events import Event

    Purchases = Callable[[str], Purchase | None]
    """Returns the recorded purchase of the member's order."""

_CARRIED: dict[type[Event], type[Carried]] = {
    Signup: ForwardedSignup, Purchase: ForwardedPurchase, Refund: ForwardedRefund, Activity: ForwardedActivity,
    Decision: ForwardedDecision,
}  # fmt: skip
FORWARDED = frozenset(_CARRIED)
"""The types of events that are forwarded; of decisions only those on the referral."""
MODERATING = ("referral_release", "referral_void")
LATE_MS = 7 * 86_400_000


class Order(Struct, array_like=True):
    """Count what of an order was returned, in minor units; `closes_ms` is when its refunds close.

    `lines` is what of that was returned by line, `is_gone` whether nothing is left of the order.
    An order that came late may be returned as long after it came: `kept_ms` is until when it is remembered.
    """

    amount: int
    closes_ms: int
    returned: int = 0
    refunds: list[str] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)
    is_gone: bool = False
    kept_ms: int = 0


class Tracker(Struct, array_like=True):
    """Hold what admission knows of a referred member; stored as MessagePack, so fields are added at the end.

    `count` is the number of orders that are not wholly refunded, `spend` what was spent less what was returned; it
    stops at the most that 64 bits hold, and what is returned then lowers it from there, at the least to 0. `early` are
    refunds whose purchase has not come: they are forwarded right after it. `signup_ms` and `referee` are of the first
    signup, `latest_ms` is the latest time of all that was taken in.
    """

    referrer_id: str
    channel: str | None = None
    code: str | None = None
    signup_ms: int | None = None
    flagged: bool = False
    voided: bool = False
    count: int = 0
    spend: int = 0
    orders: dict[str, Order] = field(default_factory=dict)
    early: dict[str, list[Refund]] = field(default_factory=dict)
    referee: tuple[str | None, str | None, str | None, str | None] = (None, None, None, None)
    latest_ms: int = 0

    @classmethod
    def of(cls, attribution: Attribution, first: Signup) -> Tracker:
        """Begin to follow a member who was attributed, and whose first signup is `first`."""
        assert attribution.referrer_id is not None  # noqa: S101  an attribution names them
        return cls(
            attribution.referrer_id, attribution.channel, attribution.code, first.occurred_at,
            flagged=bool(attribution.flags),
            referee=(first.channel, first.referral_code, first.referrer_id, first.visitor),
        )  # fmt: skip

    def forward(self, event: Event, purchase_of: Purchases, closes_ms: Callable[[int], int]) -> list[Forwarded]:
        """Take an event of the member in, and return what is passed on to the referrer.

        Args:
            event: admitted, in the recorded order.
            purchase_of: finds the purchase that a refund returns.
            closes_ms: returns when the refunds of an order close that was bought at an instant.
        """
        if isinstance(event, Decision):
            return self._decided(event)
        if self.voided or type(event) not in FORWARDED:
            return []
        self.latest_ms = max(self.latest_ms, event.occurred_at)
        if isinstance(event, Signup):
            event = structs.replace(event, **dict.fromkeys(PERSONAL_FIELDS))
        if isinstance(event, Purchase):
            return self._bought(event, closes_ms(event.occurred_at))
        if isinstance(event, Refund):
            return self._returned(event, purchase_of)
        return [self._passed_on(event, self.count)]

    def void_before(self, event: Event, referral: ReferralTerms | None) -> Decision | None:
        """Return the void that stands before a purchase from before the signup, where those are blocked."""
        is_blocked = referral is not None and Block.EXISTING_MEMBER in referral.block
        if self.voided or not is_blocked or not isinstance(event, Purchase) or not self._is_from_before(event):
            return None
        return Decision(
            event_id=own_id("void", event.source, event.event_id), source="guerdon", member_id=event.member_id,
            occurred_at=max(self.latest_ms, self.signup_ms or 0), action="referral_void",
            reason=Block.EXISTING_MEMBER.value,
        )  # fmt: skip

    def _is_from_before(self, event: Purchase) -> bool:
        """Whether a purchase is from before the member's first signup: nobody has brought that about."""
        return self.signup_ms is not None and event.occurred_at < self.signup_ms

    def _bought(self, event: Purchase, closes_ms: int) -> list[Forwarded]:
        if self._is_from_before(event):
            self.early.pop(event.order_id, None)
            return []
        self._forget()
        kept_ms = max(closes_ms, self.latest_ms + closes_ms - event.occurred_at) + LATE_MS
        self.orders[event.order_id] = Order(event.amount, closes_ms, kept_ms=kept_ms)
        self.spend = min(self.spend + event.amount, INT64_MAX)
        found = [self._passed_on(event, self.count + 1)]
        self.count += 1
        for refund in self.early.pop(event.order_id, ()):
            after = structs.replace(refund, occurred_at=max(refund.occurred_at, event.occurred_at))
            found += self._returned(after, lambda _order_id: event)
        return found

    def _returned(self, event: Refund, purchase_of: Purchases) -> list[Forwarded]:
        purchase = purchase_of(event.order_id)
        if purchase is None:
            self.early.setdefault(event.order_id, []).append(event)
            return []
        if self._is_from_before(purchase):
            return []
        order = self.orders.get(event.order_id)
        if order is not None and event.refund_id not in order.refunds and event.occurred_at <= order.closes_ms:
            self._take_off(order, event, purchase)
        return [structs.replace(self._passed_on(event, self.count), purchase=purchase)]

    def _take_off(self, order: Order, event: Refund, purchase: Purchase) -> None:
        """Count a refund as the referee's ledger does; one that is refused there counts nothing."""
        by_amount = order.returned - sum(line.amount for line in order.lines.values())
        after = after_refund(Refunded(purchase, 0, order.lines, by_amount), event)
        if order.is_gone or after is None:
            return
        rest = rest_of(after)
        left = 0 if rest is None else rest.amount
        order.refunds.append(event.refund_id)
        order.lines = after.lines
        self.spend = max(0, self.spend - (order.amount - order.returned - left))
        order.returned = order.amount - left
        if rest is None:
            order.is_gone = True
            self.count -= 1

    def _decided(self, event: Decision) -> list[Forwarded]:
        if event.action not in MODERATING or self.voided:
            return []
        if event.action == "referral_void":
            self.voided = True
        elif not self.flagged:
            return []
        self.flagged = False
        return [self._passed_on(event, self.count)]

    def _passed_on(self, event: Event, number: int) -> Forwarded:
        kind = _CARRIED[type(event)]
        carried = kind(**{name: getattr(event, name) for name in event.__struct_fields__})
        return Forwarded(
            event_id=own_id("forwarded", event.source, event.event_id), source="guerdon", member_id=self.referrer_id,
            occurred_at=event.occurred_at, referee_id=event.member_id, event=carried, number=number, spend=self.spend,  # type: ignore[attr-defined]  # touches are not forwarded
            signup_ms=self.signup_ms, channel=self.channel, flagged=self.flagged, referee=self.referee,
        )  # fmt: skip

    def _forget(self) -> None:
        """Drop orders whose refunds have closed long since, the first that came first."""
        while self.orders:
            oldest = next(iter(self.orders))
            if max(self.orders[oldest].kept_ms, self.orders[oldest].closes_ms + LATE_MS) >= self.latest_ms:
                return
            del self.orders[oldest]


def forward_all(
    tracker: Tracker,
    events: Sequence[Event],
    purchase_of: Purchases,
    closes_ms: Callable[[int], int],
    referral: ReferralTerms | None,
) -> tuple[list[Forwarded], Decision | None]:
    """Return what is passed on of what a member did before they were attributed, and the void that ends it."""
    found: list[Forwarded] = []
    for event in events:
        void = tracker.void_before(event, referral)
        if void is not None:
            return found, void
        found += tracker.forward(event, purchase_of, closes_ms)
    return found, None
