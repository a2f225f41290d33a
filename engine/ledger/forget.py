"""Forget what no refund and no restore can need any more, so that a ledger is bounded by what is still open.

Whether a refund came in time is told by its own time and its purchase's. How long an order is known goes by the
member's clock: it is forgotten when that is a refund window, and `LATE_MS` for what comes late, past where it stood
when the order was judged. So what is judged long after it occurred, as in a history loaded at once, is known as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.member.pages import OrderFacts
from engine.member.state import PAGE_LOTS
from engine.member.windows import LATE_MS
from engine.programme.localtime import calendar_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.member.lots import Lot
    from engine.member.pages import Page
    from engine.member.parts import Parts
    from engine.member.state import MemberState
    from engine.programme.model import Programme
    from engine.programme.rules.judge import Judge


def refunds_close_ms(programme: Programme, bought_ms: int) -> int:
    """Return the last instant at which an order can be refunded, by the version that judged it."""
    return calendar_of(programme.timezone).after(bought_ms, programme.terms.refunds.window)


def known_until_ms(programme: Programme, judged_ms: int) -> int:
    """Return how far a member's clock may come before what was judged when it stood at an instant is forgotten."""
    return refunds_close_ms(programme, judged_ms) + LATE_MS


def is_order_known(programme: Programme, facts: OrderFacts, bought_ms: int, clock_ms: int) -> bool:
    """Whether an order is not forgotten yet.

    Args:
        programme: the version that judged it.
        facts: that are kept of it.
        bought_ms: when it was bought.
        clock_ms: how far the member's time has come.
    """
    return clock_ms <= max(known_until_ms(programme, bought_ms), facts.until_ms)


def note_order(state: MemberState, programme: Programme, order_id: str, bought_ms: int) -> None:
    """Note how long an order is known that was judged just now, where neither its time nor a lot of it says so.

    That is so where the member's clock was past it, and where facts are kept of an order that has earned nothing.
    """
    facts = state.orders.get(order_id)
    is_bare = facts is not None and (not state.lots or state.lots[-1].order_id != order_id)
    if is_bare or bought_ms < state.clock_ms:
        facts = facts or state.orders.setdefault(order_id, OrderFacts())
        facts.until_ms = max(facts.until_ms, known_until_ms(programme, max(bought_ms, state.clock_ms)))


def at_hand(lots: Iterable[Lot], parts: Parts, clock_ms: int, judge: Callable[[int], Judge]) -> list[Lot]:
    """Return the lots that no ledger has dropped yet, whenever it does so: the live fold and a replay do it apart.

    Args:
        lots: of one member.
        parts: the member's.
        clock_ms: how far the member's time has come.
        judge: returns the judge of an activated version.
    """
    needed = {taken.lot for redemption in parts.redemptions.values() for taken in redemption.taken}
    needed |= {key for redemption in parts.redemptions.values() for key in redemption.items}
    return [
        lot
        for lot in lots
        if lot.is_open
        or lot.key in needed
        or clock_ms <= known_until_ms(judge(lot.version or 0).programme, lot.judged_ms or lot.granted_ms)
    ]


def forget(parts: Parts, state: MemberState, judge: Callable[[int], Judge]) -> None:
    """Drop closed lots and refunded orders, once nothing can come back to them, and join pages left half empty.

    Args:
        parts: a member's, changed in place.
        state: the member's, whose newest lots and orders stay.
        judge: returns the judge of an activated version.
    """
    parts.holdings = None  # what is dropped is found no more
    clock_ms = state.clock_ms
    kept = {lot.key for lot in at_hand(parts.lots(), parts, clock_ms, judge)}
    for number, page in list(parts.pages.items()):
        page.lots = [lot for lot in page.lots if lot.key in kept]
        orders = {lot.order_id for lot in page.lots}
        page.orders = {
            order_id: facts
            for order_id, facts in page.orders.items()
            if order_id in orders or facts.until_ms >= clock_ms
        }
        page.completions = [each for each in page.completions if clock_ms <= each.until_ms]
        if not (page.lots or page.orders or page.completions):
            del parts.pages[number]
    _join_pages(parts)
    known = {name for page in parts.pages.values() for name in page.orders}
    for order_id, order in list(parts.refunded.items()):
        if order_id in known or order_id in state.orders:
            continue
        programme = judge(order.version).programme
        if not is_order_known(programme, OrderFacts(), order.purchase.occurred_at, clock_ms):
            del parts.refunded[order_id]


def _fit(page: Page, other: Page) -> bool:
    """Whether two pages hold no more than one may."""
    return len(page.lots) + len(other.lots) <= PAGE_LOTS and len(page.orders) + len(other.orders) <= PAGE_LOTS


def _join_pages(parts: Parts) -> None:
    """Put what two pages side by side hold into the earlier one, where it fits."""
    earlier: int | None = None
    for number in sorted(parts.pages):
        if earlier is not None and _fit(parts.pages[earlier], parts.pages[number]):
            page = parts.pages.pop(number)
            parts.pages[earlier].lots += page.lots
            parts.pages[earlier].orders |= page.orders
            parts.pages[earlier].completions += page.completions
        else:
            earlier = number
