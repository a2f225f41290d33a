"""Admit an event or reject it, by what can be judged from the event alone.

What needs the log (duplicates, conflicts, erased members) is decided in the live transaction; what needs the member's
history (a refund larger than its order) is refused in the reward log, never here.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from schemas.events import (
    ID_CHARACTERS_MAX,
    INT64_MAX,
    Activity,
    Decision,
    Erasure,
    Event,
    Profile,
    Purchase,
    Redemption,
    Refund,
    Share,
    Signup,
    Touch,
)
from schemas.rejection import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def check(event: Event, *, currency: str, latest_ms: int | None) -> None:
    """Raise `Rejected` unless `event` can be taken into the source log.

    Args:
        event: as decoded; its types and ranges are right already.
        currency: the programme's ISO 4217 code.
        latest_ms: the latest `occurred_at` that is not from the future, in ms; None where there is no wall clock.
    """
    if latest_ms is not None and event.occurred_at > latest_ms:
        ahead_s = (event.occurred_at - latest_ms) // 1000
        raise Rejected(
            Reason.FROM_THE_FUTURE,
            f"occurred_at is {ahead_s} s beyond what PostgreSQL's clock allows; correct the producer's clock, or "
            "PostgreSQL's if that is wrong, then release it",
        )
    _CHECKS[type(event)](event, currency)


def _check_purchase(event: Event, currency: str) -> None:
    assert isinstance(event, Purchase)  # noqa: S101  _CHECKS pairs the type with this function
    if not (
        event.event_id.isprintable()
        and event.member_id.isprintable()
        and event.order_id.isprintable()
        and event.source.isprintable()
    ):
        _check_ids(event, "member_id", "order_id")
    if event.currency != currency:
        raise Rejected(
            Reason.WRONG_CURRENCY, f'currency is "{event.currency}" and the programme counts in "{currency}"'
        )
    if event.items is not None:
        _check_items(event)
    if event.tenders is not None:
        for tender in event.tenders:
            _check_text("tenders.kind", tender.kind)


def _check_items(event: Purchase) -> None:
    total = 0
    for item in event.items or ():
        total += item.amount
        if not (item.line_id.isprintable() and item.sku.isprintable()):
            _check_text("items.line_id", item.line_id)
            _check_text("items.sku", item.sku)
    if total != event.amount:
        raise Rejected(Reason.ITEMS_MISMATCH, f"the lines add up to {total} and amount is {event.amount} (minor units)")


def _check_refund(event: Event, _currency: str) -> None:
    assert isinstance(event, Refund)  # noqa: S101  as above
    _check_ids(event, "member_id", "order_id", "refund_id")
    if event.items is not None and event.amount is not None:
        raise Rejected(Reason.WRONG_TYPE, "a refund names items or an amount, not both; send two refunds")
    for item in event.items or ():
        _check_text("items.line_id", item.line_id)
    if sum(item.amount for item in event.items or ()) > INT64_MAX:
        raise Rejected(Reason.OUT_OF_RANGE, "the returned lines add up to more than a signed 64-bit integer holds")


def _check_redemption(event: Event, currency: str) -> None:
    assert isinstance(event, Redemption)  # noqa: S101  as above
    _check_ids(event, "member_id", "redemption_id")
    if event.action not in {"reserve", "capture", "void", "spend", "restore"}:
        raise Rejected(
            Reason.OUT_OF_RANGE, f'action is "{event.action}"; it is reserve, capture, void, spend or restore'
        )
    if event.unit is not None and event.unit not in {"points", currency}:
        raise Rejected(Reason.WRONG_CURRENCY, f'unit is "{event.unit}"; it is points or {currency}')
    _check_name("reward", event.reward)
    _check_name("order_id", event.order_id)


def _check_decision(event: Event, _currency: str) -> None:
    assert isinstance(event, Decision)  # noqa: S101  as above
    _check_ids(event, "member_id")
    _check_name("unit", event.unit)
    _check_name("tier", event.tier)


def _checker(*names: str) -> Callable[[Event, str], None]:
    def check_ids(event: Event, _currency: str) -> None:
        _check_ids(event, *names)

    return check_ids


def _check_ids(event: Event, *names: str) -> None:
    for name in ("event_id", "source", *names):
        _check_text(name, getattr(event, name))


def _check_name(name: str, value: str | None) -> None:
    """Refuse what may be left out but, where it is said, comes into the reward log as an id does."""
    if value is None:
        return
    if not 0 < len(value) <= ID_CHARACTERS_MAX:
        raise Rejected(Reason.OUT_OF_RANGE, f"{name} has {len(value)} characters; 1 to {ID_CHARACTERS_MAX} are allowed")
    _check_text(name, value)


def _check_text(name: str, value: str) -> None:
    """Refuse control characters and lone surrogates, which no log, file or terminal can be trusted to keep."""
    if value.isprintable():
        return
    for character in _unprintable(value):
        if unicodedata.category(character) in {"Cc", "Cs"}:
            raise Rejected(Reason.OUT_OF_RANGE, f"{name} holds the control character U+{ord(character):04X}; remove it")


def _unprintable(value: str) -> Iterator[str]:
    return (character for character in value if not character.isprintable())


_CHECKS: dict[type[Event], Callable[[Event, str], None]] = {
    Purchase: _check_purchase,
    Refund: _check_refund,
    Redemption: _check_redemption,
    Share: _checker("member_id", "object", "channel"),
    Activity: _checker("member_id", "kind"),
    Touch: _checker("referral_code", "visitor"),
    Decision: _check_decision,
    Signup: _checker("member_id"),
    Profile: _checker("member_id"),
    Erasure: _checker("member_id"),
}
