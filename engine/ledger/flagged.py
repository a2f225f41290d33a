"""Hold back the rewards of a flagged referral until an operator releases or voids it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import structs

from engine.ledger.movements import Accounts, Source, is_grant, posting_of
from engine.programme.check.rules import tests_of
from engine.programme.conditions import MemberPart, MemberValue
from schemas.events import OCCURRED_AT_MS_END

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.ledger.turn import Turn
    from engine.programme.model import Programme
    from schemas.rewards import RewardEvent

UNTIL_RELEASED_MS = OCCURRED_AT_MS_END
"""Stands for the end of a hold that only an operator ends: no event is ever that late."""

_PENDING = Accounts("issued", "pending")


def held_back(given: Sequence[RewardEvent], rules: frozenset[str] | None = None) -> list[RewardEvent]:
    """Return the reward events with the grants of some rules (None: of all rules) pending until they are released."""
    return [
        _pending(reward) if is_grant(reward.posting) and (rules is None or reward.posting.rule_id in rules) else reward
        for reward in given
    ]


def _pending(reward: RewardEvent) -> RewardEvent:
    posting = reward.posting
    if posting.debit is not None:
        source = Source(posting.rule_id, posting.rule_version, posting.campaign)
        posting = posting_of(posting.type, posting.unit, _PENDING, source, item=posting.item, reason=posting.reason)
    return structs.replace(reward, posting=posting, available_at_ms=UNTIL_RELEASED_MS, expires_at_ms=None)


def forget_possessions(turn: Turn, given: Iterable[RewardEvent]) -> None:
    """Forget the badges and benefits among held-back grants: judging has noted them as the member's already.

    An item stays noted where the member has another active lot of it.
    """
    memory = turn.state.memory
    for reward in given:
        item = reward.posting.item
        if memory is None or item is None or reward.available_at_ms != UNTIL_RELEASED_MS:
            continue
        if item in memory.possessed and turn.possession(reward.posting.unit, item).until_ms() is None:
            del memory.possessed[item]


@lru_cache(maxsize=64)
def rules_on_referrer(programme: Programme) -> frozenset[str]:
    """Return the ids of the rules that test who referred the member: they give the referee's side of a referral."""
    return frozenset(
        rule.id
        for rule in programme.rules
        if any(
            isinstance(test.of.source, MemberValue) and test.of.source.part is MemberPart.REFERRER
            for test in tests_of(rule.when)
        )
    )
