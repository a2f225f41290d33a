"""Hold what a programme defines, and find the field that a path means in a rule."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, NamedTuple

from engine.programme.conditions import Field, History, Kind, Measure, MemberPart, MemberValue, TierValue
from engine.programme.fields import (
    LINE,
    SEGMENT,
    TIER_PATHS,
    TRIGGERS,
    field_of,
    is_later,
    other_trigger_of,
    paths_elsewhere,
    paths_here,
)
from engine.programme.file.literals import Measures
from engine.programme.file.problems import Code, shown
from engine.programme.terms import PointsTerms

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine.programme.conditions import Condition, Metric, Place
    from engine.programme.file.problems import Problems
    from engine.programme.localtime import Calendar

DERIVED_PREFIX = "derived."
HISTORY_PREFIX = "history."
SEGMENT_PREFIX = "member.segment "
"""Stands before the name of a segment in `Names.read`."""
SEGMENT_FIELD = Field("member.segment", Kind.TEXTS, MemberValue(MemberPart.HELD), optional=False)
"""The field `member.segment` while its test is read; the test is then replaced by the segments' conditions."""
REFERRAL_EVENTS = ("signup", "purchase", "refund", "activity")
"""The events of a referee on which rules on referrals are judged."""
LEVEL_PATHS = ("member.tier", "tier.to", "tier.from")
"""Fields whose values are levels of the programme's tiers."""


@dataclass
class Names:
    """Hold what a programme defines and its conditions may name; `digits` are the currency's decimals."""

    digits: int
    currency: str
    calendar: Calendar
    derived: dict[str, tuple[str, Field] | None] = dataclass_field(default_factory=dict)
    metrics: dict[str, Metric | None] = dataclass_field(default_factory=dict)
    segments: dict[str, Condition | None] = dataclass_field(default_factory=dict)
    read: set[str] = dataclass_field(default_factory=set)
    """The names that rules have used: history.NAME, derived.NAME, and segments with their prefix."""
    gaps: int = 0
    """How often a condition was left out because it named something that is wrong."""
    levels: list[str] = dataclass_field(default_factory=list)
    contests: list[str] = dataclass_field(default_factory=list)
    points: PointsTerms = dataclass_field(default_factory=PointsTerms)

    @property
    def measures(self) -> Measures:
        """Return how the programme writes values."""
        return Measures(self.digits, self.calendar)

    def field(self, name: str, place: Place, trigger: str | None, problems: Problems) -> Field | None:
        """Return the field that `name` means in a rule on `trigger`, or None after recording why there is none."""
        field = field_of(trigger or "", name)
        if field is not None:
            return field

        # what the programme defines
        if name.startswith(DERIVED_PREFIX) and trigger != LINE:
            return self._derived(name, place, trigger, problems)
        if name.startswith(HISTORY_PREFIX) and trigger != LINE:
            return self._history(name, place, problems)
        if name in TIER_PATHS and trigger != LINE:
            return self._tier(name, place, problems)

        # a field that is not judged yet, a misspelt one, or one of other events
        other = None if trigger == LINE else other_trigger_of(name)
        if trigger != LINE and is_later(name):
            problems.not_judged(place, f"the field {shown(name)}")
        elif other is None:
            return self._like(name, place, trigger, problems)
        elif trigger == SEGMENT:
            message = f"{name} is a field of an event; a segment reads history.*, member.* and time.* only"
            problems.error(place, Code.OTHER_EVENT, message)
        elif trigger in TRIGGERS:
            message = f"{name} is a field of {other} events and this rule is on {trigger}; it could never hold"
            problems.error(place, Code.OTHER_EVENT, message)
        return None

    def _like(self, name: str, place: Place, trigger: str | None, problems: Problems) -> Field | None:
        """Record a name that no field has, and return the field that was probably meant."""
        here = self._known_here(name, trigger)
        elsewhere = paths_elsewhere(trigger)
        meant = problems.unknown(place, Code.UNKNOWN_FIELD, "field", name, here, elsewhere=elsewhere)
        is_field = meant is not None and meant != SEGMENT_FIELD.path
        return self.field(meant, place, trigger, problems) if is_field and meant else None

    def _known_here(self, name: str, trigger: str | None) -> list[str]:
        """Return the paths that may stand in a rule on `trigger`; those with a free name end as `name` does."""
        paths = paths_here(trigger, name)
        if trigger == LINE:
            return paths
        paths += [f"{DERIVED_PREFIX}{own}" for own, of in self.derived.items() if of is not None and of[0] == trigger]
        paths += [f"{HISTORY_PREFIX}{own}" for own, metric in self.metrics.items() if metric is not None]
        paths += TIER_PATHS if self.levels else ()
        return [*paths, SEGMENT_FIELD.path] if self.segments and trigger != SEGMENT else paths

    def check_level(self, path: str, value: object, place: Place, problems: Problems) -> None:
        """Record a value that a field of tiers, contests or referrals can never have."""
        if path in LEVEL_PATHS and self.levels and isinstance(value, str) and value not in self.levels:
            problems.unknown(place, Code.UNKNOWN_VALUE, "tier", value, self.levels)
        if path == "referral.event" and isinstance(value, str) and value not in REFERRAL_EVENTS:
            problems.unknown(place, Code.UNKNOWN_VALUE, "event of a referee", value, REFERRAL_EVENTS)
        if path == "contest.id" and self.contests and isinstance(value, str) and value not in self.contests:
            problems.unknown(place, Code.UNKNOWN_VALUE, "contest", value, self.contests)

    def _tier(self, path: str, place: Place, problems: Problems) -> Field | None:
        """Return the field of the member's tier."""
        if not self.levels:
            message = f'{path} needs tiers and this programme has none; add a section "tiers"'
            problems.error(place, Code.UNKNOWN_FIELD, message)
            return None
        ranked = path == "member.tier_rank"
        return Field(path, Kind.INTEGER if ranked else Kind.TEXT, TierValue(tuple(self.levels), ranked), optional=False)

    def _derived(self, path: str, place: Place, trigger: str | None, problems: Problems) -> Field | None:
        """Return a derived field of the programme."""
        name = _defined(path, _Section(DERIVED_PREFIX, "derived"), self.derived, place, problems)
        if name is None:
            return None
        path = f"{DERIVED_PREFIX}{name}"
        self.read.add(path)

        derived = self.derived[name]
        if derived is None:
            return None
        own_trigger, field = derived
        if own_trigger != trigger:
            message = f"{path} adds fields of {own_trigger} events and this rule is on {trigger}; it could never hold"
            problems.error(place, Code.OTHER_EVENT, message)
            return None
        return field

    def _history(self, path: str, place: Place, problems: Problems) -> Field | None:
        """Return the field that reads a metric of the programme."""
        name = _defined(path, _Section(HISTORY_PREFIX, "metrics"), self.metrics, place, problems)
        if name is None:
            return None
        path = f"{HISTORY_PREFIX}{name}"
        self.read.add(path)
        metric = self.metrics[name]
        if metric is None:
            return None
        kind = Kind.AGE if metric.measure is Measure.LAST else Kind.INTEGER if metric.of is None else metric.of.kind
        return Field(path, kind, History(metric), optional=metric.measure is Measure.LAST)


class _Section(NamedTuple):
    """Name a section of the programme, and the prefix of the paths that read what it defines."""

    prefix: str
    name: str


def _defined(path: str, section: _Section, names: Collection[str], place: Place, problems: Problems) -> str | None:
    """Return the name in a section that a path means, or None after recording that it is unknown."""
    if path.removeprefix(section.prefix) in names:
        return path.removeprefix(section.prefix)
    known, none = [f"{section.prefix}{each}" for each in names], f'add it to a section "{section.name}"'
    meant = problems.unknown(place, Code.UNKNOWN_FIELD, "field", path, known, none=none)
    return None if meant is None else meant.removeprefix(section.prefix)
