"""Write a rule in words: when it gives, and what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.explain.conditions import described
from engine.explain.values import decimal, duration, listed, percent
from engine.programme.model import FixedAmount, MultipliedAmount

if TYPE_CHECKING:
    from engine.explain.values import Wording
    from engine.programme.model import Give, RatedAmount, Rule


def condition_words(rule: Rule, wording: Wording) -> str:
    """Return the condition under which a rule gives."""
    return described(rule.when, wording)


def give_words(give: Give, wording: Wording) -> str:
    """Return what a rule gives, how long it is on hold, and how long it lasts."""
    words = _amount(give, wording)
    if give.hold is not None:
        words += f", on hold for {duration(give.hold)}"
    lasts = give.lasts or give.validity
    return words if lasts is None else f"{words}, valid for {duration(lasts)}"


def _amount(give: Give, wording: Wording) -> str:
    amount = give.amount
    if isinstance(amount, FixedAmount):
        return wording.reward(give.unit, amount.amount, give.item)
    if isinstance(amount, MultipliedAmount):
        return _multiplied(amount, wording)
    return _rated(give, amount, wording)


def _rated(give: Give, amount: RatedAmount, wording: Wording) -> str:
    """Return a rate: 5% of purchase.amount, or 1 point for each 1.00 of purchase.amount, and its caps."""
    basis = amount.basis
    if give.unit == wording.currency:
        words = f"{percent(amount.numerator, amount.denominator)} of {basis.path}"
    else:
        each = wording.number(basis.kind, amount.denominator)
        words = f"{wording.reward(give.unit, amount.numerator, give.item)} for each {each} of {basis.path}"
    if amount.most is not None:
        words += f", at most {wording.reward(give.unit, amount.most, give.item)}"
    return words if amount.share is None else f"{words}, at most {percent(*amount.share)} of it"


def _multiplied(amount: MultipliedAmount, wording: Wording) -> str:
    """Return a factor of the points that an earlier phase gave, or a factor for each value of a field."""
    points = f"the points of phase {amount.phase}"
    if amount.key is None:
        return f"{_factor(amount.extra or (0, 1))} times {points}"
    kind = amount.key.kind
    each = listed(f"{_factor(extra)} for {wording.value(kind, value)}" for value, extra in amount.extras)
    return f"{points}, multiplied by {amount.key.path}: {each}"


def _factor(extra: tuple[int, int]) -> str:
    return decimal(extra[0] + extra[1], extra[1])
