"""Decide tiers: how each window counts, and when a level is reached, reviewed and lost.

A `TierClock` changes a member's `TierState` and says whether the level changed; `engine.ledger.ranks` writes the log.
A level is *earned* by the number over one period of the window; that number and period are the level's `Ground`.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from engine.member.windows import LATE_MS, Window, bounded
from engine.programme.conditions import Duration
from engine.programme.localtime import DAY_MS, DAY_ZERO
from engine.programme.terms import Downgrade, TierWindow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.tier_state import TierState
    from engine.programme.localtime import Calendar
    from engine.programme.terms import Level, Tiers

YEAR_MONTHS = 12
PERIODS_KEPT = 3
"""How many yearly periods are kept: the running one, the last one, and one more for late events."""

UNEARNED = -(1 << 45)
"""Stands for the period of a level that no number earned: brought from elsewhere, or left by a fall of one level."""


class Ground(NamedTuple):
    """Hold the number that earns a level, and the period of the window over which it was counted."""

    number: int
    period: int


class When(NamedTuple):
    """Say at which instant a level changes, and how far the member's time has come; ms since 1970 UTC."""

    at_ms: int
    clock_ms: int


class TierReport(NamedTuple):
    """Report a member's level; times in ms since 1970 UTC, numbers in the metric's unit."""

    tier: str
    since_ms: int | None
    until_ms: int | None
    qualifying: int
    next_tier: str | None
    to_next_tier: int | None


class Brought(NamedTuple):
    """Say how much of the number a level itself brought, by rules on tiers that give status."""

    rank: int
    amount: int
    at_ms: int


class TierClock:
    """Apply the tiers of one programme to members' tier states, by one calendar."""

    def __init__(self, tiers: Tiers, calendar: Calendar) -> None:
        self.tiers = tiers
        self._calendar = calendar
        self._ranks = {level.id: rank for rank, level in enumerate(tiers.levels)}

    def rank(self, tier_state: TierState | None) -> int:
        """Return the rank of a member's level; 0 is the lowest."""
        return 0 if tier_state is None else self._ranks.get(tier_state.level, 0)

    def level(self, tier_state: TierState) -> Level:
        """Return a member's level."""
        return self.tiers.levels[self.rank(tier_state)]

    def earned_by(self, number: int) -> int:
        """Return the rank of the highest level that a number reaches."""
        return max(0, bisect_right([level.start for level in self.tiers.levels], number) - 1)

    def period(self, tier_state: TierState, at_ms: int) -> int:
        """Return the number of the window's period that holds an instant; of a rolling window, the instant."""
        if self.tiers.window is TierWindow.LIFETIME:
            return 0
        if self.tiers.window is TierWindow.ROLLING:
            return at_ms
        if self.tiers.window is TierWindow.CALENDAR_YEAR:
            return self._local_year(at_ms)

        # the years since the anchor; the last may not be complete
        anchor_ms = tier_state.anchor_ms or 0
        if at_ms < anchor_ms:
            return -1
        years = self._local_year(at_ms) - self._local_year(anchor_ms)
        return years if self._anniversary(anchor_ms, years) <= at_ms else years - 1

    def end_of(self, tier_state: TierState, period: int) -> int | None:
        """Return the instant at which a period ends; None for a lifetime and for a rolling window."""
        if self.tiers.window is TierWindow.CALENDAR_YEAR:
            return self._calendar.instant_of((date(period + 1, 1, 1).toordinal() - DAY_ZERO) * DAY_MS)
        if self.tiers.window is TierWindow.ANNIVERSARY:
            return self._anniversary(tier_state.anchor_ms or 0, period + 1)
        return None

    def count(self, tier_state: TierState, amount: int, at_ms: int) -> None:
        """Add to the number as of an instant; a negative amount is subtracted."""
        # a rolling window keeps entries
        if self.tiers.over is not None:
            window = tier_state.window = tier_state.window or Window()
            keep_from_ms = self._calendar.before(at_ms, self.tiers.over) - LATE_MS
            if amount < 0:
                window.take(at_ms, -amount)
            else:
                window.enter(at_ms, amount, 1, keep_from_ms)
            return

        # other windows keep a sum for each period
        period = self.period(tier_state, at_ms)
        sums = tier_state.sums
        sums[period] = bounded(sums.get(period, 0) + amount)
        if len(sums) > PERIODS_KEPT:
            del sums[min(sums)]

    def number(self, tier_state: TierState, at_ms: int) -> int:
        """Return the number over the window that holds an instant; a rolling window ends at it."""
        if self.tiers.over is not None:
            since_ms = self._calendar.before(at_ms, self.tiers.over)
            return 0 if tier_state.window is None else bounded(tier_state.window.amount(since_ms, at_ms))
        return tier_state.sums.get(self.period(tier_state, at_ms), 0)

    def counts_in(self, tier_state: TierState, at_ms: int) -> bool:
        """Whether an instant lies in the window of the number that earned the level."""
        if tier_state.earned == UNEARNED:
            return False
        if self.tiers.over is None:
            return self.period(tier_state, at_ms) == tier_state.earned
        return self._calendar.before(tier_state.earned, self.tiers.over) < at_ms <= tier_state.earned

    def rise(self, tier_state: TierState, at_ms: int, clock_ms: int) -> bool:
        """Raise the level to the one that the number reaches, and return whether that changed it.

        Args:
            tier_state: the tier state of the member, changed in place.
            at_ms: the instant of the amount counted, which may be late.
            clock_ms: how far the member's time has come.
        """
        # a late event counts in its own window: the larger number decides
        number, period_ms = max((self.number(tier_state, each_ms), each_ms) for each_ms in (at_ms, clock_ms))
        rank = self.earned_by(number)
        if rank > self.rank(tier_state):
            ground = Ground(number, self.period(tier_state, period_ms))
            self._settle(tier_state, rank, ground, When(at_ms, clock_ms))
            return True

        # the added amount may keep the level for longer
        if self.tiers.over is not None:
            self.schedule(tier_state, clock_ms)
        return False

    def bring(self, tier_state: TierState, level: str, at_ms: int) -> bool:
        """Give a level that no number earned, until its review, and return whether that changed it."""
        rank = self._ranks[level]
        if rank == self.rank(tier_state):
            return False
        self._settle(tier_state, rank, Ground(self.number(tier_state, at_ms), UNEARNED), When(at_ms, at_ms))
        return True

    def grounded(self, tier_state: TierState, clock_ms: int, brought: Sequence[Brought]) -> int:
        """Return the rank of the highest level, up to the present one, that is earned without its own rewards.

        A level that no number earned stays until its review.
        """
        present = self.rank(tier_state)
        if tier_state.earned == UNEARNED:
            return present
        grounded = (
            rank
            for rank in range(present, 0, -1)
            if self._ground(tier_state, rank, clock_ms, brought).number >= self.tiers.levels[rank].start
        )
        return next(grounded, 0)

    def lower(self, tier_state: TierState, at_ms: int, clock_ms: int, brought: Sequence[Brought]) -> bool:
        """After a refund, lower a level at once where it is no longer earned, and return whether it changed.

        Args:
            tier_state: the tier state of the member, changed in place.
            at_ms: the instant of the refund.
            clock_ms: how far the member's time has come.
            brought: the rewards of the levels that were reached.
        """
        rank = self.grounded(tier_state, clock_ms, brought)
        if rank < self.rank(tier_state):
            ground = self._ground(tier_state, rank, clock_ms, brought)
            self._settle(tier_state, rank, ground, When(at_ms, clock_ms))
            return True

        # the level stays, perhaps on another number, and may have to be reviewed earlier
        if tier_state.earned != UNEARNED and tier_state.number < self.level(tier_state).start:
            tier_state.number, tier_state.earned = self._ground(tier_state, rank, clock_ms, brought)
        self.schedule(tier_state, clock_ms)
        return False

    def _ground(self, tier_state: TierState, rank: int, clock_ms: int, brought: Sequence[Brought]) -> Ground:
        """Return the best ground of a level: the number that earned the present level, or the current number.

        Both leave out the rewards of the level itself and of higher ones. The number that earned the present level
        was reached before that level brought anything.
        """
        present = self.rank(tier_state)
        earned = tier_state.number - sum(each.amount for each in brought if rank <= each.rank < present)
        current = self.number(tier_state, clock_ms) - sum(
            each.amount for each in brought if each.rank >= rank and self._is_counted(tier_state, each.at_ms, clock_ms)
        )
        return max(Ground(earned, tier_state.earned), Ground(current, self.period(tier_state, clock_ms)))

    def _is_counted(self, tier_state: TierState, counted_ms: int, at_ms: int) -> bool:
        """Whether an amount counted at one instant is in the window of another."""
        if self.tiers.over is None:
            return self.period(tier_state, counted_ms) == self.period(tier_state, at_ms)
        return self._calendar.before(at_ms, self.tiers.over) < counted_ms <= at_ms

    def review(self, tier_state: TierState, at_ms: int) -> bool:
        """Review a level at the end of its window, or of its grace, and return whether that changed it."""
        # the number of the period that ended decides; at the end of a grace, that of the running period, too
        ended = tier_state.ended if tier_state.in_grace else self.period(tier_state, at_ms - 1)
        current = Ground(self.number(tier_state, at_ms), self.period(tier_state, at_ms))
        best = Ground(self._of_period(tier_state, ended, at_ms), ended)
        if tier_state.in_grace:
            best = max(best, current)

        # earned again: it stays
        if best.number >= self.level(tier_state).start:
            (tier_state.number, tier_state.earned), tier_state.in_grace = best, False
            self.schedule(tier_state, at_ms)
            return False

        # not earned: it stays for the grace, if there is one
        if self.tiers.grace is not None and not tier_state.in_grace:
            tier_state.in_grace, tier_state.ended = True, ended
            tier_state.review_ms = self._calendar.after(at_ms, self.tiers.grace)
            return False

        # it falls to the level that the better number earns, or by one level at most
        best = max(best, current)
        rank = self.earned_by(best.number)
        if self.tiers.downgrade is Downgrade.ONE_DOWN and rank < self.rank(tier_state) - 1:
            rank = self.rank(tier_state) - 1
            best = Ground(best.number, UNEARNED)
        self._settle(tier_state, rank, best, When(at_ms, at_ms))
        if tier_state.review_ms == at_ms:  # it fell one level, and its sum is below the next one, too
            tier_state.review_ms = self._falls_further_at(tier_state, at_ms)
        return True

    def schedule(self, tier_state: TierState, at_ms: int) -> None:
        """Set when the level is reviewed next; a grace that has begun goes on."""
        if self.rank(tier_state) == 0 or self.tiers.downgrade is Downgrade.NEVER:
            tier_state.review_ms, tier_state.in_grace = None, False
        elif not tier_state.in_grace:
            tier_state.review_ms = self._next_review(tier_state, at_ms)

    def report(self, tier_state: TierState | None, at_ms: int, first_ms: int | None) -> TierReport:
        """Return the report on a member's level as of an instant; the lowest level begins with the first event."""
        rank = self.rank(tier_state)
        number = 0 if tier_state is None else self.number(tier_state, at_ms)
        since_ms = first_ms if tier_state is None or tier_state.since_ms is None else tier_state.since_ms
        following = self.tiers.levels[rank + 1] if rank + 1 < len(self.tiers.levels) else None
        return TierReport(
            tier=self.tiers.levels[rank].id,
            since_ms=since_ms,
            until_ms=None if tier_state is None else self._until(tier_state, at_ms),
            qualifying=number,
            next_tier=None if following is None else following.id,
            to_next_tier=None if following is None else bounded(max(0, following.start - number)),
        )

    def _settle(self, tier_state: TierState, rank: int, ground: Ground, when: When) -> None:
        """Set the level with its ground, since when the member has it, and the next review."""
        tier_state.level, tier_state.since_ms, tier_state.in_grace = self.tiers.levels[rank].id, when.at_ms, False
        tier_state.number, tier_state.earned = ground
        tier_state.changes += 1
        self.schedule(tier_state, when.clock_ms)

    def _of_period(self, tier_state: TierState, period: int, at_ms: int) -> int:
        if self.tiers.over is not None:
            return self.number(tier_state, at_ms)
        return tier_state.sums.get(period, 0)

    def _next_review(self, tier_state: TierState, at_ms: int) -> int | None:
        if self.tiers.over is None:
            return self.end_of(tier_state, self.period(tier_state, at_ms))

        # no number earned the level, so none decides when it falls: a review that is set stays
        if tier_state.earned == UNEARNED and self.number(tier_state, at_ms) < self.level(tier_state).start:
            set_ms = tier_state.review_ms
            return set_ms if set_ms is not None and set_ms > at_ms else self._falls_further_at(tier_state, at_ms)

        return self._falls_at(tier_state, at_ms)

    def _until(self, tier_state: TierState, at_ms: int) -> int | None:
        """Return the earliest instant at which the level could be lost: a review, or the end of the grace after it."""
        if tier_state.review_ms is None or tier_state.in_grace:
            return tier_state.review_ms

        # a level already earned in the running period is kept for another one
        ends_ms: int | None = tier_state.review_ms
        if self.tiers.over is None and self.number(tier_state, at_ms) >= self.level(tier_state).start:
            ends_ms = self.end_of(tier_state, self.period(tier_state, at_ms) + 1)
        if ends_ms is None or self.tiers.grace is None:
            return ends_ms
        return self._calendar.after(ends_ms, self.tiers.grace)

    def _falls_at(self, tier_state: TierState, at_ms: int) -> int | None:
        """Return when a rolling number falls below the level if nothing is added; now if it is below already.

        None: it never does, as the level needs nothing.
        """
        window, over = tier_state.window, self.tiers.over
        start = self.level(tier_state).start
        if window is None or over is None:
            return at_ms

        # the sum over the window that ends now
        first = bisect_right(window.instants, self._calendar.before(at_ms, over))
        end = bisect_right(window.instants, at_ms)
        left = sum(window.amounts[first:end])
        if left < start:
            return at_ms

        # let entries leave it one by one, the earliest first
        for index in range(first, end):
            left -= window.amounts[index]
            if left < start:
                return self._leaves(window.instants[index], over)
        return None

    def _falls_further_at(self, tier_state: TierState, at_ms: int) -> int | None:
        """Return when a rolling number that is below the level falls further; one window later if it is empty."""
        window, over = tier_state.window, self.tiers.over
        if over is None:
            return None
        instants = [] if window is None else window.instants
        first = bisect_right(instants, self._calendar.before(at_ms, over))
        if first < len(instants):
            return self._leaves(instants[first], over)
        return self._calendar.after(at_ms, over)

    def _leaves(self, entry_ms: int, over: Duration) -> int:
        """Return when an entry leaves the rolling window.

        Months are clamped to their end, so the windows of several days may begin on the same day. If the entry is still
        inside after the length of the window, it leaves at one of the next midnights.
        """
        at_ms = self._calendar.after(entry_ms, over)
        day = self._calendar.local_day(at_ms)
        while self._calendar.before(at_ms, over) < entry_ms:
            day += 1
            at_ms = self._calendar.instant_of(day * DAY_MS)
        return at_ms

    def _local_year(self, at_ms: int) -> int:
        return date.fromordinal(self._calendar.local_day(at_ms) + DAY_ZERO).year

    def _anniversary(self, anchor_ms: int, years: int) -> int:
        return anchor_ms if years <= 0 else self._calendar.after(anchor_ms, Duration(months=YEAR_MONTHS * years))
