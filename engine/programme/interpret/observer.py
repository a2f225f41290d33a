"""Let others follow the interpreter: it tells an observer of each point at which a rule can end."""

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
    """Name the gates that a rule must pass before it can give, in their order."""

    NOT_YET = "not_active_yet"
    NO_LONGER = "no_longer_active"
    CONDITION = "condition"
    CONTROL = "cohort_control"
    COUNTS = "challenge_condition"
    CHALLENGE = "challenge"
    DRAW = "draw"


class Observer:
    """Hear what the interpreter decides; this class ignores all of it.

    Facts and uses change afterwards, so an observer must read at once what it needs of them.
    """

    def stopped(self, rule: Rule, gate: Gate, facts: Facts) -> None:
        """Hear that a rule ends at a gate."""

    def picked(self, winner: Rule, stood: Sequence[tuple[Rule, int | None]]) -> None:
        """Hear which rule a group picked among those that stood; each has its worth in points where that decides."""

    def weighed(self, rule: Rule, awards: Sequence[int], facts: Facts, given: Mapping[Phase, int]) -> None:
        """Hear the awards of a rule before limits, and the points that the event gave so far, by phase."""

    def limited(self, rule: Rule, uses: Uses, facts: Facts) -> None:
        """Hear what has been used of the rule's limits before it gives; only of a rule with an award above 0."""

    def cut(self, rule: Rule, index: int, uses: Uses, facts: Facts) -> None:
        """Hear what has been used of the rule's limits before they trim the give at `index`."""
