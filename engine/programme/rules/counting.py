"""Count events for challenges, and keep how much each order counted, alike for compiled and interpreted programmes.

The count of a challenge is a list of five integers among the member's counters; a challenge with `within` has a window
besides. An order's contribution can be taken back, so it is kept with the order's facts, and with the round in which it
counted. A completion closes the round with all that was counted in it, and begins a new one.
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
"""The integers of a count: the sum where there is no window; how many completions have not been undone; the number of
the running round; until when what counts in it is kept; and after which instant the newest completion is final."""

_LONGEST_MONTH = 31
_OCCASION = "\0"
"""Begins the name of an occasion: a change of tier, or a completion that another challenge counts."""


class Counting(NamedTuple):
    """Say how the challenge of a rule counts."""

    rule_id: str
    version: int

    key: str
    """Names the count in the member's state."""

    goal: int

    repeats: bool
    """Whether it can be completed again."""

    kept_ms: int
    """How long what it counts can be taken back, 0 for never."""


def counting_of(rule: Rule, programme: Programme, version: int) -> Counting:
    """Return how the challenge of a rule of a version counts."""
    challenge = rule.challenge
    assert challenge is not None  # the caller has asked
    kept_ms = kept_for(programme) if rule.on in (Purchase, ReferralEvent, ChallengeCompletion, TierChange) else 0
    return Counting(
        rule_id=rule.id,
        version=version,
        key=challenge.key(rule.id),
        goal=challenge.goal,
        repeats=challenge.repeats,
        kept_ms=kept_ms,
    )


def count_of(state: MemberState, key: str) -> tuple[int, int]:
    """Return the sum of a challenge without a window, and how many of its completions have not been undone."""
    count = None if state.memory is None else state.memory.counters.get(key)
    return (0, 0) if count is None else (count[REACHED], count[STANDING])


def kept_for(programme: Programme) -> int:
    """Return for how many ms an order can be taken back: the window of refunds, with time for late ones."""
    window = programme.terms.refunds.window
    return (window.months * _LONGEST_MONTH + window.days + 1) * DAY_MS + window.ms + LATE_MS


def has_challenge(programme: Programme, kind: type[Event]) -> bool:
    """Whether a rule on a type of event has a challenge."""
    return any(rule.on is kind and rule.challenge is not None for rule in programme.rules)


def occasion_name(identity: bytes) -> str:
    """Return the name that an occasion has in the counts."""
    return f"{_OCCASION}{identity.hex()}"


def name_of(event: MemberEvent) -> str | None:
    """Return the name that an event has in the counts, so that it can be taken back; None if it never is."""
    if isinstance(event, Purchase):
        return event.order_id
    if isinstance(event, ReferralEvent):
        if event.event == "purchase":
            return event.order_id
        return order_key(f"{_OCCASION}{event.source}{_OCCASION}{event.event_id}", event.referee_id)
    return f"{_OCCASION}{event.event_id}" if isinstance(event, (ChallengeCompletion, TierChange)) else None


def _occasion_facts(event: MemberEvent) -> tuple[str | None, ...]:
    """Return the facts from which, with its name and time, `occasion_of` makes an occasion again."""
    if isinstance(event, TierChange):
        return (event.before, event.to, event.order_id)
    return (event.rule, event.order_id) if isinstance(event, ChallengeCompletion) else ()


def occasion_of(name: str, member_id: str, at_ms: int, facts: tuple[str, ...]) -> TierChange | ChallengeCompletion:
    """Return the occasion of a name, made from the facts that `_occasion_facts` kept."""
    head: dict[str, Any] = {"event_id": name.removeprefix(_OCCASION), "member_id": member_id, "occurred_at": at_ms}
    *words, order_id = facts
    if len(words) == 1:
        return ChallengeCompletion(rule=words[0], order_id=order_id, **head)
    return TierChange(before=words[0], to=words[1], order_id=order_id, **head)


def is_occasion(name: str) -> bool:
    """Whether a name is that of an occasion in the member's own account."""
    return name.startswith(_OCCASION) and referee_of(name) is None


def counts(
    state: MemberState, counting: Counting, by: int | None, since_ms: int | None, event: MemberEvent, identity: bytes
) -> bool:
    """Count an event for a challenge, and return whether that completes it; then a new round begins.

    A challenge that can be completed only once goes on counting as long as its completion may still be undone.

    Args:
        state: the state of the member, changed in place.
        counting: how the challenge counts.
        by: how much the event counts; nothing if it is None or not above 0.
        since_ms: the instant after which events count; None: all of them do.
        event: the event that counts.
        identity: the 32 bytes that identify the event.
    """
    if by is None or by <= 0:
        return False

    by, at_ms, memory = bounded(by), event.occurred_at, state.remembering()
    count = memory.counters.get(counting.key)
    if count is None:
        count = memory.counters[counting.key] = [0, 0, 0, 0, 0]
    judged_ms = max(state.clock_ms, at_ms)

    # completed for good: nothing counts any more
    is_done = count[STANDING] > 0 and not counting.repeats
    if is_done and (not counting.kept_ms or judged_ms > count[FINAL_MS]):
        count[REACHED] = 0
        memory.windows.pop(counting.key, None)
        return False

    # count it
    if since_ms is None:
        reached = count[REACHED] = bounded(count[REACHED] + by)
    else:
        add_window(state, counting.key, by, since_ms, at_ms)
        reached = window_sum(state, counting.key, since_ms, at_ms)

    # keep what it counted, as long as it can be taken back
    name = None
    if counting.kept_ms:
        name = _keep(state, counting, by, event, judged_ms)
        count[UNTIL_MS] = max(count[UNTIL_MS], judged_ms + counting.kept_ms)

    if is_done or reached < counting.goal:
        return False
    completion = Completion(
        identity, name, counting.rule_id, counting.version, since_ms=since_ms, at_ms=at_ms, reached=reached
    )
    complete(state, counting, completion)
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
        if not isinstance(event, Purchase):  # a purchase is kept as long as it can be refunded anyway
            facts.until_ms = max(facts.until_ms, judged_ms + counting.kept_ms)
    return name


def complete(state: MemberState, counting: Counting, completion: Completion) -> None:
    """Begin a new round, and keep what the completion closed as long as that can be taken back."""
    memory = state.remembering()
    count = memory.counters[counting.key]
    window = memory.windows.pop(counting.key, None)
    if counting.kept_ms:
        completion.round, completion.until_ms, completion.window = count[ROUND], count[UNTIL_MS], window
        state.completions.append(completion)
    memory.counters[counting.key] = [0, bounded(count[STANDING] + 1), count[ROUND] + 1, 0, count[UNTIL_MS]]
