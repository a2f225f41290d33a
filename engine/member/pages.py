"""Hold what a member's ledger has beyond their state: read only by what spends, expires or refunds.

The newest lots lie in the state, where a grant finds them at hand; full pages of them lie apart.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from engine.member.lots import Lot  # noqa: TC001  msgspec reads the annotations
from engine.member.windows import Window  # noqa: TC001  as above
from schemas.events import Purchase  # noqa: TC001  as above


class ReferralFacts(Struct, array_like=True):
    """Hold what was known of what a referee did, besides the order itself, when it was judged.

    `event` names its type, `amount` is the order's, `head` has the event_id and the source of the referee's event,
    `flagged` says that what it earned was held.
    """

    number: int
    spend: int
    signup_ms: int | None = None
    channel: str | None = None
    referee: tuple[str | None, str | None, str | None, str | None] = (None, None, None, None)
    event: str = "purchase"
    amount: int | None = None
    head: tuple[str, str] = ("", "")
    flagged: bool = False


class Contribution(Struct, array_like=True, gc=False):
    """Say what an order counts for the challenge of a rule: what is `left` of it, and in which round of counting."""

    rule_id: str
    version: int
    at_ms: int
    left: int
    round: int


class OrderFacts(Struct, array_like=True):
    """Hold what a refund must know as it was at the award: facts in the order of `Judge.frozen`.

    `counted` says what the order counts for challenges. `referral` is what rules on referrals knew of a referee's
    order: it is None where the order is the member's own. `until_ms` is how far the member's clock comes while all this
    is kept at least: noted where neither the order's own time nor its lots say it (`engine.ledger.forget.note_order`),
    0 elsewhere.
    """

    facts: tuple[Any, ...] = ()
    counted: list[Contribution] = field(default_factory=list)
    referral: ReferralFacts | None = None
    until_ms: int = 0


class Completion(Struct, array_like=True):
    """Hold a completion that can still be undone, and what it stands on.

    `identity` is that by which it was judged: the keys of its rewards are made from it. `name` is that of the
    contribution that reached the goal, `reached` what is left of all that counted within `(since_ms, at_ms]` (None:
    ever). `round` tells which contributions are its own, `window` has them by instant where the challenge slides.
    """

    identity: bytes
    name: str | None
    rule_id: str
    version: int
    since_ms: int | None
    at_ms: int
    reached: int
    round: int = 0
    until_ms: int = 0
    window: Window | None = None


class Page(Struct, array_like=True):
    """Hold what has left the state: lots, the facts of orders, and completed challenges."""

    lots: list[Lot] = field(default_factory=list)
    orders: dict[str, OrderFacts] = field(default_factory=dict)
    completions: list[Completion] = field(default_factory=list)


class Line(Struct, array_like=True):
    """Count what of one line was returned: millionths of its quantity, minor units of its amount."""

    quantity: int = 0
    amount: int = 0


class Refunded(Struct, array_like=True):
    """Hold an order of which something was returned.

    `lines` were returned by line, `amount` without naming any, `whole` with all that was left. `refunds` keeps what
    each refund said, `repaid` how much of each redemption paid towards the order was given back.
    """

    purchase: Purchase
    version: int
    lines: dict[str, Line] = field(default_factory=dict)
    amount: int = 0
    whole: bool = False
    refunds: dict[str, bytes] = field(default_factory=dict)
    repaid: dict[str, int] = field(default_factory=dict)


class Taken(Struct, array_like=True):
    """Say how much of a lot a redemption has taken."""

    lot: bytes
    amount: int


class Redemption(Struct, array_like=True):
    """Hold what a redemption asked for and what became of it.

    `status` is reserved, captured, voided or restored (then nothing is left to give back). `taken` names what it took
    from lots and still holds or has spent, in the order of taking. `value_minor` is what a `money` reward
    pays when all of it is captured, `hands_out` the unit of which a gift or coupon reward hands out one.
    """

    unit: str
    amount: int
    digest: bytes
    status: str = "reserved"
    reward: str | None = None
    order_id: str | None = None
    lapses_ms: int | None = None
    taken: list[Taken] = field(default_factory=list)
    value_minor: int = 0
    items: list[bytes] = field(default_factory=list)
    moves: int = 0
    hands_out: str | None = None
