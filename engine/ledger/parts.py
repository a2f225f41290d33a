"""Hold what a member's ledger has beyond their state: read only by what spends, expires or refunds.

The newest lots lie in the state, where a grant finds them at hand; full pages of them lie apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec import Struct, field

from engine.member.lots import Lot  # noqa: TC001  msgspec reads the annotations
from engine.member.windows import Window  # noqa: TC001  as above
from engine.programme.rules.budgets import UseBooks
from engine.referral.facts import Referred  # noqa: TC001  as above
from schemas.events import Purchase, Refund  # noqa: TC001  as above

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.ledger.holdings import Holdings
    from engine.ledger.schedule.versions import Activation
    from engine.programme.rules.protocol import Judges


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
    """Hold what a refund must know as it was at the award: facts in the order of `Judges.frozen`.

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


class Parts(Struct):
    """Hold all parts of one member's ledger; `waiting` are refunds whose purchase has not come, by order.

    `referred` are the member's referees of whom something is known. `holdings` and `reserved`, the redemptions that may
    be open, are found from the others and are never stored; None: nobody has looked for them yet.
    """

    pages: dict[int, Page] = field(default_factory=dict)
    refunded: dict[str, Refunded] = field(default_factory=dict)
    redemptions: dict[str, Redemption] = field(default_factory=dict)
    waiting: dict[str, list[Refund]] = field(default_factory=dict)
    referred: dict[str, Referred] = field(default_factory=dict)
    holdings: Holdings | None = None
    reserved: dict[str, Redemption] | None = None

    def lots(self) -> Iterator[Lot]:
        """Yield the lots of all pages, the oldest page first."""
        for number in sorted(self.pages):
            yield from self.pages[number].lots


class Placed(Struct):
    """Hold a recorded purchase and the version of the programme that judged it."""

    purchase: Purchase
    version: int


class Redeemed(NamedTuple):
    """Say what became of a redemption where it was live: `amount` was reserved, or why it was refused.

    Members have had the gift or the money since, so no other generation decides it again. `version` judged it then.
    """

    amount: int
    refused: str | None
    version: int


class Books(UseBooks, Protocol):
    """Fetch what a fold needs beyond the member's state, when it needs it."""

    def parts(self) -> Parts:
        """Return the member's parts, the same object each time; what is changed in it is kept."""
        ...

    def purchase(self, order_id: str) -> Placed | None:
        """Return the purchase of the member's order as it was recorded before this event, or None."""
        ...

    def judge(self, version: int) -> Judges:
        """Return the judge of an activated version."""
        ...

    def activations(self, version: int) -> Sequence[Activation]:
        """Return what was activated after a version, up to the place of what is under way, the earliest first."""
        ...

    def stock_used(self, reward: str) -> int:
        """Return how many of a catalogue's reward were taken so far, by anybody."""
        ...

    def use_stock(self, reward: str, change: int) -> None:
        """Count a reward as taken, or with a negative change as given back."""
        ...

    def redeemed(self, seq: int, event_id: str) -> Redeemed | None:
        """Return what became of a redemption where it was live, judged at `seq`; None where it is decided now."""
        ...

    def is_closed(self, contest: str, period: int, seq: int) -> bool:
        """Whether a period of a contest was closed before a place in the member's shard: nothing counts for it."""
        ...

    def referred(self, referee_id: str) -> Referred:
        """Return what became of a referee of the member's, the same object each time; what is changed in it is kept."""
        ...

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount, or so many times, back to a budget's period; it never falls below 0."""
        ...
