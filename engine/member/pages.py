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
    """Hold what rules on referrals read of a referee's event besides the order itself, as it was judged."""

    number: int
    """The number of the referee's order, as in `Forwarded.number`."""
    spend: int
    """What the referee had spent, in minor units, this order included."""
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
    """How much it counts, less what refunds have returned."""
    round: int
    """The round of the challenge that it belongs to."""


class OrderFacts(Struct, array_like=True):
    """Hold the facts of an order's award that a refund must read as they were then."""

    facts: tuple[Any, ...] = ()
    """The values that rules read beyond the order, in the order of `kept_facts.frozen_items`."""
    counted: list[Contribution] = field(default_factory=list)
    """What the order counts for challenges."""
    referral: ReferralFacts | None = None
    """What rules on referrals read of a referee's order; None: the order is the member's own."""
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
    """What counted within `(since_ms, at_ms]`, less what refunds have returned."""
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
    """Count what was returned of one line: its quantity in millionths, its amount in minor units."""

    quantity: int = 0
    amount: int = 0


class Refunded(Struct, array_like=True):
    """Hold an order with what was returned of it."""

    purchase: Purchase
    version: int
    """The version that judged the purchase."""
    lines: dict[str, ReturnedLine] = field(default_factory=dict)
    """What refunds by line have returned, by line_id."""
    amount: int = 0
    """What refunds without lines have returned, in minor units."""
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


class Redemption(Struct, array_like=True):
    """Hold a redemption: what it asked for, what it holds of which lots, and its status."""

    unit: str
    amount: int
    """What is reserved, or was captured."""
    digest: bytes
    """A digest of what it asked for: the same redemption_id must come with the same again."""
    status: str = "reserved"
    """`reserved`, `captured`, `voided`, `restored` (nothing is left to give back) or `erased`."""
    reward: str | None = None
    """The catalogue's reward; None: an amount without one."""
    order_id: str | None = None
    lapses_ms: int | None = None
    """When the reservation lapses; None: it is not open."""
    withdrawals: list[Withdrawal] = field(default_factory=list)
    """What it holds or has spent of lots, in the order of spending."""
    value_minor: int = 0
    """What a `money` reward pays when all of it is captured, in minor units."""
    items: list[bytes] = field(default_factory=list)
    """The keys of the lots of what it handed out."""
    moves: int = 0
    """Not used any more; stored states have it."""
    hands_out: str | None = None
    """The unit, gift or coupon, of which a capture hands out one."""
