"""Refund: after it, what an order has earned is what the version that awarded it gives for what is left of it."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar

from msgspec import structs

from engine.ledger import contests, ranks
from engine.ledger.forget import at_hand, is_order_known, refunds_close_ms
from engine.ledger.lots import ITEM_UNITS
from engine.ledger.parts import OrderFacts, ReferralFacts, Refunded
from engine.ledger.redemptions import give_back
from engine.ledger.rest import after_refund, earned_by_rest, rest_of
from engine.programme.facts import metric_value
from engine.programme.frozen import FrozenFacts, frozen_items
from engine.programme.localtime import calendar_of
from engine.programme.occasions import ReferralEvent
from engine.programme.returned import return_to_limits, take_from_metric
from engine.programme.terms import Negative
from schemas.events import Purchase
from schemas.rewards import referee_of

if TYPE_CHECKING:
    from engine.ledger.lots import Lot
    from engine.ledger.rest import Rest
    from engine.ledger.turn import Turn
    from engine.programme.conditions import Metric
    from engine.programme.model import Programme
    from schemas.events import Event, Refund


def refund(turn: Turn, event: Refund) -> None:
    """Take an order's goods back, or refuse the refund; one that comes before its purchase waits for it."""
    parts = turn.books.parts()
    order = parts.refunded.get(event.order_id)
    if order is None:
        placed = turn.books.purchase(event.order_id)
        if placed is None:
            turn.watch.refund(event, None, None)
            parts.waiting.setdefault(event.order_id, []).append(event)
            turn.state.is_booked = turn.state.is_waiting = True
            _refuse(turn, event, "refund_unmatched")
            return
        order = Refunded(placed.purchase, placed.version)
    _take_back(turn, order, event, Refunding)


def refund_of_referee(turn: Turn, event: Refund, purchase: Purchase) -> None:
    """Take back from the referrer what a referee's order has earned them, by the version that awarded it, or refuse to.

    Nothing is told of an order that has earned the referrer nothing, unless the refund comes too late to know that.

    Args:
        turn: the referrer's.
        event: the referee's refund, with the order's name in the referrer's ledger.
        purchase: the order that it returns, with the same name.
    """
    lots = [lot for lot in turn.lots_of_order(purchase.order_id) if lot.rule_id is not None]
    earned = at_hand(lots, turn.books.parts(), turn.state.clock_ms, turn.books.judge) if lots else []
    version = (earned[0].version or 0) if earned else turn.judge.version
    order = turn.books.parts().refunded.get(purchase.order_id) or Refunded(purchase, version)
    if earned or _is_closed(turn, order, event):
        _take_back(turn, order, event, ReferralRefunding)


def _take_back(turn: Turn, order: Refunded, event: Refund, refunding: type[Refunding]) -> None:
    """Carry a refund of an order out, or refuse it and say why."""
    turn.watch.refund(event, order, turn.books.judge(order.version).programme)
    reason = _refusal(turn, order, event)
    after = None if reason is not None else after_refund(order, event)
    if after is None:
        _refuse(turn, event, reason or "refund_exceeds")
        return
    _carry_out(turn, (order, after), event, refunding)


def _carry_out(turn: Turn, orders: tuple[Refunded, Refunded], event: Refund, refunding: type[Refunding]) -> None:
    """Carry out a refund of an order, which is given as it was before and as it is after."""
    before, after = orders
    after.refunds[event.refund_id] = _digest(event)
    turn.state.is_booked = True
    turn.books.parts().refunded[after.purchase.order_id] = after
    refunding(turn, before, after, event.occurred_at).run()


def _refuse(turn: Turn, event: Refund, reason: str) -> None:
    """Record that a refund does not happen, with the money that it asked for; 0 where it asked for the whole rest."""
    asked = event.amount or sum(item.amount for item in event.items or ())
    turn.refuse(reason, event.occurred_at, asked, turn.judge.programme.currency, order_id=event.order_id)


def apply_waiting(turn: Turn, order_id: str, bought_ms: int) -> None:
    """Apply the refunds that came before their purchase, right after it."""
    waiting = turn.books.parts().waiting
    for event in waiting.pop(order_id, ()):
        refund(turn, structs.replace(event, occurred_at=max(event.occurred_at, bought_ms)))
    turn.state.is_waiting = bool(waiting)


def _refusal(turn: Turn, order: Refunded, event: Refund) -> str | None:
    # First: whether what is known of the order has been dropped already differs between the live fold and a replay.
    if _is_closed(turn, order, event):
        return "refund_window_closed"
    known = order.refunds.get(event.refund_id)
    if known is not None:
        return "already_refunded" if known == _digest(event) else "id_conflict"
    return "nothing_left" if order.refunds and rest_of(order) is None else None


def _is_closed(turn: Turn, order: Refunded, event: Refund) -> bool:
    """Whether a refund is too late for its order, by the times of both, or what the order has earned is forgotten."""
    programme, bought_ms = turn.books.judge(order.version).programme, order.purchase.occurred_at
    if event.occurred_at > refunds_close_ms(programme, bought_ms):
        return True
    facts = kept_facts(turn, order.purchase.order_id)
    return not is_order_known(programme, facts, bought_ms, turn.state.clock_ms)


def _digest(event: Refund) -> bytes:
    items = [(item.line_id, item.quantity, item.amount) for item in event.items or ()]
    return blake2b(f"{event.amount}\0{items}".encode(), digest_size=8).digest()


class Refunding:
    """Carry out one refund of an order: give back what it was paid with, then take what the rest no longer earns."""

    KIND: ClassVar[type[Event]] = Purchase

    def __init__(self, turn: Turn, before: Refunded, after: Refunded, at_ms: int) -> None:
        self._turn = turn
        self._order = after
        self._at_ms = at_ms
        self._programme: Programme = turn.books.judge(after.version).programme
        self._kept = kept_facts(turn, after.purchase.order_id)
        self.bought = self._facts(after.purchase)
        self._left_before, self._left = (
            None if rest is None else self._facts(rest) for rest in (rest_of(before), rest_of(after))
        )

    def run(self) -> None:
        """Restore, reverse, give back to limits, and count what metrics and tiers lose."""
        self._repay()
        lots = [lot for lot in self._turn.lots_of_order(self._order.purchase.order_id) if lot.rule_id is not None]
        earned = self._earned(lots)
        watch, taken = self._turn.watch, dict[bytes, int]()
        watch.rest(None if self._left is None else self._left.event)
        for lot in lots:
            watch.weighed(lot, earned[lot.key], self._order.claims.get(lot.key, 0))
            claim = lot.amount - earned[lot.key] - self._order.claims.get(lot.key, 0)
            if claim > 0:
                self._order.claims[lot.key] = self._order.claims.get(lot.key, 0) + claim
                taken[lot.key] = self._take(lot, claim)
                self._order.reversed[lot.key] = self._order.reversed.get(lot.key, 0) + taken[lot.key]
        self._return_to_limits(lots, taken)
        self._take_from_contests()
        self._lower(self._take_from_metrics(sum(taken.get(lot.key, 0) for lot in lots if lot.unit == "status")))

    def _facts(self, event: Purchase | Rest | ReferralEvent) -> FrozenFacts:
        kept = dict(zip(frozen_items(self._programme, self.KIND), self._kept.facts, strict=False))
        calendar = calendar_of(self._programme.timezone)
        return FrozenFacts(event, event.occurred_at, calendar, self._turn.state, 0, {}, kept)

    def _earned(self, lots: list[Lot]) -> dict[bytes, int]:
        if self._left is None:
            return dict.fromkeys((lot.key for lot in lots), 0)
        return earned_by_rest(self._programme, lots, self._left, self._kept, self._tier_left(lots, self._left))

    def _tier_left(self, lots: list[Lot], left: FrozenFacts) -> int:
        """Return what the rest adds to the number that tiers go by."""
        tiers = self._programme.terms.tiers
        if tiers is None:
            return 0
        if tiers.metric is not None:
            return self._counted(tiers.metric, left)
        status = [lot for lot in lots if lot.unit == "status"]
        return sum(earned_by_rest(self._programme, status, left, self._kept, 0).values())

    def _take(self, lot: Lot, claim: int) -> int:
        return take(self._turn, lot, claim, (self._at_ms, "refund"), self._programme.terms.refunds.negative)

    def _return_to_limits(self, lots: list[Lot], taken: dict[bytes, int]) -> None:
        """Give back to limits what was reversed now, in the period of the purchase."""
        for rule in self._programme.rules:
            own = [lot for lot in lots if lot.rule_id == rule.id]
            if not rule.limits or not any(taken.get(lot.key) for lot in own):
                continue
            amounts: dict[str, int] = {}
            for lot in own:
                amounts[lot.unit] = amounts.get(lot.unit, 0) + taken.get(lot.key, 0)
            is_gone = all(self._order.reversed.get(lot.key, 0) == lot.amount for lot in own)
            return_to_limits(self._turn, rule, self.bought, amounts, int(is_gone))

    def _take_from_contests(self) -> None:
        """Take what is returned now from the contests that rank by spend."""
        before, after = (0 if left is None else left.event.amount for left in (self._left_before, self._left))
        contests.take_back(self._turn, self._order.purchase.occurred_at, before - after)

    def _take_from_metrics(self, status: int) -> int:
        """Take the order's part out of metrics, and return by how much the number falls that tiers go by now.

        A count falls when nothing is left, a sum by value.
        """
        tiers, fallen = self._turn.terms.tiers, 0
        for metric in self._programme.metrics:
            if metric.on == "purchase":
                by = self._counted(metric, self._left_before) - self._counted(metric, self._left)
                take_from_metric(self._turn.state, metric, by, self._order.purchase.occurred_at)
                if tiers is not None and tiers.metric is not None and tiers.metric.key == metric.key:
                    fallen = by
        return status if tiers is not None and tiers.metric is None else fallen

    def _counted(self, metric: Metric, left: FrozenFacts | None) -> int:
        """Return what of the order a metric has counted, as it is left; shares of lines are rounded down."""
        if left is None or not self.bought.holds(metric.where):
            return 0
        return int(metric_value(metric, left))

    def _lower(self, fallen: int) -> None:
        if fallen:
            ranks.lower(self._turn, fallen, self._order.purchase.occurred_at, self._at_ms)

    def _repay(self) -> None:
        """Restore the points that paid for the order: money in proportion, gifts and coupons when nothing is left."""
        order, bought = self._order, self._order.purchase.amount
        left = 0 if self._left is None else self._left.event.amount
        for redemption_id, redemption in sorted(self._turn.books.parts().redemptions.items()):
            if redemption.order_id != order.purchase.order_id or redemption.status != "captured":
                continue
            if redemption.reward is None:  # only the catalogue's rewards pay towards an order
                continue
            paid = order.repaid.get(redemption_id, 0)
            total = paid + sum(taken.amount for taken in redemption.taken)
            due = total if self._left is None else 0
            if redemption.value_minor and self._left is not None and bought:
                due = total * (bought - left) // bought
            if due > paid:
                give_back(self._turn, redemption, due - paid, self._at_ms)
                order.repaid[redemption_id] = due


class ReferralRefunding(Refunding):
    """Carry out the refund of a referee's order in the referrer's account: only what rules on referrals gave counts."""

    KIND: ClassVar[type[Event]] = ReferralEvent

    def _facts(self, event: Purchase | Rest | ReferralEvent) -> FrozenFacts:
        """Read the order as rules on referrals do: what the referee has spent by then is less by what was returned."""
        known, bought = self._kept.referral or ReferralFacts(0, 0), self._order.purchase
        amount = event.amount or 0
        head = (bought.event_id, bought.source, bought.member_id, bought.occurred_at)
        spend = known.spend - bought.amount + amount
        return super()._facts(referral_event(known, head, ("purchase", bought.order_id), amount, spend))

    def _tier_left(self, lots: list[Lot], left: FrozenFacts) -> int:
        tiers = self._turn.terms.tiers
        return super()._tier_left(lots, left) if tiers is not None and tiers.metric is None else 0

    def _take_from_metrics(self, status: int) -> int:
        """Return what tiers by status lose; no metric has counted a referee's order."""
        tiers = self._turn.terms.tiers
        return status if tiers is not None and tiers.metric is None else 0

    def _take_from_contests(self) -> None:
        """Take nothing: the referee's account has counted the order, and loses it."""


def referral_event(
    known: ReferralFacts, head: tuple[str, str, str, int], did: tuple[str, str], amount: int | None, spend: int
) -> ReferralEvent:
    """Return what a referee has done as rules on referrals see it.

    Args:
        known: of the referee by then.
        head: event_id and source of the referee's event, the referrer, and when it occurred.
        did: the type of the event, and the name that the order has in the referrer's ledger.
        amount: of the order, or of what is left of it.
        spend: what the referee has spent by then.
    """
    event_id, source, member_id, occurred_ms = head
    event, order_id = did
    channel, code, referrer, visitor = known.referee
    return ReferralEvent(
        event_id=event_id, source=source, member_id=member_id, occurred_at=occurred_ms, event=event,
        referee_id=referee_of(order_id) or "", order_id=order_id, number=known.number, amount=amount, spend=spend,
        signup_ms=known.signup_ms, channel=known.channel, referee_channel=channel, referee_code=code,
        referee_referrer=referrer, referee_visitor=visitor,
    )  # fmt: skip


def take(turn: Turn, lot: Lot, claim: int, how: tuple[int, str], negative: Negative) -> int:
    """Take a claim on a lot as far as the programme lets it, and return how much was taken.

    Args:
        turn: of the event that claims.
        lot: what was awarded.
        claim: how much of it is asked back, in the lot's unit.
        how: when, and the reason that the log gives.
        negative: how far the programme lets a balance fall.
    """
    at_ms, reason = how
    if lot.unit in ITEM_UNITS:
        held = min(claim, lot.active + lot.pending)
        if held:
            turn.take_back(lot, held, at_ms, reason)
        turn.watch.claimed(lot, claim, held)
        return held
    accounts = ("pending",) if negative is Negative.ONLY_PENDING else ("pending", "active", "expired")
    if lot.unit == "status":
        accounts = ("pending", "active", "expired")
    left = turn.movements.reverse(lot, claim, at_ms, accounts, reason)
    if negative is not Negative.ONLY_PENDING or lot.unit == "status":
        left = turn.movements.reverse_active(lot.unit, left, at_ms, reason)
    if left and (negative is Negative.UNLIMITED or lot.unit == "status"):
        left -= turn.owe(lot, left, at_ms, reason)
    elif left:
        turn.refuse("forgiven", at_ms, left, lot.unit, None, lot.order_id)
    turn.watch.claimed(lot, claim, claim - left)
    return claim - left


def kept_facts(turn: Turn, order_id: str) -> OrderFacts:
    """Return the facts that were kept of an order's award."""
    found = turn.state.orders.get(order_id)
    if found is not None:
        return found
    pages = turn.books.parts().pages.values()
    return next((page.orders[order_id] for page in pages if order_id in page.orders), OrderFacts())
