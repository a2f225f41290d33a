"""Model a member's tier slowly and plainly: every number is a sum over dated entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from engine.programme.conditions import Duration
from engine.programme.localtime import DAY_MS, DAY_ZERO
from tests.models.family import LEVELS, duration_from

if TYPE_CHECKING:
    from engine.programme.localtime import Calendar
    from tests.models.family import Tiers

FOREVER_MS = 10**15
Span = tuple[int, int]
"""First and last instant of a window, both in it."""


@dataclass
class Entry:
    """Hold one amount that counts towards a tier, dated at its award; a refund lowers `value`."""

    at_ms: int
    value: int


@dataclass
class Change:
    """Record that a member's level changed at an instant."""

    at_ms: int
    before: int
    after: int
    number: int


def year_start_ms(calendar: Calendar, at_ms: int) -> int:
    """Return the local beginning of the year of an instant."""
    year = date.fromordinal(calendar.local_day(at_ms) + DAY_ZERO).year
    return calendar.instant_of((date(year, 1, 1).toordinal() - DAY_ZERO) * DAY_MS)


@dataclass
class Standing:
    """Hold a member's level (its rank), the window whose number earned it, and the reviews to come."""

    tiers: Tiers
    calendar: Calendar
    anchor_ms: int
    rank: int = 0
    since_ms: int | None = None
    kept: Span | None = None
    entries: list[Entry] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    grace_end_ms: int | None = None
    grace_of: Span | None = None
    window_end_ms: int | None = None
    """The end of the window that follows the last review; rolling and lifetime windows have none."""
    rolled_ms: int = 0
    """The instant up to which a rolling sum was reviewed."""

    def __post_init__(self) -> None:
        if self.tiers.window in ("calendar_year", "anniversary"):
            self.window_end_ms = self.window_at(self.anchor_ms)[1] + 1
        self.rolled_ms = self.anchor_ms

    @property
    def rolling(self) -> Duration | None:
        """Return the length of a rolling window."""
        name, _, length = self.tiers.window.partition(" ")
        return duration_from(length) if name == "rolling" else None

    def window_at(self, at_ms: int) -> Span:
        """Return the window in which an instant lies; a rolling one ends with it."""
        if self.rolling is not None:
            return self.calendar.before(at_ms, self.rolling) + 1, at_ms
        if self.tiers.window == "lifetime":
            return -FOREVER_MS, FOREVER_MS
        if self.tiers.window == "calendar_year":
            first_ms = year_start_ms(self.calendar, at_ms)
            return first_ms, year_start_ms(self.calendar, first_ms + 370 * DAY_MS) - 1
        years = 0
        while self._anniversary(years + 1) <= at_ms:
            years += 1
        return self._anniversary(years), self._anniversary(years + 1) - 1

    def _anniversary(self, years: int) -> int:
        return self.calendar.after(self.anchor_ms, Duration(months=12 * years))

    def number(self, span: Span) -> int:
        """Add up what counts in a window."""
        return sum(entry.value for entry in self.entries if span[0] <= entry.at_ms <= span[1])

    def due_ms(self) -> int | None:
        """Return the next instant at which the level is reviewed by itself."""
        instants = [at_ms for at_ms in (self.grace_end_ms, self.window_end_ms) if at_ms is not None]
        if self.rolling is not None:
            leaving = [self.calendar.after(entry.at_ms, self.rolling) for entry in self.entries if entry.value]
            instants += [at_ms for at_ms in leaving if at_ms > self.rolled_ms]
        return min(instants, default=None)

    def review(self, at_ms: int) -> None:
        """Review the level at a due instant."""
        if self.grace_end_ms == at_ms:
            self._end_grace(at_ms)
        if self.window_end_ms == at_ms:
            self.window_end_ms = self.window_at(at_ms)[1] + 1
            self._check(self.window_at(at_ms - 1), at_ms)
        if self.rolling is not None:
            self.rolled_ms = max(self.rolled_ms, at_ms)
            self._check(self.window_at(at_ms), at_ms)

    def _check(self, ended: Span, at_ms: int) -> None:
        """Keep the level where the window that ends reaches it; else fall, now or after the grace."""
        if self.number(ended) >= self.tiers.starts[self.rank]:
            if self.rolling is None:
                self.kept = ended
        elif self.tiers.downgrade != "never" and self.grace_end_ms is None:
            if self.tiers.grace is None:
                self._fall(ended, at_ms)
            else:
                self.grace_end_ms = self.calendar.after(at_ms, duration_from(self.tiers.grace))
                self.grace_of = ended

    def _end_grace(self, at_ms: int) -> None:
        assert self.grace_of is not None
        spans = [self.window_at(at_ms)] if self.rolling else [self.window_at(at_ms), self.grace_of]
        self.grace_end_ms = self.grace_of = None
        best = max(spans, key=self.number)
        if self.number(best) >= self.tiers.starts[self.rank]:
            self.kept = best
        else:
            self._fall(best, at_ms)

    def _fall(self, span: Span, at_ms: int) -> None:
        earned = self.tiers.level_of(self.number(span))
        rank = max(earned, self.rank - 1) if self.tiers.downgrade == "one_down" else earned
        self._change(rank, at_ms, span if rank == earned else None, self.number(span))

    def _change(self, rank: int, at_ms: int, kept: Span | None, number: int) -> None:
        self.changes.append(Change(at_ms, self.rank, rank, number))
        self.rank, self.since_ms, self.kept = rank, at_ms, kept
        self.grace_end_ms = self.grace_of = None

    def reach(self, at_ms: int, clock_ms: int) -> Change | None:
        """Rise to the level that the current window reaches or, of a late event, the window of its own time."""
        span = max(self.window_at(clock_ms), self.window_at(at_ms), key=self.number)
        earned = self.tiers.level_of(self.number(span))
        if earned <= self.rank:
            return None
        self._change(earned, at_ms, span, self.number(span))
        return self.changes[-1]

    def lower(self, entry: Entry, value: int, at_ms: int, clock_ms: int) -> None:
        """Apply a refund: fall at once where the number that earned the level no longer reaches it."""
        current = self.window_at(clock_ms)
        kept_before = None if self.kept is None else self.number(self.kept)
        current_before = self.number(current)
        entry.value = value
        start = self.tiers.starts[self.rank]
        now = self.number(current)
        if self.kept is not None and kept_before is not None and kept_before >= start > self.number(self.kept):
            if now >= start:
                self.kept = current
                return
            best = max(self.kept, current, key=self.number)
            self._change(self.tiers.level_of(self.number(best)), at_ms, best, self.number(best))
        elif self.rolling is not None and current_before >= start > now:
            self._check(current, at_ms)

    def row(self, clock_ms: int) -> dict[str, str | int | None]:
        """Return what `member_tier` says of the level, the number and the next level."""
        qualifying = self.number(self.window_at(clock_ms))
        following = self.rank + 1 if self.rank + 1 < len(LEVELS) else None
        return {
            "tier": LEVELS[self.rank],
            "qualifying": qualifying,
            "next_tier": None if following is None else LEVELS[following],
            "to_next_tier": None if following is None else self.tiers.starts[following] - qualifying,
        }
