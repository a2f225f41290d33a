"""Hold checked conditions: which value is read from where, and what it is compared with.

Everything is frozen and hashable. A source says where a field's value comes from: `interpret.facts` reads it plainly,
`compile.fields` generates code that reads it. A missing value is None; `FieldTest` says what that means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Point at a line and a column of the programme file, both counted from 1."""

    line: int
    column: int


NOWHERE = Place(1, 1)


class Kind(StrEnum):
    """Name how the values of a field are written in a programme and stored while judging."""

    TEXT = "text"
    MONEY = "money"
    """Major units in the file, integer minor units in the event."""
    BOOLEAN = "true or false"
    INTEGER = "a whole number"
    DECIMAL = "a number with decimals"
    """Held in millionths: a quantity has at most six decimals."""
    WEEKDAY = "a day of the week"
    """Written mon to sun, held as 0 to 6."""
    CLOCK = "a time of day"
    """Held as milliseconds since local midnight."""
    DATE = "a date"
    """Held as days since 1970-01-01."""
    INSTANT = "an instant"
    """Held as milliseconds since 1970 UTC; a date in the file means its local midnight."""
    AGE = "a length of time"
    """Held as the instant at which it began; written as a duration."""
    RECURRING = "a day that comes back each year"
    """Held as the days to the nearest one, before or after."""
    TEXTS = "a list of texts"


NUMBERS = frozenset((Kind.MONEY, Kind.INTEGER, Kind.DECIMAL))
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Duration:
    """Hold a length of time in one of three units: calendar months, local days, or exact milliseconds."""

    months: int = 0
    days: int = 0
    ms: int = 0


class Comparison(StrEnum):
    """Name the tests of one field."""

    EQ = "eq"
    NE = "ne"
    IN = "in"
    NOT_IN = "not_in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    BETWEEN = "between"
    CONTAINS = "contains"
    CONTAINS_ANY = "contains_any"
    CONTAINS_ALL = "contains_all"
    STARTS_WITH = "starts_with"
    EXISTS = "exists"
    WITHIN = "within"
    CLOCK = "clock"
    """From one time of day, inclusive, to another, exclusive; may wrap midnight."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """Read an attribute of the event or, in the tests of a line, of the line; with `key` an entry of that mapping."""

    name: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Tender:
    """Add up the payments of one kind; a purchase without one has 0."""

    kind: str


class LocalPart(StrEnum):
    """Name the parts of a local date and time that can be read."""

    WEEKDAY = "weekday"
    CLOCK = "clock"
    DATE = "date"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class LocalTime:
    """Read the event's local time."""

    part: LocalPart


@dataclass(frozen=True, slots=True)
class Lines:
    """Count the lines that fulfil `where`, or add up their `sum`; missing if the purchase has no lines at all."""

    where: Condition
    sum: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Add and subtract fields of the event (sign, field); missing where one of them is."""

    terms: tuple[tuple[int, Field], ...]


class Measure(StrEnum):
    """Name what a metric says of the member's past."""

    COUNT = "count"
    SUM = "sum"
    STREAK = "streak"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Metric:
    """Measure a member's events of one type that fulfil `where`; `over` is a rolling window, `unit` that of a streak.

    `key` names its value in the member's state. It contains a hash of the metric's definition, so that no version reads
    what another version counted in another way.
    """

    key: str
    measure: Measure
    on: str
    where: Condition
    of: Field | None = None
    over: Duration | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Read a metric as it stands before the event."""

    metric: Metric


class MemberPart(StrEnum):
    """Name the facts about a member before the event."""

    AGE = "age"
    """The time since the signup; held as the instant of the signup."""
    BALANCE = "balance"
    HELD = "held"
    BIRTHDAY = "birthday"
    ATTRIBUTE = "attribute"
    REFERRER = "referrer"


@dataclass(frozen=True, slots=True)
class MemberValue:
    """Read a fact about the member; `item` names the badge or benefit of HELD, or the attribute."""

    part: MemberPart
    item: str = ""


@dataclass(frozen=True, slots=True)
class TierValue:
    """Read the member's tier among the programme's `levels`, the lowest first: its id or, `ranked`, its rank from 0."""

    levels: tuple[str, ...]
    ranked: bool = False


Source = Attribute | Tender | LocalTime | Lines | Difference | History | MemberValue | TierValue


@dataclass(frozen=True, slots=True)
class Field:
    """Name a value: `path` is what a programme writes; `optional` says that the value may be missing."""

    path: str
    kind: Kind
    source: Source
    optional: bool = True


def may_be_negative(field: Field) -> bool:
    """Whether a number can be below 0: differences and scores can, amounts and counts cannot."""
    if isinstance(field.source, History):
        summed = field.source.metric.of
        return summed is not None and may_be_negative(summed)
    return isinstance(field.source, Difference) or field.path == "activity.score"


Literal = str | int | bool | Duration
"""A value of a programme: text, an integer in the unit of the field's kind, a truth value, or a length of time."""


@dataclass(frozen=True, slots=True)
class FieldTest:
    """Compare one field with a constant, or with each of a tuple in the order written.

    A missing value makes a test false, except NE, NOT_IN and EXISTS with False, which it makes true.
    """

    of: Field
    comparison: Comparison
    value: Literal | tuple[Literal, ...]
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Hold where every part holds; without parts, always. `named_at` is where a rule names it, if it is a segment."""

    parts: tuple[Condition, ...]
    named_at: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Hold where any part holds; there is at least one. `named_at` is as in `AllOf`."""

    parts: tuple[Condition, ...]
    named_at: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """Hold where the part does not."""

    part: Condition


Condition = FieldTest | AllOf | AnyOf | Not
ALWAYS = AllOf(())


class Every(StrEnum):
    """Name the periods of a limit."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    LIFETIME = "lifetime"
