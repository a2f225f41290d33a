"""Admit an event or reject it, by the event alone.

The live transaction decides what needs the log: duplicates, conflicts, erased members. The ledger refuses, in the
reward log, what needs the member's history, such as a refund larger than its order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.bounds import IS_PLAIN, refuse_beyond
from schemas.events import INT64_MAX, Event, Purchase, Redemption, Refund
from schemas.rejection import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable


def check(event: Event, *, currency: str, latest_ms: int | None) -> None:
    """Raise `Rejected` unless `event` can be taken into the source log.

    Args:
        event: the decoded event; its types are right already.
        currency: the programme's ISO 4217 code.
        latest_ms: the latest `occurred_at` that is not from the future, in ms; None where there is no wall clock.
    """
    # the time
    if latest_ms is not None and event.occurred_at > latest_ms:
        ahead_s = (event.occurred_at - latest_ms) // 1000
        raise Rejected(
            Reason.FROM_THE_FUTURE,
            f"occurred_at is {ahead_s} s beyond what PostgreSQL's clock allows; correct the producer's clock, or "
            "PostgreSQL's if that is wrong, then release it",
        )

    # every field within its bounds, then what only this type must hold
    kind = type(event)
    if not IS_PLAIN[kind](event):
        refuse_beyond(event)
    check_of_type = _CHECKS.get(kind)
    if check_of_type is not None:
        check_of_type(event, currency)


def _check_purchase(event: Event, currency: str) -> None:
    assert isinstance(event, Purchase)  # _CHECKS pairs the type with this function
    if event.currency != currency:
        raise Rejected(
            Reason.WRONG_CURRENCY, f'currency is "{event.currency}" and the programme counts in "{currency}"'
        )
    if event.items:
        total = sum([item.amount for item in event.items])
        if total != event.amount:
            raise Rejected(
                Reason.ITEMS_MISMATCH, f"the lines add up to {total} and amount is {event.amount} (minor units)"
            )


def _check_refund(event: Event, _currency: str) -> None:
    assert isinstance(event, Refund)
    if event.items and event.amount is not None:
        raise Rejected(Reason.WRONG_TYPE, "a refund names items or an amount, not both; send two refunds")
    if sum(item.amount for item in event.items or ()) > INT64_MAX:
        raise Rejected(Reason.OUT_OF_RANGE, "the returned lines add up to more than a signed 64-bit integer holds")


def _check_redemption(event: Event, currency: str) -> None:
    assert isinstance(event, Redemption)
    if event.action not in {"reserve", "capture", "void", "spend", "restore"}:
        raise Rejected(
            Reason.OUT_OF_RANGE, f'action is "{event.action}"; it is reserve, capture, void, spend or restore'
        )
    if event.unit is not None and event.unit not in {"points", currency}:
        raise Rejected(Reason.WRONG_CURRENCY, f'unit is "{event.unit}"; it is points or {currency}')


_CHECKS: dict[type[Event], Callable[[Event, str], None]] = {
    Purchase: _check_purchase,
    Refund: _check_refund,
    Redemption: _check_redemption,
}
