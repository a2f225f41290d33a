"""Apply a refund: keep only the rewards that the awarding version would give for the goods that remain."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from msgspec import structs

from engine.ledger import contests
from engine.ledger.forget import is_order_known, refunds_close_ms, remembered
from engine.ledger.redemptions import give_back
from engine.ledger.refunds.claims import Cause
from engine.ledger.refunds.judged import kept_facts, order_of_referee, own_order
from engine.ledger.refunds.rest import after_refund, rest_of
from engine.ledger.refunds.undoing import Undoing
from engine.member.pages import Refunded
from engine.programme.interpret.facts import metric_value
from engine.programme.rules.returned import take_from_metric

if TYPE_CHECKING:
    from engine.ledger.refunds.judged import Judged
    from engine.ledger.turn import Turn
    from engine.programme.conditions import Metric
    from engine.programme.interpret.facts import Facts
    from schemas.events import Purchase, Refund


def refund(turn: Turn, event: Refund) -> None:
    """Apply a refund, or refuse it; a refund that comes before its purchase waits for it."""
    parts = turn.books.parts()
    order = parts.refunded.get(event.order_id)

    # the first refund of the order finds its purchase in the log
    if order is None:
        placed = turn.books.purchase(event.order_id)
        if placed is None:
            turn.watch.refund(event, None, None)
            parts.waiting.setdefault(event.order_id, []).append(event)
            turn.state.is_booked = turn.state.is_waiting = True
            _refuse(turn, event, "refund_unmatched")
            return
        order = Refunded(placed.purchase, placed.version)

    _apply(turn, order, event, Refunding)


def refund_of_referee(turn: Turn, event: Refund, purchase: Purchase) -> None:
    """Apply a referee's refund in the referrer's account, by the version that awarded the order, or refuse it.

    An order that has earned the referrer nothing and counts for none of their challenges leaves no trace in the log,
    unless the refund comes too late to know that.

    Args:
        turn: the turn of the referrer.
        event: the referee's refund, with the order's name in the referrer's ledger.
        purchase: the returned order, with the same name.
    """
    # what the order has earned and counted
    lots = [lot for lot in turn.of_order(purchase.order_id) if lot.rule_id is not None]
    earned = remembered(lots, turn.books.parts(), turn.state.clock_ms, turn.books.judge) if lots else []
    counted = kept_facts(turn, purchase.order_id).counted

    # the version that awarded it, or else counted it, or else is in force
    versions = [*(lot.version or 0 for lot in earned), *(each.version for each in counted), turn.judge.version]
    order = turn.books.parts().refunded.get(purchase.order_id) or Refunded(purchase, versions[0])
    if earned or counted or _is_closed(turn, order, event):
        _apply(turn, order, event, ReferralRefunding)


def _apply(turn: Turn, order: Refunded, event: Refund, refunding: type[Refunding]) -> None:
    """Apply a refund to an order, or refuse it and say why."""
    turn.watch.refund(event, order, turn.books.judge(order.version).programme)
    reason = _refusal(turn, order, event)
    after = None if reason is not None else after_refund(order, event)
    if after is None:
        _refuse(turn, event, reason or "refund_exceeds")
        return

    after.refunds[event.refund_id] = _digest(event)
    turn.state.is_booked = True
    turn.books.parts().refunded[after.purchase.order_id] = after
    refunding(turn, order, after, event.occurred_at).run()


def _refuse(turn: Turn, event: Refund, reason: str) -> None:
    """Record that a refund does not happen, with the amount that it asked for; 0 where it asked for the whole rest."""
    asked = event.amount or sum(item.amount for item in event.items or ())
    turn.refuse(reason, event.occurred_at, asked, turn.judge.programme.currency, order_id=event.order_id)


def apply_waiting(turn: Turn, order_id: str, bought_ms: int) -> None:
    """Apply the refunds that have waited for a purchase, right after it."""
    waiting = turn.books.parts().waiting
    for event in waiting.pop(order_id, ()):
        refund(turn, structs.replace(event, occurred_at=max(event.occurred_at, bought_ms)))
    turn.state.is_waiting = bool(waiting)


def _refusal(turn: Turn, order: Refunded, event: Refund) -> str | None:
    """Return why a refund of an order is refused, or None."""
    # this comes first: the live fold and a replay drop what is known of an order at different events
    if _is_closed(turn, order, event):
        return "refund_window_closed"
    digest = order.refunds.get(event.refund_id)
    if digest is not None:
        return "already_refunded" if digest == _digest(event) else "id_conflict"
    return "nothing_left" if order.refunds and rest_of(order) is None else None


def _is_closed(turn: Turn, order: Refunded, event: Refund) -> bool:
    """Whether a refund is too late: the refund window has closed, or the order is forgotten."""
    programme, bought_ms = turn.books.judge(order.version).programme, order.purchase.occurred_at
    if event.occurred_at > refunds_close_ms(programme, bought_ms):
        return True
    facts = kept_facts(turn, order.purchase.order_id)
    return not is_order_known(programme, facts, bought_ms, turn.state.clock_ms)


def _digest(event: Refund) -> bytes:
    items = [(item.line_id, item.quantity, item.amount) for item in event.items or ()]
    return blake2b(f"{event.amount}\0{items}".encode(), digest_size=8).digest()


class Refunding:
    """Apply one refund of an order: restore the points that paid for it, then claim what the rest no longer earns."""

    def __init__(self, turn: Turn, before: Refunded, after: Refunded, at_ms: int) -> None:
        self._turn = turn
        self._order = after
        self._at_ms = at_ms
        self._judged = self._judge(turn, after)
        self._left_before, self._left = self._judge(turn, before).left, self._judged.left

    @staticmethod
    def _judge(turn: Turn, order: Refunded) -> Judged:
        return own_order(turn, order)

    def run(self) -> None:
        """Restore payments, claim rewards back, lower challenges, contests and metrics, and settle the tier."""
        self._repay()
        self._turn.watch.rest(None if self._left is None else self._left.event)
        undoing = Undoing(self._turn, Cause(self._at_ms, "refund"))
        undoing.return_order(self._order.purchase.order_id, self._judged)
        self._take_from_contests()
        undoing.lose(self._take_from_metrics(), self._order.purchase.occurred_at)
        undoing.finish()

    def _take_from_contests(self) -> None:
        """Subtract the returned amount from the contests that rank by spend."""
        before, after = (0 if left is None else left.event.amount for left in (self._left_before, self._left))
        contests.take_back(self._turn, self._order.purchase.occurred_at, before - after)

    def _take_from_metrics(self) -> int:
        """Subtract the refund from all metrics, and return the drop of the metric that tiers count.

        A sum drops by the returned value, a count only when the whole order is gone.
        """
        tiers, drop = self._turn.terms.tiers, 0
        for metric in self._judged.programme.metrics:
            if metric.on == "purchase":
                by = self._counted(metric, self._left_before) - self._counted(metric, self._left)
                take_from_metric(self._turn.state, metric, by, self._order.purchase.occurred_at)
                if tiers is not None and tiers.metric is not None and tiers.metric.key == metric.key:
                    drop = by
        return drop

    def _counted(self, metric: Metric, left: Facts | None) -> int:
        """Return how much of the remaining order the metric counts; line shares round down."""
        if left is None or not self._judged.bought.holds(metric.where):
            return 0
        return int(metric_value(metric, left))

    def _repay(self) -> None:
        """Restore the points that paid for the order: money rewards in proportion, others when nothing is left."""
        order, bought = self._order, self._order.purchase.amount
        left = 0 if self._left is None else self._left.event.amount
        for redemption_id, redemption in sorted(self._turn.books.parts().redemptions.items()):
            if redemption.order_id != order.purchase.order_id or redemption.status != "captured":
                continue
            if redemption.reward is None:  # only the catalogue's rewards pay towards an order
                continue

            # how much of it is to be back by now, over all refunds of the order
            repaid = order.repaid.get(redemption_id, 0)
            total = repaid + sum(withdrawal.amount for withdrawal in redemption.withdrawals)
            back = total if self._left is None else 0
            if redemption.value_minor and self._left is not None and bought:
                back = total * (bought - left) // bought

            if back > repaid:
                give_back(self._turn, redemption, back - repaid, self._at_ms)
                order.repaid[redemption_id] = back


class ReferralRefunding(Refunding):
    """Apply the refund of a referee's order in the referrer's account: only rules on referrals have given anything."""

    @staticmethod
    def _judge(turn: Turn, order: Refunded) -> Judged:
        return order_of_referee(turn, order)

    def _take_from_metrics(self) -> int:
        """Subtract nothing: the referrer's metrics do not count a referee's order."""
        return 0

    def _take_from_contests(self) -> None:
        """Subtract nothing: the referee's own account has counted the order, and loses it."""
