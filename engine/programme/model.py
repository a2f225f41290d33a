"""Hold a checked programme: what its author meant, with no text left to interpret.

Everything is frozen and hashable. `place` says where a part stands in the file and takes no part in comparisons.
A wider language adds members to the union `Amount` and values to the enums; `compile` and `interpret` dispatch on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from engine.programme.conditions import NOWHERE, Place

if TYPE_CHECKING:
    from engine.programme.conditions import Condition, Field
    from schemas.events import Event


class Phase(StrEnum):
    """Name the phases of one event's evaluation, in their order."""

    BASE = "base"
    BOOST = "boost"
    BONUS = "bonus"


class Rounding(StrEnum):
    """Name how a rational award becomes an integer; awards are never negative."""

    FLOOR = "floor"
    HALF_UP = "half_up"
    CEIL = "ceil"


class Over(StrEnum):
    """Name what happens to an award that does not fit under a `max`."""

    TRIM = "trim"
    REFUSE = "refuse"


class Every(StrEnum):
    """Name the periods of a limit."""

    DAY = "day"


class RefusalReason(StrEnum):
    """Name why the reward log says `reward.refused`."""

    LIMIT_MAX = "limit_max"
    LIMIT_TIMES = "limit_times"
    OUT_OF_RANGE = "out_of_range"


@dataclass(frozen=True, slots=True)
class FixedAmount:
    """Award the same number each time."""

    amount: int


@dataclass(frozen=True, slots=True)
class RatedAmount:
    """Award `basis * numerator / denominator`, rounded once; the basis is a field in its own integer unit."""

    basis: Field
    numerator: int
    denominator: int
    rounding: Rounding


Amount = FixedAmount | RatedAmount


@dataclass(frozen=True, slots=True)
class Give:
    """Award an amount of a unit."""

    unit: str
    amount: Amount
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class LimitScope:
    """Name whose use is counted over which period; limits of a rule with the same scope share one count."""

    every: Every

    def key(self, rule_id: str) -> str:
        """Return the name of the rule's count in the member's state: the same in every version of the programme."""
        return f"member:{self.every}:{rule_id}"


@dataclass(frozen=True, slots=True)
class MaxLimit:
    """Cap the amount that a rule gives in a period."""

    scope: LimitScope
    amount: int
    over: Over
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class TimesLimit:
    """Cap how often a rule gives in a period; what comes after is refused whole."""

    scope: LimitScope
    times: int
    place: Place = field(default=NOWHERE, compare=False)


Limit = MaxLimit | TimesLimit


@dataclass(frozen=True, slots=True)
class Rule:
    """Say what an event of one type gives, and when; `on` is the event type."""

    id: str
    on: type[Event]
    when: Condition
    gives: tuple[Give, ...]
    limits: tuple[Limit, ...] = ()
    campaign: str | None = None
    phase: Phase = Phase.BASE
    priority: int = 0
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Programme:
    """Hold one programme file; `digest` is the hex sha256 of its canonical form (layout and comments do not count)."""

    id: str
    timezone: str
    currency: str
    rules: tuple[Rule, ...]
    digest: str


def in_order(rules: tuple[Rule, ...]) -> list[Rule]:
    """Return rules as they are evaluated: by phase, then higher priority first, then id."""
    phases = list(Phase)
    return sorted(rules, key=lambda rule: (phases.index(rule.phase), -rule.priority, rule.id))


KEPT_PERIODS = {Every.DAY: 7}
"""How many periods before the newest a limit remembers: 7 days (docs: what a late event finds)."""
