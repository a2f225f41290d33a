"""Local days, weeks, months, quarters and years: contiguous, named once, and the same as PostgreSQL's."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from operations.report.periods import Every, begin_of, midnight, midnight_after, name_of, periods

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "Asia/Beirut"])
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  they get one


@given(st.sampled_from(list(Every)), ZONES, INSTANTS, st.timedeltas(timedelta(0), timedelta(days=90)))
def test_periods_follow_each_other_and_cover_the_time(
    every: Every, zone: str, since: datetime, length: timedelta
) -> None:
    found = periods(every, zone, since, since + length)
    assert all(one.end == next_.start for one, next_ in pairwise(found))
    assert len({period.name for period in found}) == len(found)
    if length:
        assert found[0].start <= since < found[0].end
        assert found[-1].start < since + length <= found[-1].end


def test_names_are_those_of_the_calendar() -> None:
    day = date(2026, 1, 1)
    names = [name_of(every, begin_of(every, day)) for every in Every]
    assert names == ["2026-01-01", "2026-W01", "2026-01", "2026-Q1", "2026"]
    assert name_of(Every.WEEK, begin_of(Every.WEEK, date(2027, 1, 1))) == "2026-W53"
    assert name_of(Every.QUARTER, begin_of(Every.QUARTER, date(2026, 12, 31))) == "2026-Q4"


def test_a_day_whose_midnight_the_clocks_skip_begins_at_its_first_instant() -> None:
    begun = midnight(date(2018, 11, 4), "America/Sao_Paulo")  # clocks went from 23:59:59 to 01:00
    assert begun.astimezone(ZoneInfo("America/Sao_Paulo")).isoformat() == "2018-11-04T01:00:00-02:00"


@given(ZONES, INSTANTS)
def test_the_midnight_after_an_instant_is_the_next_one_or_itself(zone: str, instant: datetime) -> None:
    after = midnight_after(instant, zone)
    assert instant <= after <= instant + timedelta(hours=49)  # Samoa once left out a whole day
    assert midnight_after(after, zone) == after
