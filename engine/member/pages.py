"""Define the parts of a member's ledger that lie outside their state.

Only what spends, expires or refunds reads them. The newest lots and orders lie in the state, where a grant needs no
other row; when there are enough of them they become a page.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from engine.intake.own_events import Referee
from engine.member.lots import Lot  # noqa: TC001  msgspec reads the annotations
from engine.member.windows import Window  # noqa: TC001  as above
from schemas.events import Purchase  # noqa: TC001  as above


class ReferralFacts(Struct, array_like=True):
    """Hold the facts that rules on referrals read of a referee's event besides the order itself, as it was judged."""

    number: int
    """The number of the referee's order, as in `Forwarded.number`."""
    spend: int
    """The referee's spend up to this order, its own amount included, in minor units."""
    signup_ms: int | None = None
    """The referee's signup."""
    channel: str | None = None
    """The channel of the referral."""
    referee: Referee = Referee()
    event: str = "purchase"
    """The type of the referee's event."""
    amount: int | None = None
    """The amount of the order, in minor units; None where it is no order."""
    head: tuple[str, str] = ("", "")
    """The event_id and the source of the referee's event."""
    flagged: bool = False
    """Whether its rewards were held back."""


class Contribution(Struct, array_like=True, gc=False):
    """Say what an order, or another event, counts for the challenge of a rule."""

    rule_id: str
    version: int
    at_ms: int
    """When it counted."""
    left: int
    """How much it counts, less refunds."""
    round: int
    """The round of the challenge that it belongs to."""


class OrderFacts(Struct, array_like=True):
    """Hold the facts of an order's award that a refund must read as they were then."""

    facts: tuple[Any, ...] = ()
    """The values that rules read beyond the order, in the order of `kept_facts.frozen_items`."""
    counted: list[Contribution] = field(default_factory=list)
    """How much the order counts for each challenge."""
    referral: ReferralFacts | None = None
    """The facts that rules on referrals read of a referee's order; None: the order is the member's own."""
    until_ms: int = 0
    """The member's clock up to which the order is remembered at least.

    Noted where neither the order's own time nor its lots say it (`engine.ledger.forget.note_order`), 0 elsewhere.
    """


class Completion(Struct, array_like=True):
    """Hold a completion of a challenge that can still be undone."""

    identity: bytes
    """The identity under which it was judged; the keys of its rewards are made from it."""
    name: str | None
    """The name of the contribution that reached the goal."""
    rule_id: str
    version: int
    since_ms: int | None
    """Where its window began; None: everything counts."""
    at_ms: int
    """When it was completed."""
    reached: int
    """The count within `(since_ms, at_ms]`, less refunds."""
    round: int = 0
    """The round of its contributions."""
    until_ms: int = 0
    """The member's clock up to which it can be undone."""
    window: Window | None = None
    """Its contributions by instant, where the challenge has a window."""


class Page(Struct, array_like=True):
    """Hold lots, facts of orders and completions that have left the state."""

    lots: list[Lot] = field(default_factory=list)
    orders: dict[str, OrderFacts] = field(default_factory=dict)
    completions: list[Completion] = field(default_factory=list)


class ReturnedLine(Struct, array_like=True):
    """Count the returns of one line: the quantity in millionths, the amount in minor units."""

    quantity: int = 0
    amount: int = 0


class Refunded(Struct, array_like=True):
    """Hold an order with its refunds."""

    purchase: Purchase
    version: int
    """The version that judged the purchase."""
    lines: dict[str, ReturnedLine] = field(default_factory=dict)
    """The returns of refunds by line, by line_id."""
    amount: int = 0
    """The amount of all refunds without lines, in minor units."""
    whole: bool = False
    """Whether a refund has returned the whole rest."""
    refunds: dict[str, bytes] = field(default_factory=dict)
    """A digest of each refund, by refund_id."""
    repaid: dict[str, int] = field(default_factory=dict)
    """How many points were restored to each redemption that paid towards the order, by redemption_id."""


class Withdrawal(Struct, array_like=True):
    """Say how much of a lot a redemption has reserved or spent."""

    lot: bytes
    amount: int


class LedgerRedemption(Struct, array_like=True):
    """Hold a redemption: its price, the lots that pay it, and its status."""

    unit: str
    amount: int
    """The amount that is reserved, or was captured."""
    digest: bytes
    """A digest of the request: a redemption_id that comes again must ask for the same."""
    status: str = "reserved"
    """`reserved`, `captured`, `voided`, `restored` (nothing is left to give back) or `erased`."""
    reward: str | None = None
    """The catalogue's reward; None: an amount without one."""
    order_id: str | None = None
    lapses_ms: int | None = None
    """When the reservation lapses; None: it is not open."""
    withdrawals: list[Withdrawal] = field(default_factory=list)
    """The amounts that it has reserved or spent of lots, in the order of spending."""
    value_minor: int = 0
    """The value of a `money` reward whose whole amount is captured, in minor units."""
    items: list[bytes] = field(default_factory=list)
    """The keys of the lots that it handed out."""
    moves: int = 0
    """Not used any more; stored states have it."""
    hands_out: str | None = None
    """The unit (a gift or a coupon) that a capture hands out, one each time."""
