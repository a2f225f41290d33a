"""Compute when points lapse: a length of time after their release, rounded up to the end of a day, month or year."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
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
        """Return the instant at which points released at `available_ms` lapse."""
        at_ms = self.calendar.after(available_ms, self.validity)
        if self.rounding is RoundExpiry.NONE:
            return at_ms
        return self._rounded(at_ms)

    def _rounded(self, at_ms: int) -> int:
        """Return the end of the local day, month or year of an instant, which is the midnight that begins the next."""
        on = date.fromordinal(self.calendar.local_day(at_ms) + DAY_ZERO)
        if self.rounding is RoundExpiry.DAY:
            following = on + timedelta(days=1)
        elif self.rounding is RoundExpiry.YEAR or on.month == 12:
            following = date(on.year + 1, 1, 1)
        else:
            following = date(on.year, on.month + 1, 1)
        return self.calendar.instant_of((following.toordinal() - DAY_ZERO) * DAY_MS)
