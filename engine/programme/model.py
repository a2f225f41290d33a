"""Hold a checked programme as its author meant it, with all text already parsed.

Everything is frozen and hashable. `place` says where a part stands in the file and is ignored in comparisons. A wider
language adds members to the union `Amount` and values to the enums; `compile` and `interpret` dispatch on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from engine.programme.conditions import NOWHERE, Duration, Every, Place
from engine.programme.terms import Terms

if TYPE_CHECKING:
    from engine.programme.conditions import Condition, Field, Metric
    from schemas.events import Event


class Phase(StrEnum):
    """Name the phases of one event's evaluation, in their order."""

    BASE = "base"
    BOOST = "boost"
    BONUS = "bonus"


class Rounding(StrEnum):
    """Name how a fractional award becomes an integer; awards are never negative."""

    FLOOR = "floor"
    HALF_UP = "half_up"
    CEIL = "ceil"


class Over(StrEnum):
    """Name what happens to an award that does not fit under a `max`."""

    TRIM = "trim"
    REFUSE = "refuse"


class Pick(StrEnum):
    """Name which rules of a group may give."""

    ALL = "all"
    BEST = "best"
    FIRST = "first"


class RefusalReason(StrEnum):
    """Name why the reward log says `reward.refused`."""

    LIMIT_MAX = "limit_max"
    LIMIT_TIMES = "limit_times"
    LIMIT_FORGOTTEN = "limit_forgotten"
    OUT_OF_RANGE = "out_of_range"
    COHORT_CONTROL = "cohort_control"


@dataclass(frozen=True, slots=True)
class FixedAmount:
    """Award the same number each time."""

    amount: int


@dataclass(frozen=True, slots=True)
class RatedAmount:
    """Award `basis * numerator / denominator`, rounded once; the basis is a field in its own integer unit.

    `most` and `share`, a fraction of the basis, cap it.
    """

    basis: Field
    numerator: int
    denominator: int
    rounding: Rounding
    most: int | None = None
    share: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class MultipliedAmount:
    """Award `base * extra`, rounded once, where base is the points that the event gave in an earlier phase.

    `extra` is the factor less 1, a fraction. With `key` it is looked up by that field's value among `extras`; for other
    values nothing is awarded.
    """

    phase: Phase
    rounding: Rounding
    extra: tuple[int, int] | None = None
    key: Field | None = None
    extras: tuple[tuple[str, tuple[int, int]], ...] = ()


Amount = FixedAmount | RatedAmount | MultipliedAmount


@dataclass(frozen=True, slots=True)
class Give:
    """Award an amount of a unit; `item` is the coupon's template, the gift's sku, the badge or the benefit.

    `lasts` is how long a coupon or a benefit is valid (None: for ever), `hold` how long the award stays pending, and
    `validity` how long points last after that (None: for ever).
    """

    type: str
    unit: str
    amount: Amount
    item: str | None = None
    lasts: Duration | None = None
    place: Place = field(default=NOWHERE, compare=False)
    hold: Duration | None = None
    validity: Duration | None = None

    @property
    def is_account(self) -> bool:
        """Whether the award moves between accounts; coupons, gifts, badges and benefits do not."""
        return self.item is None


@dataclass(frozen=True, slots=True)
class LimitScope:
    """Hold the scope of a limit: its count, its owner and its period; limits of a rule with one scope share the count.

    `every` is a calendar period or the length of a rolling window; `by` is a field each of whose values has a count of
    its own. `is_shared` says that all members share the count, as a campaign's budget; `unit` is then `times` where the
    budget limits how often is given.
    """

    every: Every | Duration
    unit: str = "points"
    by: Field | None = None
    is_shared: bool = False

    def key(self, rule_id: str) -> str:
        """Return the name of the rule's count in the member's state: the same in every version of the programme."""
        who = "member" if self.unit == "points" else f"member/{self.unit}"
        if self.by is not None:
            who += f"[{self.by.path}]"
        if isinstance(self.every, Duration):
            return f"{who}:{self.every.months}mo{self.every.days}d{self.every.ms}ms:{rule_id}"
        return f"{who}:{self.every}:{rule_id}"


@dataclass(frozen=True, slots=True)
class MaxLimit:
    """Cap the amount that a rule gives in a period."""

    scope: LimitScope
    amount: int
    over: Over
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class TimesLimit:
    """Cap how often a rule gives in a period; after that everything is refused."""

    scope: LimitScope
    times: int
    place: Place = field(default=NOWHERE, compare=False)


Limit = MaxLimit | TimesLimit


@dataclass(frozen=True, slots=True)
class Active:
    """Bound the time in which a rule is judged: from the first instant up to, but not including, the last."""

    from_ms: int | None = None
    until_ms: int | None = None
    place: Place = field(default=NOWHERE, compare=False)


class Arm(StrEnum):
    """Name the arms into which a cohort divides members: who gets the reward, and who does not."""

    TREATED = "treated"
    CONTROL = "control"


class CohortMetric(StrEnum):
    """Name the number, for each member since they entered, by which the arms of a cohort are compared."""

    NET = "net"
    ORDERS = "orders"


@dataclass(frozen=True, slots=True)
class Cohort:
    """Treat `treat` members of 10,000; the others are the control arm.

    Reports alone read `planned`, the number of members in both arms for which the experiment is planned (None: none is
    planned), and `metric`.
    """

    salt: str
    treat: int
    planned: int | None = None
    metric: CohortMetric = CohortMetric.NET
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Draw:
    """Let an event win with a chance of `wins` in `of`."""

    seed: str
    wins: int
    of: int


@dataclass(frozen=True, slots=True)
class Challenge:
    """Let a rule give when the member's events that fulfil `where` reach a goal: a count of them, or a sum of `of`."""

    goal: int
    of: Field | None
    within: Duration | None
    where: Condition
    repeats: bool

    def key(self, rule_id: str) -> str:
        """Return the name of the count in the member's state: the same in every version of the programme."""
        return f"challenge:{'' if self.of is None else self.of.path}:{rule_id}"


@dataclass(frozen=True, slots=True)
class Group:
    """Name the rules among which one is picked."""

    id: str
    pick: Pick
    place: Place = field(default=NOWHERE, compare=False)


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
    active: Active = Active()
    cohort: Cohort | None = None
    challenge: Challenge | None = None
    draw: Draw | None = None
    group: Group | None = None
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Programme:
    """Hold one programme file; `digest` is the hex sha256 of its canonical form (layout and comments do not count).

    `enters_cohorts` says whether `cohort.entered` is written: versions that earlier releases activated write none.
    """

    id: str
    timezone: str
    currency: str
    rules: tuple[Rule, ...]
    digest: str
    metrics: tuple[Metric, ...] = ()
    terms: Terms = field(default_factory=Terms)
    enters_cohorts: bool = True

    @property
    def lowest_tier(self) -> str | None:
        """Return the level in which every member begins, None where there are no tiers."""
        return None if self.terms.tiers is None else self.terms.tiers.levels[0].id

    @property
    def has_cohorts(self) -> bool:
        """Whether a rule has a cohort."""
        return any(rule.cohort is not None for rule in self.rules)


def in_order(rules: tuple[Rule, ...]) -> list[Rule]:
    """Return rules as they are evaluated: by phase, then higher priority first, then id."""
    phases = list(Phase)
    return sorted(rules, key=lambda rule: (phases.index(rule.phase), -rule.priority, rule.id))


def decides(group: Group | None) -> bool:
    """Whether a group picks one of its rules; a group that lets all give is only a name."""
    return group is not None and group.pick is not Pick.ALL
