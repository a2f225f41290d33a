"""Rules through days of 23 and 25 hours, skipped and repeated times, and months that end too soon, end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.evaluate import fold
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.rules.occurrence import Occurrence
from schemas.canonical import event_identity
from schemas.events import Activity
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.engine.books import NO_BOOKS
from tests.programme_text import written

if TYPE_CHECKING:
    from engine.programme.rules.judge import Judge
    from schemas.rewards import RewardEvent

NEW_YORK = "America/New_York"
ONCE = "{id: r, on: activity, give: [{points: 1}], limits: [{times: 1, per: member, every: %s}]}"


def rewards(timezone: str, rule: str, *instants: str, head: str = "") -> list[list[RewardEvent]]:
    """Return what one rule gives a member at each instant; both ways of judging must agree."""
    text = f"schema: guerdon/1\nprogramme: p\ntimezone: {timezone}\ncurrency: USD\n{head}\nrules:\n- {rule}\n"
    loaded = load_programme(text, "p.yaml")
    assert loaded.programme is not None, "\n".join(map(str, loaded.problems))
    judges: list[Judge] = [compile_programme(loaded.programme, 1), Interpreter(loaded.programme, 1)]
    by_judge: list[list[list[RewardEvent]]] = []
    for judge in judges:
        state = MemberState()
        by_judge.append([])
        for number, instant in enumerate(instants):
            at_ms = instant_from_iso(instant, "at")
            event = Activity(event_id=f"e{number}", member_id="m", occurred_at=at_ms, kind="login")
            occurrence = Occurrence(event_identity("default", event.event_id), number + 1, at_ms)
            by_judge[-1].append(list(fold(state, event, occurrence, judge, NO_BOOKS)))
    assert by_judge[0] == by_judge[1]
    return by_judge[0]


def points(timezone: str, rule: str, *instants: str, head: str = "") -> list[int]:
    return [
        sum(each.amount for each in of_one_event if each.posting.type == "points.granted")
        for of_one_event in rewards(timezone, rule, *instants, head=head)
    ]


@pytest.mark.parametrize(
    ("timezone", "first", "last", "next_"),
    [
        (NEW_YORK, "2026-03-08T05:00:00Z", "2026-03-09T03:59:59Z", "2026-03-09T04:00:00Z"),  # 23 hours
        (NEW_YORK, "2026-11-01T04:00:00Z", "2026-11-02T04:59:59Z", "2026-11-02T05:00:00Z"),  # 25 hours
        ("Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-05T13:29:59Z", "2026-04-05T13:30:00Z"),  # 24.5
        # Midnight itself is skipped: the day begins at 01:00, which is 03:00 in UTC.
        ("America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-05T01:59:59Z", "2018-11-05T02:00:00Z"),
        # Samoa left out 30 December 2011: after the 29th comes the 31st.
        ("Pacific/Apia", "2011-12-29T10:00:00Z", "2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z"),
    ],
)
def test_a_day_is_as_long_as_its_calendar_has_it(timezone: str, first: str, last: str, next_: str) -> None:
    assert points(timezone, ONCE % "day", first, last, next_) == [1, 0, 1]


def test_hours_are_exact_and_days_keep_the_time_on_the_wall() -> None:
    # From noon of the 7th to noon of the 8th are 23 hours, from noon of 31 October to noon of 1 November 25.
    spring = ("2026-03-07T17:00:00Z", "2026-03-08T15:59:59Z", "2026-03-08T16:00:00Z")
    autumn = ("2026-10-31T16:00:00Z", "2026-11-01T16:59:59Z", "2026-11-01T17:00:00Z")
    assert points(NEW_YORK, ONCE % "1d", *spring) == points(NEW_YORK, ONCE % "1d", *autumn) == [1, 0, 1]
    assert points(NEW_YORK, ONCE % "24h", *spring, "2026-03-08T17:00:00Z") == [1, 0, 0, 1]
    assert points(NEW_YORK, ONCE % "24h", *autumn[:2]) == [1, 1]


@pytest.mark.parametrize(
    ("window", "instants", "given"),
    [
        # Across midnight, over the hour that is skipped: 01:59:59, then 03:00:00.
        (
            "{from: 22:00, to: 03:00}",
            ["2026-03-08T06:59:59Z", "2026-03-08T07:00:00Z", "2026-03-09T02:00:00Z"],
            [1, 0, 1],
        ),
        # A window within the skipped hour does not come on that day, and comes on the next.
        (
            "{from: 02:15, to: 02:45}",
            ["2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z", "2026-03-09T06:30:00Z"],
            [0, 0, 1],
        ),
        # A window in the repeated hour comes twice.
        (
            "{from: 01:15, to: 01:45}",
            ["2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:30:00Z"],
            [1, 0, 1],
        ),
        (
            "{from: 23:00, to: 01:30}",
            ["2026-11-01T03:00:00Z", "2026-11-01T05:29:59Z", "2026-11-01T05:30:00Z", "2026-11-01T06:29:59Z"],
            [1, 1, 0, 1],
        ),
    ],
)
def test_a_clock_window_follows_the_wall(window: str, instants: list[str], given: list[int]) -> None:
    rule = written("{id: r, on: activity, when: {time.clock: $window}, give: [{points: 1}]}", window=window)
    assert points(NEW_YORK, rule, *instants) == given


@pytest.mark.parametrize(
    ("lasts", "at", "until"),
    [
        ("1mo", "2026-01-31T17:00:00Z", "2026-02-28T17:00:00Z"),
        ("1mo", "2024-01-31T17:00:00Z", "2024-02-29T17:00:00Z"),
        ("1y", "2024-02-29T17:00:00Z", "2025-02-28T17:00:00Z"),
        ("3mo", "2025-11-30T17:00:00Z", "2026-02-28T17:00:00Z"),
        ("1mo", "2026-02-28T17:00:00Z", "2026-03-28T16:00:00Z"),
        # 02:30 of 8 March is skipped: 03:30. 01:30 of 1 November comes twice: the first.
        ("1d", "2026-03-07T07:30:00Z", "2026-03-08T07:30:00Z"),
        ("1mo", "2026-02-08T07:30:00Z", "2026-03-08T07:30:00Z"),
        ("1w", "2026-10-25T05:30:00Z", "2026-11-01T05:30:00Z"),
        ("1d", "2026-10-31T05:30:00Z", "2026-11-01T05:30:00Z"),
        # From the second 01:30 on, a day later is 01:30, and two hours are two hours.
        ("1d", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"),
        ("2h", "2026-11-01T05:30:00Z", "2026-11-01T07:30:00Z"),
    ],
)
def test_what_is_given_ends_by_the_calendar(lasts: str, at: str, until: str) -> None:
    rule = written("{id: r, on: activity, give: [{benefit: {id: vip, for: $lasts}}]}", lasts=lasts)
    ((benefit,),) = rewards(NEW_YORK, rule, at)
    assert iso_from_instant(benefit.expires_at_ms or 0) == until


def test_a_benefit_is_held_until_the_clamped_end_of_the_month() -> None:
    rule = "{id: r, on: activity, when: {member.held.vip: false}, give: [{points: 1}, {benefit: {id: vip, for: 1mo}}]}"
    instants = ("2026-01-31T17:00:00Z", "2026-02-28T16:59:59Z", "2026-02-28T17:00:00Z", "2026-03-28T15:59:59Z")
    assert points(NEW_YORK, rule, *instants, "2026-03-28T16:00:00Z") == [1, 0, 1, 0, 1]


def test_a_rolling_month_looks_back_to_the_end_of_a_shorter_one() -> None:
    head = "metrics: {n: {count: activity, over: 1mo}}"
    rule = "{id: r, on: activity, when: {history.n: {gte: 1}}, give: [{points: 1}]}"
    # A month before 31 March is 28 February, itself outside of the window.
    assert points("UTC", rule, "2026-02-28T12:00:00Z", "2026-03-31T12:00:00Z", head=head) == [0, 0]
    assert points("UTC", rule, "2026-02-28T12:00:00.001Z", "2026-03-31T12:00:00Z", head=head) == [0, 1]


def test_a_streak_goes_on_over_days_of_any_length() -> None:
    head = "metrics: {days: {streak: activity, unit: day}}"
    rule = "{id: r, on: activity, when: {history.days: {gte: 3}}, give: [{points: 1}]}"
    spring = ("2026-03-07T05:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", "2026-03-10T04:00:00Z")
    autumn = ("2026-10-31T04:00:00Z", "2026-11-02T04:59:59Z", "2026-11-02T05:00:00Z", "2026-11-03T05:00:00Z")
    assert points(NEW_YORK, rule, *spring, head=head) == [0, 0, 0, 1]
    assert points(NEW_YORK, rule, *autumn, head=head) == [0, 0, 0, 1]


def test_a_challenge_slides_by_days_on_the_wall() -> None:
    rule = "{id: r, on: activity, challenge: {count: 2, within: 1d}, give: [{points: 1}]}"
    assert points(NEW_YORK, rule, "2026-03-07T17:00:00Z", "2026-03-08T15:59:59Z") == [0, 1]
    assert points(NEW_YORK, rule, "2026-03-07T17:00:00Z", "2026-03-08T16:00:00Z") == [0, 0]
    assert points(NEW_YORK, rule, "2026-10-31T16:00:00Z", "2026-11-01T16:59:59Z") == [0, 1]


@pytest.mark.parametrize(
    ("timezone", "day", "before", "first"),
    [
        (NEW_YORK, "2026-03-09", "2026-03-09T03:59:59Z", "2026-03-09T04:00:00Z"),
        (NEW_YORK, "2026-11-02", "2026-11-02T04:59:59Z", "2026-11-02T05:00:00Z"),
        # The midnight that is skipped moves on by the gap, to 01:00; the one that comes twice is the first.
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T02:59:59Z", "2018-11-04T03:00:00Z"),
        ("America/Havana", "2026-11-01", "2026-11-01T03:59:59Z", "2026-11-01T04:00:00Z"),
    ],
)
def test_an_active_window_begins_at_local_midnight(timezone: str, day: str, before: str, first: str) -> None:
    rule = written("{id: r, on: activity, active: {from: $day}, give: [{points: 1}]}", day=day)
    assert points(timezone, rule, before, first) == [0, 1]
    until = written("{id: r, on: activity, active: {until: $day}, give: [{points: 1}]}", day=day)
    assert points(timezone, until, before, first) == [1, 0]
