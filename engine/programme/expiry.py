"""Say when points lapse: so long after their release, rounded up to a local boundary."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from engine.programme.localtime import DAY_MS, DAY_ZERO
from engine.programme.terms import RoundExpiry

if TYPE_CHECKING:
    from engine.programme.conditions import Duration
    from engine.programme.localtime import Calendar


@dataclass(frozen=True, slots=True)
class Expiry:
    """Compute the instant at which points are gone; called from generated code."""

    calendar: Calendar
    validity: Duration
    rounding: RoundExpiry

    def __call__(self, available_ms: int) -> int:
        """Return the instant for points that are released at `available_ms`."""
        at_ms = self.calendar.after(available_ms, self.validity)
        if self.rounding is RoundExpiry.NONE:
            return at_ms
        return self._rounded(at_ms)

    def _rounded(self, at_ms: int) -> int:
        """Return the first local midnight, of a month or a year where it says so, at or after an instant."""
        day = self.calendar.local_day(at_ms)
        start_ms = self._midnight(day)
        if start_ms == at_ms and self._begins(day):
            return at_ms
        day += 1
        if self.rounding is not RoundExpiry.DAY:
            found = date.fromordinal(day - 1 + DAY_ZERO)
            is_year = self.rounding is RoundExpiry.YEAR
            following = (
                date(found.year + 1, 1, 1) if is_year or found.month == 12 else date(found.year, found.month + 1, 1)
            )
            day = following.toordinal() - DAY_ZERO
        return self._midnight(day)

    def _begins(self, day: int) -> bool:
        found = date.fromordinal(day + DAY_ZERO)
        if self.rounding is RoundExpiry.DAY:
            return True
        return found.day == 1 and (self.rounding is RoundExpiry.MONTH or found.month == 1)

    def _midnight(self, day: int) -> int:
        return self.calendar.instant_of(day * DAY_MS)
