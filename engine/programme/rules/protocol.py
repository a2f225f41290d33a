"""Say what a judged programme version can do, whether it is compiled or interpreted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from engine.programme.localtime import calendar_of
from engine.programme.occasions import Anniversary, Birthday, ChallengeCompletion
from engine.programme.rules.tiers import TierClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.state import MemberState
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Phase, Programme, Rule
    from engine.programme.rules.occurrence import Occurrence
    from engine.programme.rules.watch import Watch
    from schemas.events import Event
    from schemas.rewards import RewardEvent


class Judge(Protocol):
    """Judge events by one programme version.

    `timed` holds which occasions of the calendar it has rules on, `tier_clock` what moves members between its tiers,
    `has_budgets` whether a rule has a limit that all members share, `is_followed` whether contests or rules on
    challenges look at what an event gave. `watch` hears what the ledger decides on the events.
    """

    programme: Programme
    version: int
    timed: frozenset[type[Event]]
    tier_clock: TierClock | None
    has_budgets: bool
    is_followed: bool
    watch: Watch

    def rewards_for(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member, and count it in `state`."""
        ...

    def complete_again(
        self, rule: Rule, facts: Facts, given: dict[Phase, int] | None, state: MemberState, occurrence: Occurrence
    ) -> list[RewardEvent]:
        """Return what a completion gives that a refund has brought about, itself first, and count it in `state`."""
        ...


def timed_by(programme: Programme) -> frozenset[type[Event]]:
    """Return the occasions of the calendar that a programme has rules on."""
    return frozenset(rule.on for rule in programme.rules if rule.on in (Birthday, Anniversary))


def moves_members(old: Programme, new: Programme) -> bool:
    """Whether members who have no event must follow a new version: by its tiers, or by when their days come."""
    return _what_moves(old) != _what_moves(new)


def _what_moves(programme: Programme) -> tuple[object, ...]:
    tiers = programme.terms.tiers
    return (None if tiers is None else tiers.terms, timed_by(programme), programme.timezone)


def is_followed(programme: Programme) -> bool:
    """Whether contests, or rules on challenges, look at what an event gave."""
    return bool(programme.terms.contests) or any(rule.on is ChallengeCompletion for rule in programme.rules)


def tier_clock_of(programme: Programme) -> TierClock | None:
    """Return what moves members between a programme's tiers, or None where it has none."""
    tiers = programme.terms.tiers
    return None if tiers is None else TierClock(tiers, calendar_of(programme.timezone))
