"""Hold what the engine remembers of a member between events: a few hundred bytes, never a history."""

from __future__ import annotations

from msgspec import Struct, field

from engine.member.lots import Lot  # noqa: TC001  msgspec reads the annotations
from engine.member.pages import Completion, OrderFacts, Page
from engine.member.profile import MemberProfile  # noqa: TC001  as above
from engine.member.referral import Referral  # noqa: TC001  as above
from engine.member.tier_state import TierState  # noqa: TC001  as above
from engine.member.windows import Window  # noqa: TC001  as above


class LimitUse(Struct, array_like=True, gc=False):
    """Count what a limit has let through in one period.

    `period` is the number of a calendar period; of a use that has left a rolling window, its instant. `ended_ms` is an
    instant at which its period has ended, for sure; 0 where it goes on.
    """

    period: int
    amount: int = 0
    times: int = 0
    ended_ms: int = 0

    def take_back(self, amount: int, times: int) -> None:
        """Lower what was used, to 0 at the least."""
        self.amount = max(self.amount - amount, 0)
        self.times = max(self.times - times, 0)


class Memory(Struct, array_like=True):
    """Hold what few members or few programmes need: limits per value of a field, windows, counters, held rewards.

    Each is bounded: values of a field and entries of a window by `engine.member.windows`, the rest by the rules and
    items of the programmes. `counters` holds a few integers a key, `possessed` when a badge or benefit ends (0: never),
    `crowded_out` the latest period, or instant, of which a limit has values that had to make room for others: they lie
    among `MemberState.ended`, or beyond the state.
    """

    value_limits: dict[str, dict[str, LimitUse]] = field(default_factory=dict)
    windows: dict[str, Window] = field(default_factory=dict)
    value_windows: dict[str, dict[str, Window]] = field(default_factory=dict)
    counters: dict[str, list[int]] = field(default_factory=dict)
    possessed: dict[str, int] = field(default_factory=dict)
    crowded_out: dict[str, int] = field(default_factory=dict)


class MemberState(Struct, array_like=True):
    """Hold a member's state after their last source event; stored as MessagePack, so fields are added at the end.

    `clock_ms` is the latest instant processed, `limits` what each limit has used (key: `LimitScope.key`),
    `suspended_since` the seq of the first event that evaluation could not judge (0: none; later events are logged,
    not judged), `erased` whether the member asked for erasure, `memory` everything that takes more than a few
    bytes, `signup_ms` the first signup, `available` the points that can be spent less what is owed. `profile` is
    personal: it is sealed in a column of its own and never encoded with the state; None also where no rule reads it
    and it was not opened. `due_ms` is the next instant at which something happens by itself (None: nothing will),
    `lots` the newest lots and `orders` the facts of their orders, `debts` what is owed by unit, `pages` how many
    pages of lots were filled so far, `is_booked` whether the ledger has other parts beyond this state, `is_waiting`
    whether refunds wait for their purchase, `first_ms` the first event, `standing` the tier, `gained` what the
    event under way adds to the number that tiers go by (0 between events), `birthday_ms` and `anniversary_ms` when
    the next ones begin, `version` that of the programme that the member follows, `referral` who referred them
    (None: nobody). `ended` holds the uses of limits in periods that are over, by count, the earliest first; when
    there are many they become a page, of which `use_pages` counts those written since they were last read. Periods
    that ended up to `uses_gone_ms` are not known. `completions` are the newest completed challenges that can still
    be undone.
    """

    clock_ms: int = 0
    limits: dict[str, LimitUse] = field(default_factory=dict)
    suspended_since: int = 0
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
    tier_state: TierState | None = None
    gained: int = 0
    birthday_ms: int | None = None
    anniversary_ms: int | None = None
    version: int = 0
    referral: Referral | None = None
    ended: dict[str, list[LimitUse]] = field(default_factory=dict)
    use_pages: int = 0
    uses_gone_ms: int = 0
    completions: list[Completion] = field(default_factory=list)

    def note_due(self, at_ms: int | None) -> None:
        """Take note that something happens at an instant; None: nothing."""
        if at_ms is not None and (self.due_ms is None or at_ms < self.due_ms):
            self.due_ms = at_ms

    def hold_item(self, unit: str, item: str, until_ms: int | None) -> None:
        """Remember that a badge or benefit is held; None: without an end."""
        if unit in ("badge", "benefit"):
            self.remembering().possessed[item] = until_ms or 0

    def remembering(self) -> Memory:
        """Return the member's memory, made now where there was nothing to remember yet."""
        if self.memory is None:
            self.memory = Memory()
        return self.memory


PAGE_LOTS = 8
"""Lots that fill a page: a state holds fewer between events; measured in docs/performance.md."""


_PAGE_ENTRIES = 32
"""So many instants of completed challenges fill a page, too."""


def is_full(state: MemberState) -> bool:
    """Whether a state holds so many lots that they should become a page of the ledger."""
    if len(state.lots) >= PAGE_LOTS or len(state.orders) >= PAGE_LOTS:
        return True
    return bool(state.completions) and _entries(state.completions) >= _PAGE_ENTRIES


def _entries(completions: list[Completion]) -> int:
    return sum(4 if each.window is None else 4 + len(each.window.instants) for each in completions)


def turn_page(state: MemberState) -> Page:
    """Take the newest lots out of a state and return them as the page that `state.pages` numbers."""
    page = Page(state.lots, state.orders, state.completions)
    state.lots, state.orders, state.completions, state.pages = [], {}, [], state.pages + 1
    return page


USES_MAX = 16
"""Uses of ended periods that become a page: a state holds fewer between transactions."""


def has_many_uses(state: MemberState) -> bool:
    """Whether a state holds so many uses of ended periods that they should become a page."""
    return sum(map(len, state.ended.values())) >= USES_MAX


def drop_uses(state: MemberState, before_ms: int) -> None:
    """Drop the uses of periods that ended before an instant, and those of which nothing is left."""
    state.ended = {
        count: kept
        for count, uses in state.ended.items()
        if (kept := [use for use in uses if use.ended_ms >= before_ms and (use.amount or use.times)])
    }


def turn_uses(state: MemberState, before_ms: int) -> dict[str, list[LimitUse]] | None:
    """Take the uses of ended periods out of a state and return them as the page that `state.use_pages` numbers.

    What `drop_uses` drops is gone; None where nothing else was there.
    """
    drop_uses(state, before_ms)
    if not state.ended:
        return None
    page, state.ended = state.ended, {}
    state.use_pages += 1
    return page


def bring_back_uses(state: MemberState, page: dict[str, list[LimitUse]]) -> None:
    """Put the uses of a page back into a state, each count's in the order of their periods."""
    for count, uses in page.items():
        state.ended[count] = sorted([*state.ended.get(count, ()), *uses], key=lambda use: use.period)


def birthday_of(state: MemberState) -> str | None:
    """Return the member's birthday, or None where it is not known."""
    return None if state.profile is None else state.profile.birthday


def attribute_of(state: MemberState, name: str) -> str | None:
    """Return one attribute of the member, or None where it is not known."""
    return None if state.profile is None else state.profile.attributes.get(name)
