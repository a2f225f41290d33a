"""Say what a judged programme version can do, whether it is compiled, interpreted or explained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from engine.programme.localtime import calendar_of
from engine.programme.occasions import Anniversary, Birthday, ChallengeCompletion
from engine.programme.rules.budgets import has_budgets
from engine.programme.rules.tiers import TierClock
from engine.programme.rules.watch import NOBODY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.state import MemberState
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Phase, Programme, Rule
    from engine.programme.rules.occurrence import Occurrence
    from engine.programme.rules.watch import Watch
    from schemas.events import Event
    from schemas.rewards import RewardEvent


class Judge(ABC):
    """Judge events by one programme version."""

    __slots__ = ("has_budgets", "is_followed", "programme", "tier_clock", "timed", "version", "watch")

    def __init__(self, programme: Programme, version: int) -> None:
        self.programme = programme
        self.version = version

        self.timed = timed_by(programme)
        """The occasions of the calendar that the programme has rules on."""

        self.tier_clock = tier_clock_of(programme)
        """Moves members between tiers; None where the programme has none."""

        self.has_budgets = has_budgets(programme)
        """Whether a rule has a limit that all members share."""

        self.is_followed = is_followed(programme)
        """Whether contests, or rules on challenges, look at the rewards of an event."""

        self.watch: Watch = NOBODY
        """Hears what the ledger decides on the events."""

    @abstractmethod
    def rewards_for(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return the rewards of `event` for its member, and count them in `state`."""

    @abstractmethod
    def complete_again(
        self, rule: Rule, facts: Facts, given: dict[Phase, int] | None, state: MemberState, occurrence: Occurrence
    ) -> list[RewardEvent]:
        """Return the rewards of a challenge that a refund completes, and count them in `state`.

        Args:
            rule: the rule of the challenge; its time, condition and cohort have let the event count.
            facts: the facts of the remaining order (or other event) that reaches the goal, dated as the completion.
            given: the points that the event has from other rules, by phase; None: its group let another rule give.
            state: the state of the member.
            occurrence: the place of the completion.

        Returns:
            `challenge.completed` first, then the rule's rewards.
        """


def timed_by(programme: Programme) -> frozenset[type[Event]]:
    """Return the occasions of the calendar that a programme has rules on."""
    return frozenset(rule.on for rule in programme.rules if rule.on in (Birthday, Anniversary))


def moves_members(old: Programme, new: Programme) -> bool:
    """Whether a new version changes the tiers or the days of members who have no event of their own."""
    return _what_moves(old) != _what_moves(new)


def _what_moves(programme: Programme) -> tuple[object, ...]:
    tiers = programme.terms.tiers
    return (None if tiers is None else tiers.terms, timed_by(programme), programme.timezone)


def is_followed(programme: Programme) -> bool:
    """Whether contests, or rules on challenges, look at the rewards of an event."""
    return bool(programme.terms.contests) or any(rule.on is ChallengeCompletion for rule in programme.rules)


def tier_clock_of(programme: Programme) -> TierClock | None:
    """Return what moves members between a programme's tiers, or None where it has none."""
    tiers = programme.terms.tiers
    return None if tiers is None else TierClock(tiers, calendar_of(programme.timezone))
