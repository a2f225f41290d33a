"""Forget what no refund and no restore can need any more, so that a ledger is bounded by what is still open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.localtime import calendar_of
from engine.state import PAGE_LOTS
from engine.windows import LATE_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from engine.ledger.lots import Lot
    from engine.ledger.parts import Parts
    from engine.programme.judge import Judges
    from engine.programme.model import Programme


def refunds_close_ms(programme: Programme, bought_ms: int) -> int:
    """Return the last instant at which an order can be refunded, by the version that judged it."""
    return calendar_of(programme.timezone).after(bought_ms, programme.terms.refunds.window)


def is_forgotten(programme: Programme, bought_ms: int, clock_ms: int) -> bool:
    """Whether an order's facts may be gone: its refunds have closed, and late ones have had their time."""
    return clock_ms > refunds_close_ms(programme, bought_ms) + LATE_MS


def at_hand(lots: Iterable[Lot], parts: Parts, clock_ms: int, judge: Callable[[int], Judges]) -> list[Lot]:
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
        or not is_forgotten(judge(lot.version or 0).programme, lot.granted_ms, clock_ms)
    ]


def forget(parts: Parts, newest: Sequence[Lot], clock_ms: int, judge: Callable[[int], Judges]) -> None:
    """Drop closed lots and refunded orders, once nothing can come back to them, and join pages left half empty.

    Args:
        parts: a member's, changed in place.
        newest: the lots in the member's state, which stay.
        clock_ms: how far the member's time has come.
        judge: returns the judge of an activated version.
    """
    kept = {lot.key for lot in at_hand(parts.lots(), parts, clock_ms, judge)}
    for number, page in list(parts.pages.items()):
        page.lots = [lot for lot in page.lots if lot.key in kept]
        orders = {lot.order_id for lot in page.lots}
        page.orders = {order_id: facts for order_id, facts in page.orders.items() if order_id in orders}
        if not page.lots:
            del parts.pages[number]
    _join_pages(parts)
    # what a refund has claimed of a lot must be known as long as a void may claim the rest of it
    known = {lot.order_id for lot in (*parts.lots(), *at_hand(newest, parts, clock_ms, judge))}
    for order_id, order in list(parts.refunded.items()):
        if order_id not in known and is_forgotten(judge(order.version).programme, order.purchase.occurred_at, clock_ms):
            del parts.refunded[order_id]


def _join_pages(parts: Parts) -> None:
    """Put the lots of two pages side by side into the earlier one, where they fit."""
    earlier: int | None = None
    for number in sorted(parts.pages):
        if earlier is not None and len(parts.pages[earlier].lots) + len(parts.pages[number].lots) <= PAGE_LOTS:
            page = parts.pages.pop(number)
            parts.pages[earlier].lots += page.lots
            parts.pages[earlier].orders |= page.orders
        else:
            earlier = number
