"""Warn of rules that their author probably does not mean: they give without bound, too often, never, or nothing."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from engine.programme.check.possible import tests_in
from engine.programme.conditions import MILLION, Comparison, History, Kind
from engine.programme.file.problems import Code, shown
from engine.programme.model import FixedAmount, MultipliedAmount, RatedAmount, Rounding, TimesLimit
from engine.programme.occasions import ReferralEvent
from schemas.events import Signup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.programme.conditions import FieldTest
    from engine.programme.file.problems import Problems
    from engine.programme.model import Give, Rule

SMALL_BASIS = 5
"""Most events add nothing if their basis must reach this first, in hundreds of minor units, or in pieces."""
_UNITS = {Kind.MONEY: 100, Kind.DECIMAL: MILLION}


def warn_unbounded(rule: Rule, problems: Problems) -> None:
    """Record that nothing bounds what a rule gives: cash, points by a rate, or anything with each signup of a member.

    A limit on how often it gives is a bound, and so is a `max` of the same unit.
    """
    if any(isinstance(limit, TimesLimit) for limit in rule.limits):
        return
    capped = [limit.scope.unit for limit in rule.limits]
    gives = [give for give in rule.gives if give.unit not in capped]
    if not gives:
        return

    # one warning, of the worst
    cash = next((give for give in gives if give.type == "cash.granted"), None)
    rated = next((give for give in gives if isinstance(give.amount, RatedAmount) and give.amount.most is None), None)
    if rule.on is Signup and not _asks_for_the_past(rule):
        message = (
            f'rule "{shown(rule.id)}" gives with every signup of a member, and more may come, such as one that claims '
            "a code; say how often: limits: [{times: 1, per: member}]"
        )
    elif cash is not None:
        message = f'rule "{shown(rule.id)}" gives cash and has no limit on it: nothing bounds what it costs'
    elif rated is not None:
        what = f'rule "{shown(rule.id)}" gives {rated.unit} by a rate and has no limit on {rated.unit}'
        message = f"{what}: one large order gives without bound"
    else:
        return

    problems.warn(rule.place, Code.UNBOUNDED, message)


def _asks_for_the_past(rule: Rule) -> bool:
    """Whether a rule itself distinguishes a first signup from others: by the member's past, or by a challenge."""
    return rule.challenge is not None or any(map(_is_of_the_past, tests_in(rule.when)))


def _is_of_the_past(test: FieldTest) -> bool:
    is_first = test.of.path == "member.age" and test.comparison is Comparison.EXISTS
    return is_first or isinstance(test.of.source, History)


def warn_without_referral(rules: Iterable[Rule], problems: Problems) -> None:
    """Record rules on referrals in a programme that does not attribute anybody."""
    for rule in rules:
        if rule.on is ReferralEvent:
            message = (
                f'rule "{shown(rule.id)}" is on referral, and without a section "referral" nobody is attributed: it '
                'gives nothing; add one, such as "referral: {claim_window: 7d}"'
            )
            problems.warn(rule.place, Code.NEVER_MATCHES, message)


def warn_of_rounding(give: Give, bases: Iterable[Rule], problems: Problems) -> None:
    """Record a multiplier that adds nothing to most events, as it multiplies small whole numbers and rounds.

    Args:
        give: a multiplier.
        bases: the rules whose points it multiplies.
        problems: gets the warning.
    """
    amount = give.amount
    assert isinstance(amount, MultipliedAmount)  # the caller has looked
    factors = [amount.extra, *(extra for _, extra in amount.extras)]
    extras = [extra for extra in factors if extra is not None and extra[0]]
    if amount.rounding is Rounding.CEIL or not extras:
        return

    # how many points the smallest factor needs to add 1
    smallest = min(Fraction(*extra) for extra in extras)
    needed = -(-1 // smallest) if amount.rounding is Rounding.FLOOR else -(-1 // (2 * smallest))

    # whether most events bring that many
    gives = [each.amount for rule in bases for each in rule.gives if each.unit == "points"]
    fixed = sum(each.amount for each in gives if isinstance(each, FixedAmount))
    rates = [each for each in gives if isinstance(each, RatedAmount)]
    if fixed >= needed or any(isinstance(each, MultipliedAmount) for each in gives):
        return
    if any(_basis_for(needed - fixed, rate) < SMALL_BASIS for rate in rates):
        return

    message = (
        f"this adds nothing to fewer than {needed} points, as what it adds is rounded "
        f'{"down" if amount.rounding is Rounding.FLOOR else "to the nearest"} for each event: write "round: ceil", or '
        "count in smaller points, ten times the rate and ten times the prices"
    )
    problems.warn(give.place, Code.NEVER_GIVES, message)


def _basis_for(points: int, rate: RatedAmount) -> Fraction:
    """Return the basis that brings a number of points: of money in hundreds of minor units, else in pieces."""
    return Fraction(points * rate.denominator, rate.numerator * _UNITS.get(rate.basis.kind, 1))
