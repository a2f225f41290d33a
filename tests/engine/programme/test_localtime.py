"""The local day is what the calendar on the wall says, in every zone, through every change of clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.programme.localtime import DAY_MS, Calendar, calendar_of, zone_names
from schemas.events import OCCURRED_AT_MS_END

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Half-hour changes, a skipped day, a change at midnight, winter time as the exception, Ramadan, whole-day history.
ODD_ZONES = [
    "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo", "Europe/Dublin", "Africa/Casablanca",
    "Pacific/Kwajalein", "Asia/Gaza", "America/New_York", "Asia/Kathmandu", "UTC",
]  # fmt: skip


def day_on_the_wall(timezone: str, at_ms: int) -> int:
    with (files("tzdata") / "zoneinfo").joinpath(*timezone.split("/")).open("rb") as data:
        zone = ZoneInfo.from_file(data)
    return ((EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone).date() - date(1970, 1, 1)).days


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ODD_ZONES), st.integers(0, OCCURRED_AT_MS_END - 1))
def test_any_instant_falls_on_the_day_of_its_calendar(timezone: str, at_ms: int) -> None:
    assert calendar_of(timezone).local_day(at_ms) == day_on_the_wall(timezone, at_ms)


@pytest.mark.parametrize("timezone", ODD_ZONES)
def test_every_hour_of_years_with_changes_falls_on_the_day_of_its_calendar(timezone: str) -> None:
    local_day = calendar_of(timezone).local_day
    with (files("tzdata") / "zoneinfo").joinpath(*timezone.split("/")).open("rb") as data:
        zone = ZoneInfo.from_file(data)
    for first in (datetime(2011, 6, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)):
        for hour in range(2 * 365 * 24):
            at = first + timedelta(hours=hour)
            wanted = (at.astimezone(zone).date() - date(1970, 1, 1)).days
            assert local_day((at - EPOCH) // timedelta(milliseconds=1)) == wanted, at


@pytest.mark.parametrize("timezone", ["America/New_York", "Australia/Lord_Howe"])
def test_a_change_of_clocks_at_the_end_of_a_cached_span_counts(timezone: str) -> None:
    local_day = calendar_of(timezone).local_day
    with (files("tzdata") / "zoneinfo").joinpath(*timezone.split("/")).open("rb") as data:
        zone = ZoneInfo.from_file(data)
    for end_ms in range(1 << 35, 400 << 35, 1 << 35):
        for hour in range(1, 6 * 24):
            at = EPOCH + timedelta(milliseconds=end_ms) - timedelta(hours=hour)
            wanted = (at.astimezone(zone).date() - date(1970, 1, 1)).days
            assert local_day((at - EPOCH) // timedelta(milliseconds=1)) == wanted, at


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(ODD_ZONES), st.integers(401 * DAY_MS, OCCURRED_AT_MS_END - 1), st.integers(0, 400))
def test_a_steady_offset_tells_the_same_time_of_earlier_days(timezone: str, at_ms: int, days: int) -> None:
    calendar = Calendar(timezone)
    offset_ms, steady_ms, until_ms = calendar.offset_at(at_ms)
    assert at_ms + offset_ms == calendar.local_time(at_ms)
    assert steady_ms - DAY_MS // 2 <= at_ms < until_ms
    earlier_ms = at_ms - days * DAY_MS
    first_ms = calendar.instant_of(calendar.local_time(at_ms) - days * DAY_MS)
    assert earlier_ms < steady_ms or first_ms == earlier_ms
    assert calendar.instant_near(calendar.local_time(at_ms) - days * DAY_MS, offset_ms) == first_ms


def test_a_day_may_have_23_and_25_hours() -> None:
    local_day = calendar_of("America/New_York").local_day
    hours = [
        local_day((datetime(2024, month, day, tzinfo=UTC) + timedelta(hours=h) - EPOCH) // timedelta(milliseconds=1))
        for month, day in ((3, 10), (11, 3))
        for h in range(48)
    ]
    spring, autumn = (date(2024, m, d) - date(1970, 1, 1) for m, d in ((3, 10), (11, 3)))
    assert (hours.count(spring.days), hours.count(autumn.days)) == (23, 25)


def test_every_zone_can_be_loaded() -> None:
    assert len(zone_names()) > 500
    assert all(
        calendar_of(name).local_day(1_700_000_000_000) in (19_674, 19_675, 19_676) for name in sorted(zone_names())
    )


def test_a_zone_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        calendar_of("../../etc/passwd")
