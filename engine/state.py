"""Hold what the engine remembers of a member between events: a few hundred bytes, never a history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.ledger.lots import Lot  # noqa: TC001  msgspec reads the annotations
from engine.ledger.parts import OrderFacts, Page
from engine.ledger.standing import Standing  # noqa: TC001  as above
from engine.profile import MemberProfile  # noqa: TC001  as above
from engine.referral.facts import Referral  # noqa: TC001  as above
from engine.windows import Window  # noqa: TC001  as above

if TYPE_CHECKING:
    from engine.programme.budgets import Budgets


class LimitUse(Struct, array_like=True, gc=False):
    """Count what a limit has let through in one period; `earlier` holds the kept periods before it, newest first."""

    period: int
    amount: int = 0
    times: int = 0
    earlier: list[LimitUse] | None = None


class Memory(Struct, array_like=True):
    """Hold what few members or few programmes need: limits per value of a field, windows, counters, held rewards.

    Each is bounded: values of a field and entries of a window by `engine.windows`, the rest by the rules and items of
    the programmes. `counters` holds a few integers a key, `held` when a badge or benefit ends (0: never).
    """

    value_limits: dict[str, dict[str, LimitUse]] = field(default_factory=dict)
    windows: dict[str, Window] = field(default_factory=dict)
    value_windows: dict[str, dict[str, Window]] = field(default_factory=dict)
    counters: dict[str, list[int]] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


class MemberState(Struct, array_like=True):
    """Hold a member's state after their last source event; stored as MessagePack, so fields are added at the end.

    `clock_ms` is the latest instant processed, `limits` what each limit has used (key: `LimitScope.key`), `held_since`
    the seq of the first event that evaluation could not judge (0: none; later events are logged, not judged), `erased`
    whether the member asked for erasure, `memory` everything that takes more than a few bytes,
    `signup_ms` the first signup, `available` the points that can be spent less what is owed. `profile` is personal: it
    is sealed in a column of its own and never encoded with the state; None also where no rule reads it and it was not
    opened. `due_ms` is the next instant at which something happens by itself (None: nothing will), `lots` the newest
    lots and `orders` the facts of their orders, `debts` what is owed by unit, `pages` how many pages of lots were
    filled so far, `is_booked` whether the ledger has other parts beyond this state, `is_waiting` whether refunds wait
    for their purchase, `first_ms` the first event, `standing` the tier, `gained` what the event under way adds to the
    number that tiers go by (0 between events), `birthday_ms` and `anniversary_ms` when the next ones begin, `version`
    that of the programme that the member follows, `referral` who referred them (None: nobody).
    """

    clock_ms: int = 0
    limits: dict[str, LimitUse] = field(default_factory=dict)
    held_since: int = 0
    erased: bool = False
    memory: Memory | None = None
    signup_ms: int | None = None
    available: int = 0
    profile: MemberProfile | None = None
    due_ms: int | None = None
    lots: list[Lot] = field(default_factory=list)
    orders: dict[str, OrderFacts] = field(default_factory=dict)
    debts: dict[str, int] = field(default_factory=dict)
    pages: int = 0
    is_booked: bool = False
    is_waiting: bool = False
    first_ms: int | None = None
    standing: Standing | None = None
    gained: int = 0
    birthday_ms: int | None = None
    anniversary_ms: int | None = None
    version: int = 0
    referral: Referral | None = None

    def is_due(self, at_ms: int | None) -> None:
        """Take note that something happens at an instant; None: nothing."""
        if at_ms is not None and (self.due_ms is None or at_ms < self.due_ms):
            self.due_ms = at_ms

    def hold_item(self, unit: str, item: str, until_ms: int | None) -> None:
        """Remember that a badge or benefit is held; None: without an end."""
        if unit in ("badge", "benefit"):
            self.remembering().held[item] = until_ms or 0

    def remembering(self) -> Memory:
        """Return the member's memory, made now where there was nothing to remember yet."""
        if self.memory is None:
            self.memory = Memory()
        return self.memory


PAGE_LOTS = 8
"""Lots that fill a page: a state holds fewer between events; measured in docs/performance.md."""


def is_full(state: MemberState) -> bool:
    """Whether a state holds so many lots that they should become a page of the ledger."""
    return len(state.lots) >= PAGE_LOTS or len(state.orders) >= PAGE_LOTS


def turn_page(state: MemberState) -> Page:
    """Take the newest lots out of a state and return them as the page that `state.pages` numbers."""
    page = Page(state.lots, state.orders)
    state.lots, state.orders, state.pages = [], {}, state.pages + 1
    return page


class Occurrence(Struct, frozen=True, gc=False):
    """Place an event in the recorded order: what the fold knows besides the event's own fields.

    `identity` is the 32-byte event identity, `seq` its position in its shard, times are milliseconds since 1970 UTC.
    `budgets` tells what all members have used; the fold adds it where the programme has budgets. It is never stored.
    """

    identity: bytes
    seq: int
    recorded_at_ms: int
    budgets: Budgets | None = None

    def with_budgets(self, budgets: Budgets) -> Occurrence:
        """Return the same place with the budgets as they are there."""
        return Occurrence(self.identity, self.seq, self.recorded_at_ms, budgets)


def use_in(limits: dict[str, LimitUse], key: str, period: int, kept: int) -> LimitUse:
    """Return what `key` has used in `period`, opening the period where nothing was used in it yet.

    The newest period and `kept` periods before it stay, so that a late event counts where it belongs and the state
    stays small. An event later than that finds nothing used, and its use is forgotten with it.
    """
    newest = limits.get(key)
    if newest is None:
        opened = limits[key] = LimitUse(period)
        return opened
    if newest.period == period:
        return newest
    if newest.period < period:
        opened = limits[key] = LimitUse(period, 0, 0, _kept(newest, period - kept))
        return opened
    return _earlier_use(newest, period, kept)


def _earlier_use(newest: LimitUse, period: int, kept: int) -> LimitUse:
    earlier = newest.earlier or []
    for use in earlier:
        if use.period == period:
            return use
    opened = LimitUse(period)
    if period >= newest.period - kept:
        newest.earlier = sorted([*earlier, opened], key=lambda use: -use.period)
    return opened


def _kept(newest: LimitUse, oldest_period: int) -> list[LimitUse] | None:
    """Return `newest` and those before it that are not too old; they pass into a list of their own."""
    earlier = newest.earlier or []
    newest.earlier = None
    if newest.period < oldest_period:
        return None
    while earlier and earlier[-1].period < oldest_period:
        earlier.pop()
    earlier.insert(0, newest)
    return earlier
