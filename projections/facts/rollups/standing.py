"""Say what a member contributes to the cells that need more than one of their events, from their whole history.

This is the definition. `member.py` computes the same from event to event, as long as days come in their order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from projections.facts.rollups.days import NO_DAY, month_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SURVEY = "survey"
"""The kind of the activities that bring a score."""

WEEK_DAYS = 7
SECOND_DAYS_MAX = 90
"""A second order that comes more days after the first one is as good as none: no report asks for it."""

Place = tuple[str, int, int, int, str]
"""The fields of a cell without the day of recording: measure, day, later, previous, name."""


class FirstSignup(NamedTuple):
    """Hold a signup by the order in which signups count: the earliest is the member's joining."""

    occurred_us: int
    seq: int
    day: int
    channel: str


class Answer(NamedTuple):
    """Hold a score that a member gave, by the order in which scores count: the latest of a time is the member's."""

    occurred_us: int
    seq: int
    measure: str
    """As `measure_of` names it."""


@dataclass(slots=True)
class History:
    """Hold what a member did, as far as the log has brought it; days are as `days` counts them."""

    active: set[int] = field(default_factory=set)
    """The days with a purchase, activity, share or redemption."""

    order_days: list[int] = field(default_factory=list)
    """The days of all orders, in any order."""

    net_by_month: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    """The rest of the orders of each month after refunds."""

    joined: FirstSignup | None = None

    asked: set[int] = field(default_factory=set)
    """The days with a survey, whether it has a score or not."""

    answers: dict[int, Answer] = field(default_factory=dict)
    """The last score of each day that has any."""

    def copy(self) -> History:
        """Return a history of its own that says the same."""
        return History(
            set(self.active), list(self.order_days), self.net_by_month.copy(), self.joined, set(self.asked),
            dict(self.answers),
        )  # fmt: skip

    def join(self, signup: FirstSignup) -> None:
        """Take a signup, which may be an earlier one than the first so far."""
        if self.joined is None or signup < self.joined:
            self.joined = signup

    def take_survey(self, day: int, occurred_us: int, seq: int, score: int | None) -> None:
        """Take a survey, whose score may be an earlier one than the last of its day."""
        self.asked.add(day)
        measure = measure_of(score)
        if measure is not None:
            answer = Answer(occurred_us, seq, measure)
            self.answers[day] = max(self.answers.get(day, answer), answer)


def measure_of(score: int | None) -> str | None:
    """Return the measure that counts a score of a survey; None: it is none from 0 to 10."""
    if score is None or not 0 <= score <= 10:
        return None
    return "promoter" if score >= 9 else "passive" if score >= 7 else "detractor"


def standing(history: History) -> Counter[Place]:
    """Return the member's contribution to each cell."""
    cells: Counter[Place] = Counter()
    for day, previous in _gaps(history.active):
        cells["active", day, NO_DAY, previous_of(day, previous), ""] += 1
    for day, previous in _gaps(history.order_days):
        cells["buyer", day, NO_DAY, previous_of(day, previous), ""] += 1
    months = sorted({month_of(day) for day in history.order_days})

    # by the day of the first order, or its month
    if history.order_days:
        first, *others = sorted(history.order_days)
        cells["second", first, second_of(first, others[0] if others else NO_DAY), NO_DAY, ""] += 1
        for month, previous in _gaps(months):
            cells["bought", months[0], month, previous, ""] += 1
        for month, net in history.net_by_month.items():
            cells["revenue", months[0], month, NO_DAY, ""] += net

    # by the day of the first signup, or its month
    if history.joined is not None:
        cells["joined", history.joined.day, NO_DAY, NO_DAY, history.joined.channel] += 1
        joined = month_of(history.joined.day)
        for month, previous in _gaps(month for month in months if month >= joined):
            cells["stayed", joined, month, previous, ""] += 1

    # the last score of a day, with the day of the next one
    for day, previous in _gaps(history.asked):
        cells["asked", day, NO_DAY, previous_of(day, previous), ""] += 1
    for day, following in pairwise((*sorted(history.answers), NO_DAY)):
        cells[history.answers[day].measure, day, next_of(day, following), NO_DAY, ""] += 1
    return cells


def second_of(first: int, second: int) -> int:
    """Return the day of the second order as cells have it."""
    return NO_DAY if second > first + SECOND_DAYS_MAX else second


def previous_of(day: int, previous: int) -> int:
    """Return the day before `day` on which a member did something as cells have it: from afar, its month alone.

    That is enough to say whether it lies before the week, month, quarter or year of `day`, or before any month.
    """
    if previous == NO_DAY or previous >= day - WEEK_DAYS or previous >= month_of(day):
        return previous
    return month_of(previous)


def next_of(day: int, following: int) -> int:
    """Return the next day on which a member gave a score as cells have it: from afar, its month alone.

    That is enough to say whether it lies in the week, month, quarter or year of `day`, or before any month.
    """
    return following if following == NO_DAY or month_of(following) <= day + WEEK_DAYS else month_of(following)


def _gaps(days: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield each day once, with the one before it."""
    previous = NO_DAY
    for day in sorted(set(days)):
        yield day, previous
        previous = day
