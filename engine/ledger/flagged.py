"""Hold what a flagged referral earns until an operator releases or voids it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import structs

from engine.ledger.movements import posting_of
from engine.member.lots import ITEM_UNITS
from engine.programme.check.rules import tests_of
from engine.programme.conditions import MemberPart, MemberValue
from schemas.events import OCCURRED_AT_MS_END

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.ledger.movements import Movements
    from engine.member.state import MemberState
    from engine.programme.model import Programme
    from schemas.rewards import RewardEvent

UNTIL_RELEASED_MS = OCCURRED_AT_MS_END
"""Stands for the end of a hold that an operator ends: no event is ever as late."""


def is_grant(reward: RewardEvent) -> bool:
    """Whether a reward event hands something out, in points, status, cash or pieces."""
    posting = reward.posting
    return posting.debit == "issued" or (posting.unit in ITEM_UNITS and posting.type != "reward.refused")


def held_back(given: Sequence[RewardEvent], rules: frozenset[str] | None = None) -> list[RewardEvent]:
    """Return reward events with each grant pending until it is released; of some rules, or of all (None)."""
    return [
        _pending(reward) if is_grant(reward) and (rules is None or reward.posting.rule_id in rules) else reward
        for reward in given
    ]


def _pending(reward: RewardEvent) -> RewardEvent:
    posting = reward.posting
    if posting.debit is not None:
        rule = (posting.rule_id, posting.rule_version, posting.campaign)
        posting = posting_of(posting.type, posting.unit, ("issued", "pending"), rule, posting.item, posting.reason)
    return structs.replace(reward, posting=posting, available_at_ms=UNTIL_RELEASED_MS, expires_at_ms=None)


def forget_held(state: MemberState, movements: Movements, given: Iterable[RewardEvent]) -> None:
    """Let a badge or benefit that is held back not count as held, unless another of it is."""
    memory = state.memory
    for reward in given:
        item = reward.posting.item
        if memory is None or item is None or reward.available_at_ms != UNTIL_RELEASED_MS:
            continue
        if item in memory.possessed and movements.held(reward.posting.unit, item).until_ms() is None:
            del memory.possessed[item]


@lru_cache(maxsize=64)
def rules_on_referrer(programme: Programme) -> frozenset[str]:
    """Return the rules that test who referred the member: what they give is the referee's side of a referral."""
    return frozenset(
        rule.id
        for rule in programme.rules
        if any(
            isinstance(test.of.source, MemberValue) and test.of.source.part is MemberPart.REFERRER
            for test in tests_of(rule.when)
        )
    )
