"""Explain why the ledger refused something, with the numbers that decided it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.explain.values import Wording, duration, percent, quoted
from engine.ledger.forget import refunds_close_ms
from engine.ledger.redemptions import steps_of
from engine.ledger.refunds.rest import total_left
from engine.programme.interpret.facts import millionths
from engine.programme.terms import Negative, RewardKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.member.pages import Refunded
    from engine.programme.model import Programme
    from engine.programme.rules.watch import Priced
    from engine.programme.terms import CatalogueReward
    from schemas.events import Redemption, Refund
    from schemas.rewards import RewardEvent


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold what an event asked the ledger for: a redemption, a refund, or neither."""

    wording: Wording
    version: int
    programme: Programme

    redemption: Redemption | None = None

    status: str | None = None
    """The status recorded under the redemption's id before; None: no record. The next two are of the same record."""

    reserved: int = 0
    captured: int = 0
    priced: Priced | None = None

    refund: Refund | None = None

    order: Refunded | None = None
    """The refund's order as it was before, None where no such order has come."""

    terms: Programme | None = None
    """The programme that judged the order."""

    def amount(self, amount: int) -> str:
        """Write an amount in the unit that a redemption takes."""
        unit = self.priced.unit if self.priced else (self.redemption and self.redemption.unit) or "points"
        return self.wording.reward(unit, amount, None)


def reason_of(reward: RewardEvent, asked: Asked) -> str:
    """Return why a reward event refuses, in words."""
    reason = reward.posting.reason or ""
    if asked.refund is not None and reason in _REFUNDS:
        return _REFUNDS[reason](asked.refund, asked)
    if asked.redemption is not None and reason in _REDEMPTIONS:
        return _REDEMPTIONS[reason](asked.redemption, asked)
    return reason_of_itself(reason)


def reason_of_itself(reason: str) -> str:
    """Return why something was refused, as far as the reason alone says it."""
    return _BY_THEMSELVES.get(reason, reason)


def returned_words(event: Refund, wording: Wording) -> str:
    """Return what a refund says that it gives back."""
    if event.items is not None:
        lines = ", ".join(
            f"line {each.line_id}" + (f" ({each.quantity} of it)" if each.quantity is not None else "")
            + f" for {wording.money(each.amount)}"
            for each in event.items
        )  # fmt: skip
        return lines or "no line"
    return "all that is left" if event.amount is None else wording.money(event.amount)


# Refunds


def _window_closed(event: Refund, asked: Asked) -> str:
    """Say when the order's refunds closed."""
    order, terms = asked.order, asked.terms
    assert order is not None and terms is not None  # noqa: PT018  only an order that is known has a window
    closes_ms, wording = refunds_close_ms(terms, order.purchase.occurred_at), asked.wording
    window = duration(terms.terms.refunds.window)
    bought = wording.instant(order.purchase.occurred_at)

    # too late by its own time, or by the member's clock
    if event.occurred_at > closes_ms:
        return (
            f"the order is of {bought} and its refunds are taken for {window}, until {wording.instant(closes_ms)}; "
            f"this one is of {wording.instant(event.occurred_at)}"
        )
    return f"the order is of {bought}, and what it earned by is kept for {window} and forgotten by now"


def _exceeds(event: Refund, asked: Asked) -> str:
    """Say which amount or line is less than its returns would be."""
    order, wording = asked.order, asked.wording
    assert order is not None
    if event.items is None:
        left = total_left(order) - order.amount
        return f"{wording.money(event.amount or 0)} would be returned and {wording.money(left)} is left of the order"

    # the first line that has less left
    bought = {item.line_id: item for item in order.purchase.items or ()}
    for item in event.items:
        line, before = bought.get(item.line_id), order.lines.get(item.line_id)
        if line is None:
            return f"the order has no line {quoted(item.line_id)}"
        left = line.amount - (0 if before is None else before.amount)
        if item.amount > left:
            return (
                f"line {item.line_id} has {wording.money(left)} left and {wording.money(item.amount)} would be returned"
            )
        quantity = millionths(line.quantity) - (0 if before is None else before.quantity)
        if item.quantity is not None and millionths(item.quantity) > quantity:
            return f"line {item.line_id} has fewer left than the {item.quantity} that would be returned"

    return f"the lines and the amounts that were refunded before leave less than {returned_words(event, wording)}"


def _forgiven(_event: Refund, asked: Asked) -> str:
    negative = (asked.terms or asked.programme).terms.refunds.negative
    if negative is Negative.ONLY_PENDING:
        return "refunds take only what is still on hold (refunds.negative: only_pending)"
    return "no more is available, and refunds leave no debt (refunds.negative: within_balance)"


_REFUNDS: dict[str, Callable[[Refund, Asked], str]] = {
    "refund_unmatched": lambda event, _: (
        f"order {event.order_id} has not come; the refund waits, and is applied right after it"
    ),
    "refund_exceeds": _exceeds,
    "refund_window_closed": _window_closed,
    "already_refunded": lambda event, _: f"refund {quoted(event.refund_id)} was taken before, with the same content",
    "id_conflict": lambda event, _: f"refund {quoted(event.refund_id)} was taken before, with other content",
    "nothing_left": lambda event, _: f"all of order {event.order_id} was refunded before",
    "forgiven": _forgiven,
}


# Redemptions


def _available(asked: Asked) -> str:
    assert asked.priced is not None  # who asks has priced it
    available, debt = asked.priced.available, asked.priced.debt
    if debt:
        return f"{asked.amount(available + debt)} active, less {asked.amount(debt)} owed"
    return f"{asked.amount(available)} available"


def _insufficient(event: Redemption, asked: Asked) -> str:
    priced = asked.priced
    assert priced is not None
    reward = priced.reward
    if reward is None:
        return f"{asked.amount(event.amount or 0)} asked for, {_available(asked)}"
    if reward.kind is not RewardKind.MONEY:
        return f"it costs {asked.amount(reward.points)}, {_available(asked)}"
    return f"at least {asked.amount(max(reward.least, reward.points))} are needed, {_available(asked)}"


def _below_minimum(event: Redemption, asked: Asked) -> str:
    if asked.priced is None:
        return f"{asked.amount(asked.reserved)} are the price, and {asked.amount(event.amount or 0)} would be captured"
    reward = asked.priced.reward
    assert reward is not None  # only the catalogue has a minimum
    if reward.order_least_minor and (event.order_amount or 0) < reward.order_least_minor:
        order = asked.wording.money(event.order_amount or 0)
        return f"the order is {order} and it takes one of {asked.wording.money(reward.order_least_minor)} or more"
    least = asked.amount(max(reward.least, reward.points))
    return f"{bounds_words(event, reward, asked)}, and at least {least} are needed"


def bounds_words(event: Redemption, reward: CatalogueReward, asked: Asked) -> str:
    """Return how many points each bound of a `money` reward lets through, in whole steps."""
    assert asked.priced is not None
    steps, bounds = steps_of(event, reward, asked.priced.available), []
    if event.amount is not None:
        bounds.append(f"{asked.amount(steps.asked * reward.points)} as asked")
    bounds.append(f"{asked.amount(steps.available * reward.points)} as available")
    if steps.share is not None:
        share = f"{percent(*reward.share)} of {asked.wording.money(event.order_amount or 0)}"
        bounds.append(f"{asked.amount(steps.share * reward.points)} as {share}")

    step = f"{asked.amount(reward.points)} for {asked.wording.money(reward.money_minor)}"
    return f"in steps of {step}: at most {', '.join(bounds)}"


def _out_of_stock(_event: Redemption, asked: Asked) -> str:
    reward = None if asked.priced is None else asked.priced.reward
    return "all of its stock was taken" if reward is None else f"all {reward.stock} of its stock were taken"


def _already(event: Redemption, asked: Asked) -> str:
    return f"redemption {quoted(event.redemption_id)} is {asked.status} already"


_REDEMPTIONS: dict[str, Callable[[Redemption, Asked], str]] = {
    "insufficient": _insufficient,
    "below_minimum": _below_minimum,
    "out_of_stock": _out_of_stock,
    "missing_amount": lambda _event, _asked: "neither a reward nor an amount above 0 is named",
    "unknown_reward": lambda event, asked: (
        f"the catalogue of version {asked.version} has no reward {quoted(event.reward or '')}"
    ),
    "unknown_unit": lambda event, _: (
        f"{quoted(event.unit or 'points')} cannot pay for it: rewards of the catalogue cost points, and else points "
        "or the programme's currency are paid out"
    ),
    "unknown_redemption": lambda event, _: f"no redemption {quoted(event.redemption_id)} was reserved",
    "id_conflict": lambda event, _: f"redemption {quoted(event.redemption_id)} came before with other content",
    "exceeds_reserved": lambda event, asked: (
        f"{asked.amount(event.amount or 0)} would be captured and {asked.amount(asked.reserved)} are reserved"
    ),
    "exceeds_captured": lambda event, asked: (
        f"{asked.amount(event.amount or 0)} would be restored and {asked.amount(asked.captured)} are captured"
    ),
    "not_captured": lambda event, _: f"redemption {quoted(event.redemption_id)} is only reserved: void it instead",
    "already_reserved": _already,
    "already_captured": _already,
    "already_voided": _already,
    "already_restored": _already,
    "already_erased": _already,
}


_BY_THEMSELVES = {
    "limit_max": "a limit of the rule had less left",
    "limit_times": "the rule had given as often as it may",
    "limit_forgotten": "what a limit had let through in its period is no longer known",
    "out_of_range": "it is more than can be counted, or owed",
    "cohort_control": "the member is in the control arm",
    "contest_closed": "the period of the contest was closed before; the rules gave all the same",
    "missing_amount": "no amount above 0 is named",
    "not_first": "an opening balance must be the member's first event",
    "unknown_tier": "the programme has no such level",
    "unknown_unit": "it is neither points, status nor the programme's currency",
    "expired": "it would have expired already",
    "not_referred": "nobody referred the member",
    "not_flagged": "the referral is not flagged: nothing of it is held back",
    "already_voided": "the referral was voided before",
    "forgiven": "no more is available, and the programme leaves no debt for it",
}
"""The words for reasons that need nothing more than the reward event says."""

REASONS = frozenset((*_REFUNDS, *_REDEMPTIONS, *_BY_THEMSELVES))
"""Every reason to refuse that has words."""
