"""Define what the engine remembers of a member between events: a few hundred bytes, never a history."""

from __future__ import annotations

from msgspec import Struct, field

from engine.member.lots import Lot  # noqa: TC001  msgspec reads the annotations
from engine.member.pages import Completion, OrderFacts, Page
from engine.member.profile import MemberProfile  # noqa: TC001  as above
from engine.member.referral import Referral  # noqa: TC001  as above
from engine.member.tier_state import TierState  # noqa: TC001  as above
from engine.member.windows import Window  # noqa: TC001  as above
from schemas.rewards import POSSESSED_UNITS


class LimitUse(Struct, array_like=True, gc=False):
    """Count the awards that a limit has let through in one period."""

    period: int
    """The number of the calendar period; of a use that has left a rolling window, its instant."""
    amount: int = 0
    times: int = 0
    ended_ms: int = 0
    """An instant that is not before the end of the period; 0: the period goes on."""

    def take_back(self, amount: int, times: int) -> None:
        """Subtract from the use; neither count falls below 0."""
        self.amount = max(self.amount - amount, 0)
        self.times = max(self.times - times, 0)


class Memory(Struct, array_like=True):
    """Hold the parts of a state that few members or few programmes need; a state without them stays small.

    Each part is bounded: the values of a field and the entries of a window by `engine.member.windows`, the rest by the
    rules and items of the programmes.
    """

    value_limits: dict[str, dict[str, LimitUse]] = field(default_factory=dict)
    """Uses of limits that count per value of a field, by count and value."""
    windows: dict[str, Window] = field(default_factory=dict)
    """Rolling windows of limits, metrics and challenges, by their keys."""
    value_windows: dict[str, dict[str, Window]] = field(default_factory=dict)
    """Rolling windows of limits that count per value of a field, by count and value."""
    counters: dict[str, list[int]] = field(default_factory=dict)
    """A few integers a key: metrics, challenges, cohorts entered, scores in contests, celebrations."""
    possessed: dict[str, int] = field(default_factory=dict)
    """When each badge and benefit of the member's ends; 0: never."""
    crowded_out: dict[str, int] = field(default_factory=dict)
    """The latest period, or instant, in which a value of a limit had to make room for another, by count.

    The uses of such a value lie in `MemberState.ended`, or beyond the state.
    """


class MemberState(Struct, array_like=True):
    """Hold a member's state after their last source event; stored as MessagePack, so fields are added at the end."""

    clock_ms: int = 0
    """The member's clock: the latest instant processed, in ms since 1970 UTC."""
    limits: dict[str, LimitUse] = field(default_factory=dict)
    """The use of each limit in the present period, by `LimitScope.key`."""
    suspended_since: int = 0
    """The seq of the first event that evaluation could not judge; later events are logged, not judged. 0: none."""
    erased: bool = False
    """Whether the member asked for erasure."""
    memory: Memory | None = None
    """The parts that few members need; None: none yet."""
    signup_ms: int | None = None
    """The first signup."""
    available: int = 0
    """The points that can be spent, less the debt."""
    profile: MemberProfile | None = None
    """The answers that the member gave; they are personal, sealed in their own column, never encoded with the state.

    None, too, where no rule reads them and they were not opened.
    """
    due_ms: int | None = None
    """The next instant at which something happens by itself; None: nothing will."""
    lots: list[Lot] = field(default_factory=list)
    """The newest lots, those of no page yet."""
    orders: dict[str, OrderFacts] = field(default_factory=dict)
    """The facts of the newest orders, by their names in this ledger."""
    debts: dict[str, int] = field(default_factory=dict)
    """The member's debt, by unit; a unit without debt is absent."""
    pages: int = 0
    """How many pages were filled so far."""
    is_booked: bool = False
    """Whether the ledger has parts beyond this state other than pages."""
    is_waiting: bool = False
    """Whether refunds wait for their purchase."""
    first_ms: int | None = None
    """The first event that made the member one."""
    tier_state: TierState | None = None
    """The member's standing; None: nothing has counted yet."""
    gained: int = 0
    """The amount that the event under way adds to the metric that tiers count; 0 between events."""
    birthday_ms: int | None = None
    """When the next birthday begins; None: no rule asks for it, or it is unknown."""
    anniversary_ms: int | None = None
    """When the next anniversary of the signup begins; None: no rule asks for it, or there was no signup."""
    version: int = 0
    """The programme version that the member follows; 0 before their first turn."""
    referral: Referral | None = None
    """The member's referrer; None: nobody referred them."""
    ended: dict[str, list[LimitUse]] = field(default_factory=dict)
    """The uses of limits in periods that are over, by count, the earliest first; many of them become a page."""
    use_pages: int = 0
    """How many pages of such uses were written since they were last read back."""
    uses_gone_ms: int = 0
    """Uses of periods that ended up to this instant are forgotten."""
    completions: list[Completion] = field(default_factory=list)
    """The newest completions of challenges that can still be undone."""

    def note_due(self, at_ms: int | None) -> None:
        """Take note that something happens by itself at an instant; None: nothing does."""
        if at_ms is not None and (self.due_ms is None or at_ms < self.due_ms):
            self.due_ms = at_ms

    def note_possession(self, unit: str, item: str, until_ms: int | None) -> None:
        """Remember that the member has a badge or benefit until an instant; None: without an end."""
        if unit in POSSESSED_UNITS:
            self.remembering().possessed[item] = until_ms or 0

    def remembering(self) -> Memory:
        """Return the member's memory, creating it if missing."""
        if self.memory is None:
            self.memory = Memory()
        return self.memory


PAGE_LOTS = 8
"""Lots, or orders, that fill a page: a state has fewer between events; measured in docs/performance.md."""


_PAGE_ENTRIES = 32
"""Entries of completions that fill a page, too."""


def is_full(state: MemberState) -> bool:
    """Whether the newest lots, orders and completions of a state fill a page of the ledger."""
    if len(state.lots) >= PAGE_LOTS or len(state.orders) >= PAGE_LOTS:
        return True
    return bool(state.completions) and _entries(state.completions) >= _PAGE_ENTRIES


def _entries(completions: list[Completion]) -> int:
    """Return the size of completions: four entries each, and one for each instant of their windows."""
    return sum(4 if each.window is None else 4 + len(each.window.instants) for each in completions)


def turn_page(state: MemberState) -> Page:
    """Move the newest lots, orders and completions out of a state, and return them as page number `state.pages`."""
    page = Page(state.lots, state.orders, state.completions)
    state.lots, state.orders, state.completions, state.pages = [], {}, [], state.pages + 1
    return page


USES_MAX = 16
"""Uses of ended periods that become a page: a state has fewer between transactions."""


def has_many_uses(state: MemberState) -> bool:
    """Whether the uses of ended periods in a state fill a page."""
    return sum(map(len, state.ended.values())) >= USES_MAX


def drop_uses(state: MemberState, before_ms: int) -> None:
    """Drop the uses of periods that ended before an instant, and the uses that were given back whole."""
    state.ended = {
        count: remaining
        for count, uses in state.ended.items()
        if (remaining := [use for use in uses if use.ended_ms >= before_ms and (use.amount or use.times)])
    }


def turn_uses(state: MemberState, before_ms: int) -> dict[str, list[LimitUse]] | None:
    """Move the uses of ended periods out of a state, and return them as page number `state.use_pages`.

    Uses that `drop_uses` drops are not among them. None: there are no others.
    """
    drop_uses(state, before_ms)
    if not state.ended:
        return None
    page, state.ended = state.ended, {}
    state.use_pages += 1
    return page


def bring_back_uses(state: MemberState, page: dict[str, list[LimitUse]]) -> None:
    """Put the uses of a page back into a state, sorted by period within each count."""
    for count, uses in page.items():
        state.ended[count] = sorted([*state.ended.get(count, ()), *uses], key=lambda use: use.period)


def birthday_of(state: MemberState) -> str | None:
    """Return the member's birthday, or None where it is unknown."""
    return None if state.profile is None else state.profile.birthday


def attribute_of(state: MemberState, name: str) -> str | None:
    """Return one attribute of the member, or None where it is unknown."""
    return None if state.profile is None else state.profile.attributes.get(name)
