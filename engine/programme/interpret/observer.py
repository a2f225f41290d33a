"""Watch the interpreter decide: what `explain` is told at each point where a rule can end."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.member.state import LimitUse
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import LimitScope, Phase, Rule
    from engine.programme.rules.limits import RollingUse

    Uses = Mapping[LimitScope, LimitUse | RollingUse]


class Gate(StrEnum):
    """Name what a rule must pass before it can give, in the order in which it is asked."""

    NOT_YET = "not_active_yet"
    NO_LONGER = "no_longer_active"
    CONDITION = "condition"
    CONTROL = "cohort_control"
    COUNTS = "challenge_condition"
    CHALLENGE = "challenge"
    DRAW = "draw"


class Observer:
    """Hear what the interpreter decides; this one listens to nothing.

    Facts and uses are those of the moment and change afterwards: take from them what is needed at once.
    """

    def stopped(self, rule: Rule, gate: Gate, facts: Facts) -> None:
        """Hear that a rule ends at a gate."""

    def picked(self, winner: Rule, stood: Sequence[tuple[Rule, int | None]]) -> None:
        """Hear which rule a group lets give, of those that stood, each with its worth in points where that decides."""

    def weighed(self, rule: Rule, awards: Sequence[int], facts: Facts, given: Mapping[Phase, int]) -> None:
        """Hear what each give of a rule comes to before limits, and the points that the event gave so far by phase."""

    def limited(self, rule: Rule, uses: Uses, facts: Facts) -> None:
        """Hear what the rule's limits have let through before it gives; only of a rule with an award above 0."""

    def cut(self, rule: Rule, index: int, uses: Uses, facts: Facts) -> None:
        """Hear what they have let through before the give at `index` is measured against them."""
