"""Count events for challenges, and keep what each order counted: the part that both ways of judging share.

The count of a challenge is a list of integers among the member's counters, and where it slides a window. What can be
taken back, as orders can, is kept by name beside the orders' facts, with the round in which it counted. A completion
takes all that was counted with it and begins a new round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.member.pages import Completion, Contribution, OrderFacts
from engine.member.windows import LATE_MS, bounded
from engine.programme.localtime import DAY_MS
from engine.programme.occasions import ChallengeCompletion, ReferralEvent, TierChange
from engine.programme.rules.metrics import add_window, window_sum
from schemas.events import Purchase
from schemas.rewards import order_key, referee_of

if TYPE_CHECKING:
    from engine.member.state import MemberState
    from engine.programme.model import Programme, Rule
    from schemas.events import Event, MemberEvent

REACHED, STANDING, ROUND, UNTIL_MS, FINAL_MS = range(5)
"""What each integer of a count holds: the sum without a window, the completions that stand, the round under way, how
long what counts in it is kept, and after which instant the newest completion is final."""

_LONGEST_MONTH = 31
_OCCASION = "\0"
"""Begins the name of what no order brought: a change of tier, or a completion that another challenge counts."""


class Counting(NamedTuple):
    """Say how the challenge of a rule counts; `kept_ms` is 0 where nothing that it counts can be taken back."""

    rule_id: str
    version: int
    key: str
    goal: int
    repeats: bool
    kept_ms: int


def counting_of(rule: Rule, programme: Programme, version: int) -> Counting:
    """Return how the challenge of a rule of a version counts."""
    challenge = rule.challenge
    assert challenge is not None  # noqa: S101  the caller has asked
    kept_ms = kept_for(programme) if rule.on in (Purchase, ReferralEvent, ChallengeCompletion, TierChange) else 0
    return Counting(rule.id, version, challenge.key(rule.id), challenge.goal, challenge.repeats, kept_ms)


def count_of(state: MemberState, key: str) -> tuple[int, int]:
    """Return how far a challenge without a window stands, and how many completions of a challenge do."""
    found = None if state.memory is None else state.memory.counters.get(key)
    return (0, 0) if found is None else (found[REACHED], found[STANDING])


def kept_for(programme: Programme) -> int:
    """Return for how many ms at least what was judged can be taken back: the window of refunds, and late ones."""
    window = programme.terms.refunds.window
    return (window.months * _LONGEST_MONTH + window.days + 1) * DAY_MS + window.ms + LATE_MS


def has_challenge(programme: Programme, kind: type[Event]) -> bool:
    """Whether a rule on a type of event has a challenge."""
    return any(rule.on is kind and rule.challenge is not None for rule in programme.rules)


def occasion_name(identity: bytes) -> str:
    """Return the name under which what no order brought counts."""
    return f"{_OCCASION}{identity.hex()}"


def name_of(event: MemberEvent) -> str | None:
    """Return the name under which what an event counts can be taken back; None where it never is."""
    if isinstance(event, Purchase):
        return event.order_id
    if isinstance(event, ReferralEvent):
        if event.event == "purchase":
            return event.order_id
        return order_key(f"{_OCCASION}{event.source}{_OCCASION}{event.event_id}", event.referee_id)
    return f"{_OCCASION}{event.event_id}" if isinstance(event, (ChallengeCompletion, TierChange)) else None


def _occasion_facts(event: MemberEvent) -> tuple[str | None, ...]:
    """Return what is kept of an occasion that a challenge counts: with its name and time it can be had again."""
    if isinstance(event, TierChange):
        return (event.before, event.to, event.order_id)
    return (event.rule, event.order_id) if isinstance(event, ChallengeCompletion) else ()


def occasion_of(name: str, member_id: str, at_ms: int, facts: tuple[str, ...]) -> TierChange | ChallengeCompletion:
    """Return the occasion that has a name, from what was kept of it."""
    head: dict[str, Any] = {"event_id": name.removeprefix(_OCCASION), "member_id": member_id, "occurred_at": at_ms}
    *told, order_id = facts
    if len(told) == 1:
        return ChallengeCompletion(rule=told[0], order_id=order_id, **head)
    return TierChange(before=told[0], to=told[1], order_id=order_id, **head)


def is_occasion(name: str) -> bool:
    """Whether a name is that of an occasion that no order brought."""
    return name.startswith(_OCCASION) and referee_of(name) is None


def counts(
    state: MemberState, counting: Counting, by: int | None, since_ms: int | None, event: MemberEvent, identity: bytes
) -> bool:
    """Count an event for a challenge, and say whether this completes it; afterwards counting begins anew.

    Where a challenge is completed once only, counting goes on as long as that may still be undone.

    Args:
        state: the member's, changed in place.
        counting: how the challenge counts.
        by: what the event counts; nothing where it is missing or not above 0.
        since_ms: since when it counts (None: ever), itself outside.
        event: what counts.
        identity: the 32 bytes by which it is judged.
    """
    if by is None or by <= 0:
        return False
    by, at_ms, memory = bounded(by), event.occurred_at, state.remembering()
    count = memory.counters.get(counting.key)
    if count is None:
        count = memory.counters[counting.key] = [0, 0, 0, 0, 0]
    judged_ms = max(state.clock_ms, at_ms)
    is_done = count[STANDING] > 0 and not counting.repeats
    if is_done and (not counting.kept_ms or judged_ms > count[FINAL_MS]):
        count[REACHED] = 0
        memory.windows.pop(counting.key, None)
        return False
    if since_ms is None:
        reached = count[REACHED] = bounded(count[REACHED] + by)
    else:
        add_window(state, counting.key, by, since_ms, at_ms)
        reached = window_sum(state, counting.key, since_ms, at_ms)
    name = None
    if counting.kept_ms:
        name = _keep(state, counting, by, event, judged_ms)
        count[UNTIL_MS] = max(count[UNTIL_MS], judged_ms + counting.kept_ms)
    if is_done or reached < counting.goal:
        return False
    complete(state, counting, Completion(identity, name, counting.rule_id, counting.version, since_ms, at_ms, reached))
    return True


def _keep(state: MemberState, counting: Counting, by: int, event: MemberEvent, judged_ms: int) -> str | None:
    """Keep what an event counts, and return its name."""
    name = name_of(event)
    if name is not None:
        facts = state.orders.get(name)
        if facts is None:
            facts = state.orders[name] = OrderFacts(_occasion_facts(event))
        round_ = state.remembering().counters[counting.key][ROUND]
        facts.counted.append(Contribution(counting.rule_id, counting.version, event.occurred_at, by, round_))
        if not isinstance(event, Purchase):  # of these nothing else says how long they are known
            facts.until_ms = max(facts.until_ms, judged_ms + counting.kept_ms)
    return name


def complete(state: MemberState, counting: Counting, completion: Completion) -> None:
    """Begin a new round, and keep what the completion took with it as long as that can be taken back."""
    memory = state.remembering()
    count = memory.counters[counting.key]
    window = memory.windows.pop(counting.key, None)
    if counting.kept_ms:
        completion.round, completion.until_ms, completion.window = count[ROUND], count[UNTIL_MS], window
        state.completions.append(completion)
    memory.counters[counting.key] = [0, bounded(count[STANDING] + 1), count[ROUND] + 1, 0, count[UNTIL_MS]]
