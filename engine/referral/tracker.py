"""Follow a referred member at admission: number their orders, sum their spend, and forward their events.

No rule takes part in this, so a replay need not repeat it: forwarded events stand in the referrer's source log.
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
    Referee,
    own_id,
)
from engine.ledger.refunds.rest import after_refund, rest_of
from engine.member.pages import Refunded, ReturnedLine
from engine.member.windows import LATE_MS
from engine.programme.terms import Block
from schemas.events import INT64_MAX, PERSONAL_FIELDS, Activity, Decision, Purchase, Refund, Signup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.intake.own_events import Attribution, Carried
    from engine.programme.terms import ReferralTerms
    from schemas.events import Event

    Purchases = Callable[[str], Purchase | None]
    """Returns the recorded purchase of an order of the member's, or None."""

_CARRIED: dict[type[Event], type[Carried]] = {
    Signup: ForwardedSignup, Purchase: ForwardedPurchase, Refund: ForwardedRefund, Activity: ForwardedActivity,
    Decision: ForwardedDecision,
}  # fmt: skip
FORWARDED = frozenset(_CARRIED)
"""The types of events that are forwarded; of decisions only those on the referral."""
MODERATING = ("referral_release", "referral_void")
"""The actions of decisions on a referral."""


class ReferredOrder(Struct, array_like=True):
    """Count the returns of one order of the referee's, in minor units."""

    amount: int
    """The amount of the purchase."""
    closes_ms: int
    """The last instant at which the order can be refunded."""
    returned: int = 0
    """The amount of all returns, by line or not."""
    refunds: list[str] = field(default_factory=list)
    """The refund_ids that were counted."""
    lines: dict[str, ReturnedLine] = field(default_factory=dict)
    """The returns by line, by line_id."""
    is_gone: bool = False
    """Whether nothing is left of the order."""
    kept_ms: int = 0
    """Until when the order is remembered: a late order as long after its arrival as any other."""


class Tracker(Struct, array_like=True):
    """Follow one referred member at admission; stored as MessagePack, so fields are added at the end."""

    referrer_id: str
    channel: str | None = None
    """The channel of the referral."""
    code: str | None = None
    """The code of the referral; None where the signup named the referrer."""
    signup_ms: int | None = None
    """The first signup."""
    flagged: bool = False
    """Whether a fraud check holds back the referral's rewards."""
    voided: bool = False
    """Whether the referral was voided; nothing is forwarded any more."""
    count: int = 0
    """How many orders are not wholly refunded."""
    spend: int = 0
    """The member's spend less returns, in minor units, at least 0 and at most INT64_MAX."""
    orders: dict[str, ReferredOrder] = field(default_factory=dict)
    """The orders that can still be refunded, by order_id, in the order of their arrival."""
    early: dict[str, list[Refund]] = field(default_factory=dict)
    """Refunds whose purchase has not come, by order_id; they are forwarded right after it."""
    referee: Referee = Referee()
    latest_ms: int = 0
    """The latest time among the member's events."""

    @classmethod
    def of(cls, attribution: Attribution, first: Signup) -> Tracker:
        """Begin to follow a member who was attributed to a referrer; `first` is the member's first signup."""
        assert attribution.referrer_id is not None  # an attribution names them
        return cls(
            attribution.referrer_id, attribution.channel, attribution.code, first.occurred_at,
            flagged=bool(attribution.flags),
            referee=Referee(first.channel, first.referral_code, first.referrer_id, first.visitor),
        )  # fmt: skip

    def forward(self, event: Event, purchase_of: Purchases, closes_ms: Callable[[int], int]) -> list[Forwarded]:
        """Take in an event of the member, and return what is forwarded to the referrer.

        Args:
            event: the member's next admitted event.
            purchase_of: finds the purchase that a refund returns.
            closes_ms: returns the last instant at which an order can be refunded, by the instant of its purchase.
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
        return [self._forwarded(event, self.count)]

    def void_before(self, event: Event, referral: ReferralTerms | None) -> Decision | None:
        """Return the void that a purchase older than the signup causes, where the terms block existing members."""
        is_blocked = referral is not None and Block.EXISTING_MEMBER in referral.block
        if self.voided or not is_blocked or not isinstance(event, Purchase) or not self._is_from_before(event):
            return None
        return Decision(
            event_id=own_id("void", event.source, event.event_id), source="guerdon", member_id=event.member_id,
            occurred_at=max(self.latest_ms, self.signup_ms or 0), action="referral_void",
            reason=Block.EXISTING_MEMBER.value,
        )  # fmt: skip

    def _is_from_before(self, event: Purchase) -> bool:
        """Whether a purchase is older than the member's first signup: no referrer has brought it about."""
        return self.signup_ms is not None and event.occurred_at < self.signup_ms

    def _bought(self, event: Purchase, closes_ms: int) -> list[Forwarded]:
        """Count an order, and forward it with the refunds that have waited for it."""
        if self._is_from_before(event):
            self.early.pop(event.order_id, None)
            return []

        # enter the order
        self._forget()
        kept_ms = max(closes_ms, self.latest_ms + closes_ms - event.occurred_at) + LATE_MS
        self.orders[event.order_id] = ReferredOrder(event.amount, closes_ms, kept_ms=kept_ms)
        self.spend = min(self.spend + event.amount, INT64_MAX)
        forwarded = [self._forwarded(event, self.count + 1)]
        self.count += 1

        # a refund that came first happens with the purchase
        for refund in self.early.pop(event.order_id, ()):
            after = structs.replace(refund, occurred_at=max(refund.occurred_at, event.occurred_at))
            forwarded += self._returned(after, lambda _order_id: event)
        return forwarded

    def _returned(self, event: Refund, purchase_of: Purchases) -> list[Forwarded]:
        """Count a refund, and forward it with its purchase; without a purchase it waits."""
        purchase = purchase_of(event.order_id)
        if purchase is None:
            self.early.setdefault(event.order_id, []).append(event)
            return []
        if self._is_from_before(purchase):
            return []
        order = self.orders.get(event.order_id)
        if order is not None and event.refund_id not in order.refunds and event.occurred_at <= order.closes_ms:
            self._subtract(order, event, purchase)
        return [structs.replace(self._forwarded(event, self.count), purchase=purchase)]

    def _subtract(self, order: ReferredOrder, event: Refund, purchase: Purchase) -> None:
        """Subtract a refund from the order, the spend and the count, unless the referee's ledger refuses it."""
        by_amount = order.returned - sum(line.amount for line in order.lines.values())
        after = after_refund(Refunded(purchase, 0, order.lines, by_amount), event)
        if order.is_gone or after is None:
            return

        # what is left of the order now
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
        """Void or release the referral, and forward the decision where it changes anything."""
        if event.action not in MODERATING or self.voided:
            return []
        if event.action == "referral_void":
            self.voided = True
        elif not self.flagged:
            return []
        self.flagged = False
        return [self._forwarded(event, self.count)]

    def _forwarded(self, event: Event, number: int) -> Forwarded:
        kind = _CARRIED[type(event)]
        carried = kind(**{name: getattr(event, name) for name in event.__struct_fields__})
        return Forwarded(
            event_id=own_id("forwarded", event.source, event.event_id), source="guerdon", member_id=self.referrer_id,
            occurred_at=event.occurred_at, referee_id=event.member_id, event=carried, number=number, spend=self.spend,  # type: ignore[attr-defined]  # touches are not forwarded
            signup_ms=self.signup_ms, channel=self.channel, flagged=self.flagged, referee=self.referee,
        )  # fmt: skip

    def _forget(self) -> None:
        """Drop orders that cannot be refunded any more, in the order of their arrival."""
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
    """Forward the events of a member from before the attribution; a void among them ends that, and is returned, too."""
    forwarded: list[Forwarded] = []
    for event in events:
        void = tracker.void_before(event, referral)
        if void is not None:
            return forwarded, void
        forwarded += tracker.forward(event, purchase_of, closes_ms)
    return forwarded, None
