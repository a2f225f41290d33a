"""Limits and late events: what was used stays known for `refunds.window`, then nothing is given, and it says so."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec import msgpack

import engine.member.state
import engine.programme.rules.limits
from engine.explain.event import Explainer
from engine.member.state import is_full, turn_page
from engine.programme.compile.module import compile_programme
from engine.programme.conditions import Duration
from engine.programme.file.load import load_programme
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.localtime import calendar_of
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from schemas.events import Purchase, Refund
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.models.limits import (
    DAY_MS,
    GIVE,
    HOUR_MS,
    PERS,
    START_MS,
    STEPS,
    TIMEZONE,
    Given,
    Member,
    Oracle,
    Step,
    bought,
    events_of,
    limits,
    loaded,
    outcome,
)
from tests.programme_text import written


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few uses fill a page, and few values crowd each other out."""
    monkeypatch.setattr(engine.member.state, "USES_MAX", 2)
    monkeypatch.setattr(engine.programme.rules.limits, "VALUES_MAX", 2)


@settings(max_examples=150, deadline=None)
@given(limits(), st.sampled_from(["3d", "30d", "1mo", "40h"]), STEPS)
def test_what_is_given_is_what_all_that_was_ever_given_allows(texts: list[str], window: str, steps: list[Step]) -> None:
    programme = loaded(texts, window)
    oracle = Oracle(programme)
    members = [
        Member(compile_programme(programme, 1)),
        Member(Interpreter(programme, 1)),
        Member(Interpreter(programme, 1), is_paging=False),
    ]

    # all ways of judging and keeping give the same, and what the oracle gives
    for each in events_of(steps):
        first, *others = [member.take(each) for member in members]
        assert others == [first, first]
        if isinstance(each, Purchase):
            assert outcome(first) == oracle.buy(each)
            event(", ".join(sorted({str(reason) for _, reason in outcome(first)})))
        else:
            taken = sum(reward.amount for reward in first if reward.posting.type == "points.reversed")
            if taken:
                oracle.take_back(each.order_id, taken)

        oracle.clock_ms = max(oracle.clock_ms, each.occurred_at)
        oracle.assert_nothing_is_over()
    assert members[0].state == members[1].state


@settings(max_examples=120, deadline=None)
@given(limits(PERS[1:]), st.sampled_from(["1d", "60d"]), STEPS, st.integers(0, 20))
def test_nothing_is_forgotten_of_events_in_order(texts: list[str], window: str, steps: list[Step], change: int) -> None:
    """Events in order do not depend on how long uses are kept, even if that changes in between."""
    programmes = [loaded(texts, window), loaded(texts, "2d")]
    judges = [compile_programme(each, version) for version, each in enumerate(programmes, 1)]
    oracle, member = Oracle(programmes[0]), Member(judges[0])
    in_order = sorted((step for step in steps if step.returned is None), key=lambda step: step.hour)
    for number, each in enumerate(events_of(in_order)):
        assert isinstance(each, Purchase)
        if number == change:
            member.activate(judges[1])
        assert outcome(member.take(each)) == oracle.buy(each)
    assert not any(before.hour > after.hour for before, after in pairwise(in_order))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["max: 7", "times: 1"]), st.sampled_from(["day", "week", "month", "24h", "2d"]), STEPS,
    st.lists(st.tuples(st.integers(0, 21), st.sampled_from(["1d", "5d", "90d", "1mo"])), max_size=3),
)  # fmt: skip
def test_a_longer_window_brings_nothing_back(
    cap: str, every: str, steps: list[Step], changes: list[tuple[int, str]]
) -> None:
    """No period gets more than its cap, however long the versions keep uses."""
    text = written("{$cap, per: member, every: $every}", cap=cap, every=every)
    programme = loaded([text], "5d")
    oracle, member = Oracle(programme), Member(compile_programme(programme, 1))

    for number, each in enumerate(events_of(steps)):
        for version, (at, window) in enumerate(changes, 2):
            if at == number:
                member.activate(compile_programme(loaded([text], window), version))

        # the oracle only adds up what was given
        rewards = member.take(each)
        for reward in rewards:
            if reward.posting.type == "points.granted":
                assert isinstance(each, Purchase)
                oracle.given[each.order_id] = Given(each.occurred_at, each.store, reward.amount)
            elif reward.posting.type == "points.reversed":
                oracle.take_back(reward.order_id or "", reward.amount)
        oracle.assert_nothing_is_over()


A_DAY = "{max: 10, per: member, every: 24h}"


def compiled(*texts: str, window: str = "30d", give: str = GIVE) -> Member:
    return Member(compile_programme(loaded(list(texts), window, give), 1))


def interpreted(*texts: str, window: str = "30d", give: str = GIVE) -> Member:
    return Member(Interpreter(loaded(list(texts), window, give), 1))


BOTH = pytest.mark.parametrize("member_of", [compiled, interpreted])


@BOTH
@pytest.mark.parametrize("every", ["lifetime", "year", "10d"])
def test_a_value_that_made_room_for_others_is_remembered(member_of: Any, every: str) -> None:
    member = member_of(written("{times: 1, per: [member, purchase.store], every: $every}", every=every))
    stores = [f"s{n}" for n in range(30)]
    for n, store in enumerate(stores * 2):
        assert member.buy(f"2024-02-01T10:{n:02}:00Z", 5, store=store) == [(5, None if n < 30 else "limit_times")]


@BOTH
def test_a_late_use_of_a_rolling_limit_drops_no_other(member_of: Any) -> None:
    member = member_of(A_DAY)
    assert member.buy("2024-02-01T10:00:00Z", 10) == [(10, None)]
    assert member.buy("2024-02-20T10:00:00Z", 1) == [(1, None)]
    assert member.buy("2024-02-06T10:00:00Z", 1) == [(1, None)]
    assert member.buy("2024-02-01T11:00:00Z", 1) == [(1, "limit_max")]


@BOTH
def test_a_late_event_counts_in_every_window_that_it_lies_in(member_of: Any) -> None:
    """Ten within the 24 hours that end at ten o'clock stay ten, whichever order comes first."""
    member = member_of(A_DAY)
    assert member.buy("2024-02-02T10:00:00Z", 8) == [(8, None)]
    assert member.buy("2024-02-02T09:00:00Z", 8) == [(2, None), (6, "limit_max")]
    assert member.buy("2024-02-01T10:00:00Z", 8) == [(8, None)]


@BOTH
def test_a_late_use_can_be_given_back(member_of: Any) -> None:
    member = member_of(A_DAY)
    member.buy("2024-02-01T08:00:00Z", 4)
    member.buy("2024-02-03T08:00:00Z", 4)
    assert member.buy("2024-02-01T07:00:00Z", 4) == [(4, None)]
    member.take(Refund(event_id="r", member_id="m", occurred_at=member.state.clock_ms, order_id="o3", refund_id="r"))
    assert member.buy("2024-02-01T06:00:00Z", 7) == [(6, None), (1, "limit_max")]


@BOTH
def test_a_refund_in_a_forgotten_period_changes_nothing_of_others(member_of: Any) -> None:
    """The window for refunds is 30 days and 7 more for late ones; the use of a day is forgotten after 30."""
    for every in ("day", "24h"):
        member = member_of(written("{max: 10, per: member, every: $every}", every=every))
        member.buy("2024-02-01T08:00:00Z", 4)
        member.buy("2024-02-01T09:00:00Z", 4)
        member.buy("2024-03-04T08:00:00Z", 10)
        refund_ms = instant_from_iso("2024-03-01T08:00:00Z", "at")
        rewards = member.take(Refund(event_id="r", member_id="m", occurred_at=refund_ms, order_id="o1", refund_id="r"))
        assert [(each.posting.type, each.amount) for each in rewards] == [("points.reversed", 4)]
        assert member.buy("2024-02-01T08:30:00Z", 1) == [(1, "limit_forgotten")]
        assert member.buy("2024-03-04T09:00:00Z", 1) == [(1, "limit_max")]


@BOTH
@pytest.mark.parametrize(
    ("every", "known", "clock"),
    [
        ("day", "2024-02-01T05:00:00Z", "2024-03-03T05:00:00Z"),
        ("week", "2024-02-04T23:00:00Z", "2024-03-06T05:00:00Z"),
        ("month", "2024-02-01T05:00:00Z", "2024-03-31T04:00:00Z"),
        ("24h", "2024-02-01T05:00:00Z", "2024-03-02T05:00:00Z"),
        ("10d", "2024-02-01T05:00:00Z", "2024-03-02T05:00:00Z"),
    ],
)
def test_a_use_is_known_for_the_window_of_refunds_after_its_period(
    member_of: Any, every: str, known: str, clock: str
) -> None:
    """Uses are kept to the millisecond: 30 days after the end of the period, or after the event in a rolling window."""
    limit = written("{max: 10, per: member, every: $every}", every=every)
    member = member_of(limit)
    member.buy(clock, 1)
    assert member.buy(known, 3) == [(3, None)]
    later = member_of(limit)
    later.buy(clock.replace("00Z", "00.001Z"), 1)
    assert later.buy(known, 3) == [(3, "limit_forgotten")]


@BOTH
def test_gives_that_no_forgotten_limit_binds_go_on(member_of: Any) -> None:
    """A forgotten `max` refuses its own unit only, a forgotten `times` everything; what counts for life is known."""
    give = "[{points: 60}, {cash: {amount: 3.00}}]"
    capped = member_of("{max: 100, unit: points, per: member, every: day}", "{times: 2, per: member}", give=give)
    capped.buy("2024-06-01T08:00:00Z", 1)
    assert capped.buy("2024-02-01T08:00:00Z", 1) == [(60, "limit_forgotten"), (300, None)]
    assert capped.buy("2024-02-01T08:00:00Z", 1) == [(60, "limit_times"), (300, "limit_times")]
    timed = member_of("{times: 2, per: member, every: day}", give=give)
    timed.buy("2024-06-01T08:00:00Z", 1)
    assert timed.buy("2024-02-01T08:00:00Z", 1) == [(60, "limit_forgotten"), (300, "limit_forgotten")]


def test_a_limit_of_a_new_version_counts_from_its_activation() -> None:
    """Late events of a period before it share the cap, with nothing of what the version before had given."""
    member = Member(compile_programme(loaded(["{max: 100, per: member, every: day}"]), 1))
    member.buy("2024-02-01T08:00:00Z", 50)
    member.buy("2024-02-10T08:00:00Z", 1)
    member.activate(compile_programme(loaded(["{max: 10, per: member, every: month}"]), 2))
    assert member.buy("2024-02-01T09:00:00Z", 7) == [(7, None)]
    assert member.buy("2024-02-01T10:00:00Z", 7) == [(3, None), (4, "limit_max")]
    member.activate(compile_programme(loaded(["{max: 40, per: member, every: day}"]), 3))
    assert member.buy("2024-02-01T11:00:00Z", 7) == [(7, "limit_max")]
    assert member.buy("2024-02-10T09:00:00Z", 50) == [(39, None), (11, "limit_max")]


def test_why_tells_that_a_period_is_no_longer_known() -> None:
    for limit, says in (
        ("max: 50, per: member, every: day", "50 points a day, and what it had given on 2024-01-05"),
        ("times: 2, per: member, every: 24h", "2 times in 24h, and what it had given since 2024-01-04 07:00"),
    ):
        explainer = Explainer(loaded([written("{$limit}", limit=limit)]), 1)
        member = Member(explainer)
        member.buy("2024-06-01T12:00:00Z", 1)
        explainer.begin()
        assert member.buy("2024-01-05T12:00:00Z", 60) == [(60, "limit_forgotten")]
        (rule,) = explainer.explained
        assert rule.reason == "limit_forgotten"
        assert rule.sentence == (
            f"r: did not give, because it gives at most {says} is no longer known: that is kept for 30d "
            "(refunds.window) after the period, and the member's clock stood at 2024-06-01 08:00"
        )


def test_a_late_event_reads_pages_only_where_its_period_has_left_the_state() -> None:
    member = compiled("{max: 10, per: member, every: day}")
    for day in range(1, 10):
        member.buy(f"2024-02-{day:02}T08:00:00Z", 1)
    member.buy("2024-02-09T07:00:00Z", 1)
    assert member.state.use_pages == 4
    assert member.books.recalls == 0
    member.buy("2024-02-05T07:00:00Z", 1)
    assert member.books.recalls == 1


def test_a_busy_members_state_stays_below_two_kilobytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty limits of every form, 400 days of orders, one in ten of them late."""
    monkeypatch.undo()
    forms = [
        written("{max: 1000, per: member, every: $every}", every=every)
        for every in ("day", "week", "month", "quarter", "year", "2d")
    ]
    forms += [
        written("{times: 9, per: [member, purchase.store], every: $every}", every=every) for every in ("day", "24h")
    ]
    rules = "".join(
        written(
            "- {id: r$n, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}], limits: [$form]}\n",
            n=n,
            form=forms[n % len(forms)],
        )
        for n in range(20)
    )

    head = f"schema: guerdon/1\nprogramme: p\ntimezone: {TIMEZONE}\ncurrency: USD\nrules:\n"
    programme = load_programme(head + rules, "p.yaml").programme
    assert programme is not None

    member = Member(compile_programme(programme, 1))
    largest = 0
    for n in range(400):
        day = n - 40 if n % 10 == 9 and n > 50 else n
        member.take(bought(n, START_MS + day * DAY_MS, 1, f"s{n % 7}"))
        if is_full(member.state):
            turn_page(member.state)
        lots, member.state.lots = member.state.lots, []  # what 20 rules give for an order is another matter
        largest = max(largest, len(msgpack.encode(member.state)))
        member.state.lots = lots

    assert largest < 2_048, largest
    assert len(member.books.pages) < 400 * 20 / 16


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60 * 24), min_size=2, max_size=14, unique=True), st.sampled_from(["10d", "48h", "1mo"]))
def test_no_window_has_more_referees_than_a_referrer_may_have(hours: list[int], every: str) -> None:
    """Signups of one referrer's referees come over several partitions, in no order: two in any window, and no fewer."""
    text = written(
        """\
schema: guerdon/1
programme: p
timezone: $timezone
currency: USD
referral: {max_per_referrer: {times: 2, every: $every}}
rules:
- {id: r, on: signup, give: [{points: 1}]}
""",
        timezone=TIMEZONE,
        every=every,
    )
    programme = load_programme(text, "p.yaml").programme
    assert programme is not None
    assert programme.terms.referral is not None
    length, calendar = programme.terms.referral.every, calendar_of(TIMEZONE)
    assert isinstance(length, Duration)

    # each signup names ann
    signups = [{"member_id": "ann", "occurred_at": iso_from_instant(START_MS)}]
    signups += [
        {"member_id": f"b{hour}", "occurred_at": iso_from_instant(START_MS + hour * HOUR_MS), "referrer_id": "ann"}
        for hour in hours
    ]
    lines = [
        Line("e", number, json.dumps({"type": "signup", "event_id": f"e{number}"} | each).encode())
        for number, each in enumerate(signups, 1)
    ]

    rows = simulate_lines(programme, lines).document()["referrals"]

    # one is rejected where two others are in a window with it
    attributed: list[int] = []
    for hour in hours:
        at_ms = START_MS + hour * HOUR_MS
        spans = [(calendar.before(end_ms, length), end_ms) for end_ms in (at_ms, *attributed) if end_ms >= at_ms]
        is_full = any(a < at_ms and sum(a < each <= b for each in attributed) >= 2 for a, b in spans)
        if not is_full:
            attributed.append(at_ms)
        status = next(row["status"] for row in rows if row["referee_id"] == f"b{hour}")
        assert status == ("rejected" if is_full else "attributed")
