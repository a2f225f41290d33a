"""Compute the rest of an order after refunds, and the rewards that the order's own programme version gives for it.

Rules read the rest like a purchase. A refund by amount alone lowers all lines by one fraction, so the rest's lines have
exact rationals for amounts and quantities.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from msgspec import structs

from engine.member.pages import ReturnedLine
from engine.programme.interpret.facts import millionths
from engine.programme.model import Phase, in_order
from engine.programme.rules.awards import award_of
from engine.programme.rules.kept_facts import ORDERS
from schemas.events import Tender

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from engine.member.lots import Lot
    from engine.member.pages import Refunded
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Challenge, Programme
    from schemas.events import Refund


@dataclass(frozen=True, slots=True)
class RestLine:
    """Hold the rest of a line: its quantity in millionths, its amount in minor units."""

    line_id: str
    sku: str
    category: str | None
    brand: str | None
    quantity: Fraction
    amount: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Hold the rest of an order, with the field names of a purchase."""

    event_id: str
    member_id: str
    source: str
    occurred_at: int
    attributes: dict[str, str] | None
    order_id: str
    currency: str
    amount: int
    gross: int | None
    shipping: int | None
    tax: int | None
    channel: str | None
    store: str | None
    brand: str | None
    coupons: tuple[str, ...] | None
    tenders: tuple[Tender, ...] | None
    items: tuple[RestLine, ...] | None


def total_left(refunded: Refunded) -> int:
    """Return the order's amount less the lines returned; refunds by amount are taken from that."""
    return refunded.purchase.amount - sum(line.amount for line in refunded.lines.values())


def exceeds(refunded: Refunded) -> bool:
    """Whether more was returned than was bought."""
    bought = {item.line_id: item for item in refunded.purchase.items or ()}
    for line_id, line in refunded.lines.items():
        item = bought.get(line_id)
        if item is None or line.amount > item.amount or line.quantity > millionths(item.quantity):
            return True
    return refunded.amount > total_left(refunded)


def after_refund(order: Refunded, event: Refund) -> Refunded | None:
    """Return the order after a refund, or None where the refund returns more than was bought."""
    # a copy: a refund that returns too much must leave the order as it is
    after = structs.replace(
        order, lines={key: ReturnedLine(line.quantity, line.amount) for key, line in order.lines.items()},
        refunds=dict(order.refunds),
    )  # fmt: skip

    # by lines, or the whole rest, or by amount
    for item in event.items or ():
        line = after.lines.setdefault(item.line_id, ReturnedLine())
        line.amount += item.amount
        line.quantity += millionths(item.quantity) if item.quantity is not None else 0
    if not event.items and event.amount is None:
        after.whole, after.amount = True, total_left(after)
    elif not event.items:
        after.amount += event.amount or 0
    return None if exceeds(after) else after


def rest_of(refunded: Refunded) -> Rest | None:
    """Return the rest of an order, or None where nothing is left: no money, or no goods, whatever cents remain."""
    bought, total = refunded.purchase, total_left(refunded)
    amount = total - refunded.amount
    lines = _lines_left(refunded, Fraction(amount, total) if total else Fraction(1))
    if refunded.whole or (bought.amount and not amount) or (bought.items and not lines):
        return None

    # shipping is not returned; gross, tax and tenders shrink with the amount
    return Rest(
        event_id=bought.event_id, member_id=bought.member_id, source=bought.source, occurred_at=bought.occurred_at,
        attributes=bought.attributes, order_id=bought.order_id, currency=bought.currency, amount=amount,
        gross=_part(bought.gross, amount, bought.amount), shipping=bought.shipping,
        tax=_part(bought.tax, amount, bought.amount), channel=bought.channel, store=bought.store, brand=bought.brand,
        coupons=bought.coupons, tenders=_tenders_left(bought.tenders, amount, bought.amount),
        items=None if bought.items is None else tuple(lines),
    )  # fmt: skip


def _lines_left(refunded: Refunded, share: Fraction) -> list[RestLine]:
    """Return the lines with goods left; a line whose quantity is all back is gone, whatever cents remain of it.

    Args:
        refunded: the order.
        share: the part of each line that refunds by amount have left.
    """
    left = []
    for item in refunded.purchase.items or ():
        # less what was returned of this line
        line = refunded.lines.get(item.line_id)
        bought = quantity = millionths(item.quantity)
        amount = item.amount
        if line is not None:
            quantity, amount = quantity - line.quantity, amount - line.amount

        # a line bought without a quantity is gone with its amount
        is_left = line is None or (quantity and (amount or not item.amount)) or (amount and not bought)
        if is_left:
            left.append(
                RestLine(
                    item.line_id, item.sku, item.category, item.brand, quantity=quantity * share, amount=amount * share
                )
            )
    return left


def _part(value: int | None, left: int, bought: int) -> int | None:
    """Return the part of a value that belongs to the amount left of the amount bought, rounded down."""
    return value if value is None or not bought else value * left // bought


def _tenders_left(tenders: Sequence[Tender] | None, left: int, bought: int) -> tuple[Tender, ...] | None:
    if tenders is None:
        return None
    return tuple(Tender(kind=each.kind, amount=_part(each.amount, left, bought) or 0) for each in tenders)


def earned_by_rest(
    programme: Programme, lots: Sequence[Lot], facts: Facts, gone: Collection[bytes]
) -> dict[bytes, int]:
    """Return how much of each of an order's lots the rest still earns, by key; never more than before.

    Args:
        programme: the version that awarded them.
        lots: the lots of the order.
        facts: the facts of the rest, with everything else as it was at the award.
        gone: the keys of lots whose challenge is not completed any more.
    """
    by_rule: dict[str, list[Lot]] = {}
    for lot in lots:
        by_rule.setdefault(lot.rule_id or "", []).append(lot)

    # as at the award: the rules in order, multipliers over the points of the phases before them
    given = dict.fromkeys(Phase, 0)
    earned: dict[bytes, int] = dict.fromkeys((lot.key for lot in lots), 0)
    for rule in in_order(programme.rules):
        rule_lots = by_rule.get(rule.id)
        if rule_lots is None or (rule.on in ORDERS and not facts.holds(rule.when)):
            continue
        for lot in rule_lots:
            if lot.key in gone:
                continue
            award = award_of(facts, rule.gives[lot.give].amount, given) if rule.on in ORDERS else lot.amount
            earned[lot.key] = min(award, lot.amount - lot.claimed)

        # what rules on challenges gave, and completions at a refund, came after the multipliers
        if rule.on in ORDERS:
            points = [lot for lot in rule_lots if lot.unit == "points" and lot.granted_ms == facts.at_ms]
            given[rule.phase] += sum(earned[lot.key] for lot in points)
    return earned


def counted(challenge: Challenge, facts: Facts) -> int:
    """Return how much an order, or its rest, counts for a challenge; line shares round down."""
    if not facts.holds(challenge.where):
        return 0
    return 1 if challenge.of is None else int(facts.value_of(challenge.of) or 0)
