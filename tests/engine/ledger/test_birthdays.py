"""A birthday that becomes known on its own local day counts at once; a member has one in a calendar year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given as given_by
from hypothesis import settings
from hypothesis import strategies as st

from engine.programme.localtime import calendar_of, yearly_day
from schemas.scalars import instant_from_iso
from tests.engine.in_memory import HEAD, Document, event, given, judged

CAKES = (
    "rules:\n- {id: cake, on: birthday, give: [{gift: cake}]}\n- {id: back, on: anniversary, give: [{gift: rose}]}\n"
)
END = "2029-12-31T23:00:00Z"


def days(document: Document, item: str) -> list[str]:
    """Return when a gift was given to ann."""
    return [row["occurred_at"] for row in given(document, "ann", "gift.awarded") if row["item"] == item]


def with_birthday(number: int, at: str, birthday: str | None, kind: str = "profile", **fields: Any) -> dict[str, Any]:
    """Return a signup or a profile of ann's with a birthday, or without one."""
    return event(number, kind, "ann", at, **fields) | ({} if birthday is None else {"birthday": birthday})


@pytest.mark.parametrize(
    ("timezone", "at", "birthday", "first"),
    [
        ("UTC", "2026-05-10T00:00:00Z", "--05-10", "2026-05-10T00:00:00Z"),
        ("UTC", "2026-05-10T23:59:59Z", "1990-05-10", "2026-05-10T23:59:59Z"),
        ("UTC", "2026-05-11T00:00:00Z", "--05-10", "2027-05-10T00:00:00Z"),
        ("UTC", "2026-05-09T23:59:59Z", "--05-10", "2026-05-10T00:00:00Z"),
        ("Asia/Shanghai", "2026-05-09T16:00:00Z", "--05-10", "2026-05-09T16:00:00Z"),
        ("Asia/Shanghai", "2026-05-10T16:00:00Z", "--05-10", "2027-05-09T16:00:00Z"),
        ("America/New_York", "2026-05-11T03:59:00Z", "--05-10", "2026-05-11T03:59:00Z"),
        ("UTC", "2026-02-28T10:00:00Z", "2000-02-29", "2026-02-28T10:00:00Z"),
        ("UTC", "2028-02-28T10:00:00Z", "2000-02-29", "2028-02-29T00:00:00Z"),
        ("UTC", "2026-12-31T12:00:00Z", "--12-31", "2026-12-31T12:00:00Z"),
    ],
)
@pytest.mark.parametrize("kind", ["signup", "profile"])
def test_the_day_on_which_it_becomes_known_counts(kind: str, timezone: str, at: str, birthday: str, first: str) -> None:
    document = judged(CAKES, [with_birthday(1, at, birthday, kind)], END, timezone=timezone)
    assert days(document, "cake")[0] == first


def test_it_is_judged_behind_the_event_that_tells_it_and_as_a_day_of_its_own() -> None:
    rules = CAKES + "- {id: hello, on: signup, give: [{points: 1}]}\n- {id: gift, on: birthday, give: [{points: 2}]}\n"
    document = judged(rules, [with_birthday(1, "2026-05-10", "--05-10", "signup")])
    assert [row["rule_id"] for row in document["reward_events"]] == ["hello", "cake", "gift"]


def test_a_profile_that_tells_it_again_brings_none() -> None:
    events = [with_birthday(1, "2026-03-01", "--05-10", "signup"), with_birthday(2, "2026-05-10", "1990-05-10"),
              with_birthday(3, "2026-05-10T11:00:00Z", None, attributes={"city": "Oslo"})]  # fmt: skip
    assert days(judged(CAKES, events, "2026-12-31T00:00:00Z"), "cake") == ["2026-05-10T00:00:00Z"]


def test_a_profile_on_the_day_does_not_bring_what_an_older_version_did_not_give() -> None:
    """The birthday was known when the day began, under a version without rules on it; later profiles change nothing."""
    other = HEAD.format("UTC") + CAKES
    events = [
        with_birthday(1, "2026-03-01", "--05-10", "signup"),
        event(2, "activity", "ann", "2026-05-10T01:00:00Z", kind="login"),
        {"type": "activation", "programme": "second.yaml"},
        with_birthday(3, "2026-05-10T15:00:00Z", None, attributes={"city": "Oslo"}),
        with_birthday(4, "2026-05-10T16:00:00Z", "1990-05-10"),
    ]  # fmt: skip
    document = judged("rules: []\n", events, "2026-12-31T00:00:00Z", {"second.yaml": other})
    assert days(document, "cake") == []


def test_what_came_late_counts_from_its_own_day() -> None:
    """The signup of the 9th comes after an event of the 12th: the birthday of the 10th is celebrated at once."""
    events = [
        event(1, "activity", "ann", "2026-05-12", kind="login"),
        with_birthday(2, "2026-05-09", "--05-10", "signup"),
    ]
    assert days(judged(CAKES, events), "cake") == ["2026-05-10T00:00:00Z"]
    events = [event(1, "activity", "ann", "2027-06-01", kind="login"), with_birthday(2, "2026-05-01", None, "signup")]
    assert days(judged(CAKES, events), "rose") == ["2027-05-01T00:00:00Z"]


births = st.dates(date(1988, 1, 1), date(1988, 12, 31)).map(lambda day: f"--{day:%m-%d}") | st.sampled_from(
    ("--02-29", "2000-02-29", "--01-01", "--12-31")
)
zones = st.sampled_from(("UTC", "Asia/Shanghai", "America/New_York", "Pacific/Apia"))


@settings(max_examples=80, deadline=None)
@given_by(
    st.lists(st.tuples(births, st.integers(0, 900), st.booleans()), min_size=1, max_size=6),
    st.lists(zones, min_size=3, max_size=3),
)
def test_a_member_has_one_a_calendar_year_however_it_is_moved(
    moves: list[tuple[str, int, bool]], timezones: list[str]
) -> None:
    """Moved by signups and profiles, on the day, late or in order, and by versions of other time zones."""
    start = datetime(2026, 1, 1, 10, tzinfo=UTC)
    events: list[dict[str, Any]] = []
    others = {f"v{at}.yaml": HEAD.format(zone) + CAKES for at, zone in enumerate(timezones)}

    # a signup first, then profiles: every second on the birthday itself
    for at, (birthday, day, activates) in enumerate(moves):
        moment = start + timedelta(days=day)
        on_it = moment.replace(month=int(birthday[-5:-3]), day=min(28, int(birthday[-2:]))) if at % 2 else moment
        kind = "signup" if at == 0 else "profile"
        events.append(with_birthday(at, on_it.strftime("%Y-%m-%dT%H:%M:%SZ"), birthday, kind))
        if activates:
            events.append({"type": "activation", "programme": f"v{at % 3}.yaml"})

    document = judged(CAKES, events, END, others)

    # no celebration comes twice, and without another time zone each year has one at most
    cakes = given(document, "ann", "gift.awarded")
    keys = [row["reward_key"] for row in cakes]
    assert len(set(keys)) == len(keys)
    utc = calendar_of("UTC")
    for item in ("cake", "rose"):
        instants = sorted(instant_from_iso(at, "at") for at in days(document, item))
        assert all(later - sooner > 0 for sooner, later in pairwise(instants))
        if not any(activates for _, _, activates in moves):
            years = [date.fromordinal(utc.local_day(at) + date(1970, 1, 1).toordinal()).year for at in instants]
            assert len(set(years)) == len(years)


@settings(max_examples=60, deadline=None)
@given_by(births, st.integers(0, 1_000), st.integers(0, 86_399), zones)
def test_no_year_is_left_out_from_the_day_on_which_it_is_known(birthday: str, day: int, second: int, zone: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day, seconds=second)
    moment = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    document = judged(CAKES, [with_birthday(1, moment, birthday, "signup")], END, timezone=zone)
    calendar = calendar_of(zone)
    known_ms, until_ms = instant_from_iso(moment, "at"), instant_from_iso(END, "end")
    month, of_month = int(birthday[-5:-3]), int(birthday[-2:])
    first, last = (calendar.local_day(each) for each in (known_ms, until_ms))
    expected = [wanted for year in range(2025, 2031) if first <= (wanted := yearly_day(year, month, of_month)) <= last]
    assert [calendar.local_day(instant_from_iso(each, "at")) for each in days(document, "cake")] == expected
