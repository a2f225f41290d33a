"""Compute awards and write postings, completions and refusals, alike for compiled and interpreted programmes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.model import FixedAmount, MultipliedAmount, RefusalReason, Rounding
from schemas.canonical import completion_key, refusal_key
from schemas.events import INT64_MAX
from schemas.rewards import Posting, RewardEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Amount, Give, Phase, Rule
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import MemberEvent

NOTHING: Sequence[RewardEvent] = ()
"""The rewards of every event that gives nothing."""


def grant_posting(rule: Rule, give: Give, version: int) -> Posting:
    """Return what all grants of one give have in common."""
    return Posting(
        type=give.type,
        unit=give.unit,
        debit="issued" if give.is_account else None,
        credit=("active" if give.hold is None else "pending") if give.is_account else None,
        rule_id=rule.id,
        rule_version=version,
        campaign=rule.campaign,
        item=give.item,
    )


def refusal_posting(rule: Rule, give: Give, version: int, reason: RefusalReason) -> Posting:
    """Return what all refusals of one give for one reason have in common."""
    return Posting(
        type="reward.refused",
        unit=give.unit,
        rule_id=rule.id,
        rule_version=version,
        campaign=rule.campaign,
        item=give.item,
        reason=reason.value,
    )


def refusal(posting: Posting, amount: int, event: MemberEvent, occurrence: Occurrence, index: int) -> RewardEvent:
    """Return the record that `amount` of the give at `index` was refused; the amount is cut to 64 bits."""
    key = refusal_key(occurrence.identity, posting.rule_id or "", event.member_id, index, posting.reason or "")
    return RewardEvent(posting, min(amount, INT64_MAX), key, event.occurred_at, order_of(event))


def completion_posting(rule: Rule, version: int) -> Posting:
    """Return what all completions of a rule's challenge have in common."""
    return Posting(
        type="challenge.completed", unit="challenge", rule_id=rule.id, rule_version=version, campaign=rule.campaign
    )


def completion(posting: Posting, event: MemberEvent, occurrence: Occurrence) -> RewardEvent:
    """Return the record that an event completed a challenge."""
    key = completion_key(occurrence.identity, posting.rule_id or "", event.member_id)
    return RewardEvent(posting, 1, key, event.occurred_at, order_of(event))


def order_of(event: MemberEvent) -> str | None:
    """Return the order of an event, None where it has none."""
    order_id: str | None = getattr(event, "order_id", None)
    return order_id


def award_of(facts: Facts, amount: Amount, given: dict[Phase, int]) -> int:
    """Return how much an amount awards before limits, 0 where its basis is missing or negative.

    Args:
        facts: the facts of the event, or of the remaining order after a refund.
        amount: the amount of the rule's give.
        given: the points that the event gave in each phase so far, after limits.
    """
    if isinstance(amount, FixedAmount):
        return amount.amount
    if isinstance(amount, MultipliedAmount):
        return multiplied(given[amount.phase], facts.extra_of(amount), amount.rounding)

    basis = facts.value_of(amount.basis)
    if basis is None or basis < 0:
        return 0

    # the rate, then its caps
    award = rounded(basis * amount.numerator, amount.denominator, amount.rounding)
    if amount.most is not None:
        award = min(award, amount.most)
    if amount.share is not None:
        award = min(award, rounded(basis * amount.share[0], amount.share[1], Rounding.FLOOR))
    return award


def multiplied(base: int, extra: tuple[int, int] | None, rounding: Rounding) -> int:
    """Return what a multiplier adds to `base`; 0 where its key's value has no factor."""
    return 0 if extra is None else rounded(base * extra[0], extra[1], rounding)


def rounded(numerator: int, denominator: int, rounding: Rounding) -> int:
    """Round a rational number ≥ 0 to an integer, once."""
    if rounding is Rounding.CEIL:
        return -(-numerator // denominator)
    if rounding is Rounding.HALF_UP:
        return (2 * numerator + denominator) // (2 * denominator)
    return numerator // denominator
