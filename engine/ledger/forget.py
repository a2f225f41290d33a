"""Forget facts that no refund or restore can need any more, so that only open lots and recent orders grow a ledger.

Whether a refund is in time depends on its own time and that of its purchase. How long an order is remembered depends on
the member's clock: for a refund window, and `LATE_MS` for late events, from where the clock stood when the order was
judged. So an order that is judged long after it occurred, as in a history loaded at once, is remembered as long as any.
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
    """Return the last instant at which an order can be refunded; `programme` is the version that judged it."""
    return calendar_of(programme.timezone).after(bought_ms, programme.terms.refunds.window)


def known_until_ms(programme: Programme, judged_ms: int) -> int:
    """Return the last instant of a member's clock at which an order judged at `judged_ms` is remembered."""
    return refunds_close_ms(programme, judged_ms) + LATE_MS


def is_order_known(programme: Programme, facts: OrderFacts, bought_ms: int, clock_ms: int) -> bool:
    """Whether an order is still remembered.

    Args:
        programme: the version that judged the order.
        facts: the order's facts.
        bought_ms: when the order was bought.
        clock_ms: the member's clock.
    """
    return clock_ms <= max(known_until_ms(programme, bought_ms), facts.until_ms)


def note_order(state: MemberState, programme: Programme, order_id: str, bought_ms: int) -> None:
    """Note how long an order that was judged just now is remembered, where neither its time nor its lots say so.

    That is the case for a late order, and for an order that has facts but has earned nothing.
    """
    facts = state.orders.get(order_id)
    is_bare = facts is not None and (not state.lots or state.lots[-1].order_id != order_id)
    if is_bare or bought_ms < state.clock_ms:
        facts = facts or state.orders.setdefault(order_id, OrderFacts())
        facts.until_ms = max(facts.until_ms, known_until_ms(programme, max(bought_ms, state.clock_ms)))


def remembered(lots: Iterable[Lot], parts: Parts, clock_ms: int, judge: Callable[[int], Judge]) -> list[Lot]:
    """Return the lots that every ledger still has at this clock; others may be dropped already, or not yet.

    The live fold and a replay drop lots at different events, so neither may use a lot that the other may have dropped.

    Args:
        lots: lots of one member.
        parts: the parts of the member's ledger.
        clock_ms: the member's clock.
        judge: returns the judge of an activated version.
    """
    needed = {withdrawal.lot for redemption in parts.redemptions.values() for withdrawal in redemption.withdrawals}
    needed |= {key for redemption in parts.redemptions.values() for key in redemption.items}
    return [
        lot
        for lot in lots
        if lot.is_open
        or lot.key in needed
        or clock_ms <= known_until_ms(judge(lot.version or 0).programme, lot.judged_ms or lot.granted_ms)
    ]


def forget(parts: Parts, state: MemberState, judge: Callable[[int], Judge]) -> None:
    """Drop closed lots and refunded orders that no event can touch any more, and join pages that are half empty.

    Args:
        parts: the parts of a member's ledger, changed in place.
        state: the state of the member; the newest lots and orders, which it holds, stay.
        judge: returns the judge of an activated version.
    """
    parts.holdings = None  # they still list the lots that are dropped here
    clock_ms = state.clock_ms

    # drop lots, facts of orders without lots, and completions; then pages that are empty
    keys = {lot.key for lot in remembered(parts.lots(), parts, clock_ms, judge)}
    for number, page in list(parts.pages.items()):
        page.lots = [lot for lot in page.lots if lot.key in keys]
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

    # drop refunded orders without facts
    with_facts = {name for page in parts.pages.values() for name in page.orders}
    for order_id, order in list(parts.refunded.items()):
        if order_id in with_facts or order_id in state.orders:
            continue
        programme = judge(order.version).programme
        if not is_order_known(programme, OrderFacts(), order.purchase.occurred_at, clock_ms):
            del parts.refunded[order_id]


def _join_pages(parts: Parts) -> None:
    """Move the content of each page into the page before it, where it fits."""
    before: Page | None = None
    for number in sorted(parts.pages):
        page = parts.pages[number]
        if (
            before is not None
            and len(before.lots) + len(page.lots) <= PAGE_LOTS
            and len(before.orders) + len(page.orders) <= PAGE_LOTS
        ):
            before.lots += page.lots
            before.orders |= page.orders
            before.completions += page.completions
            del parts.pages[number]
        else:
            before = page
