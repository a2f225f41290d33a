"""Find the local day of an instant, and the month of a day, as PostgreSQL's type date counts: in days since 2000."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

NO_DAY = -(2**31)
"""Stands for no day: -infinity, as PostgreSQL packs it."""

HOUR_US = 3_600_000_000
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST = date(2000, 1, 1).toordinal()


class Days:
    """Find local days of a zone, of most instants without asking the zone.

    Args:
        zone: as the time-zone database names it.
    """

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self._of_hour: dict[int, int | None] = {}
        """The day of each hour of UTC that was asked for; None: midnight lies within that hour."""

    def __call__(self, at_us: int) -> int:
        """Return the local day of an instant in microseconds since 2000."""
        hour = at_us // HOUR_US
        try:
            day = self._of_hour[hour]
        except KeyError:
            first, last = self._day(hour * HOUR_US), self._day((hour + 1) * HOUR_US - 1)
            day = self._of_hour[hour] = first if first == last else None
        return self._day(at_us) if day is None else day

    def is_midnight(self, at_us: int) -> bool:
        """Whether a local day begins at this instant."""
        return not at_us % 1_000_000 and self(at_us - 1) != self(at_us)

    def _day(self, at_us: int) -> int:
        local = (_EPOCH + timedelta(microseconds=at_us)).astimezone(self.zone)
        return local.toordinal() - _FIRST


def date_of(day: int) -> date:
    """Return the date of a day."""
    return date.fromordinal(day + _FIRST)


class _Months(dict[int, int]):
    """Hold the first day of the month of each day that was asked for."""

    def __missing__(self, day: int) -> int:
        first = self[day] = date_of(day).replace(day=1).toordinal() - _FIRST
        return first


month_of = _Months().__getitem__
"""Return the first day of the month of a day."""
