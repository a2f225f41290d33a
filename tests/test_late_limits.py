"""Limits and late events: what was used stays known for `refunds.window`, then nothing is given, and it says so."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec import msgpack

import engine.programme.uses
import engine.state
from engine.evaluate import fold
from engine.programme.compile import compile_programme
from engine.programme.conditions import Duration
from engine.programme.contest_periods import bounds_of
from engine.programme.explain import Explainer
from engine.programme.facts import period_of
from engine.programme.interpret import Interpreter
from engine.programme.load import load_programme
from engine.programme.localtime import calendar_of
from engine.programme.model import MaxLimit, Over, TimesLimit
from engine.state import MemberState, Occurrence, is_full, turn_page
from operations.event_lines import Line
from operations.simulate import simulate_lines
from schemas.canonical import event_identity
from schemas.events import Purchase, Refund
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.books import PagedBooks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.programme.judge import Judges
    from engine.programme.model import Limit, LimitScope, Programme
    from schemas.rewards import RewardEvent

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = instant_from_iso("2024-01-20T07:00:00Z", "at")
TIMEZONE = "America/New_York"
EVERY = ("day", "week", "month", "quarter", "year", "lifetime", "24h", "30h", "2d", "10d", "1mo")


GIVE = "[{points: {rate: 1, per: 1.00, of: purchase.amount}}]"


def loaded(limits: list[str], window: str = "30d", give: str = GIVE) -> Programme:
    text = (
        f"schema: guerdon/1\nprogramme: p\ntimezone: {TIMEZONE}\ncurrency: USD\nrefunds: {{window: {window}}}\nrules:\n"
        f"- {{id: r, on: purchase, give: {give}, limits: [{', '.join(limits)}]}}\n"
    )
    found = load_programme(text, "p.yaml")
    assert found.programme is not None, "\n".join(map(str, found.problems))
    return found.programme


class Member:
    """Fold events into one member; `is_paging` lets uses of ended periods leave the state after each event."""

    def __init__(self, judge: Judges, *, is_paging: bool = True) -> None:
        self.judges = {judge.version: judge}
        self.judge = judge
        self.state = MemberState()
        self.books = PagedBooks(self.judges.__getitem__)
        self.is_paging = is_paging
        self.count = 0

    def activate(self, judge: Judges) -> None:
        self.judge = self.judges[judge.version] = judge

    def take(self, event_: Purchase | Refund) -> list[RewardEvent]:
        self.count += 1
        occurrence = Occurrence(event_identity(event_.source, event_.event_id), self.count, event_.occurred_at)
        if isinstance(event_, Purchase):
            self.books.record(event_, self.judge.version)
        rewards = list(fold(self.state, event_, occurrence, self.judge, self.books))
        if self.is_paging:
            self.books.turn(self.state)
        return rewards

    def buy(self, at: str, amount: int, **fields: Any) -> list[tuple[int, str | None]]:
        return told(self.take(bought(self.count + 1, instant_from_iso(at, "at"), amount, **fields)))


def bought(number: int, at_ms: int, amount: int, store: str | None = None) -> Purchase:
    return Purchase(
        event_id=f"e{number}", member_id="m", occurred_at=at_ms, order_id=f"o{number}", currency="USD",
        amount=amount * 100, store=store,
    )  # fmt: skip


def told(rewards: list[RewardEvent]) -> list[tuple[int, str | None]]:
    return [(reward.amount, reward.posting.reason) for reward in rewards]


@dataclass(frozen=True)
class Step:
    """Buy at an hour, or, with `returned`, return the whole of an order so many hours after the one before."""

    hour: int
    amount: int
    store: str | None
    returned: int | None = None


HOURS = st.builds(
    lambda day, hour: 24 * day + hour, st.sampled_from([*range(8), 12, 30, 31, 70]), st.sampled_from([0, 1, 13])
)
STEPS = st.lists(
    st.builds(
        Step, HOURS, st.integers(1, 9), st.sampled_from(["a", "b", "c", None]),
        st.none() | st.none() | st.integers(0, 9),
    ),
    min_size=4, max_size=24,
)  # fmt: skip


PERS = ("member", "[member, purchase.store]")


@st.composite
def limits(draw: st.DrawFn, pers: tuple[str, ...] = PERS) -> list[str]:
    found = {}
    for _ in range(draw(st.integers(1, 2))):
        per = draw(st.sampled_from(pers))
        every = draw(st.sampled_from(EVERY))
        kind = draw(st.sampled_from(["times: 1", "times: 2", "max: 7, over: trim", "max: 12, over: refuse", "max: 12"]))
        found[kind[:3], per, every] = f"{{{kind}, per: {per}, every: {every}}}"
    return list(found.values())


@dataclass
class Given:
    """What an order has of its rule still, as the oracle remembers it for ever."""

    at_ms: int
    store: str | None
    amount: int
    times: int = 1


@dataclass
class Oracle:
    """Say what a rule with limits gives: by all that was ever given, and by the member's clock."""

    programme: Programme
    clock_ms: int = 0
    given: dict[str, Given] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.limits = self.programme.rules[0].limits
        self.calendar = calendar_of(TIMEZONE)

    def buy(self, purchase: Purchase) -> list[tuple[int, str | None]]:
        at_ms, asked = purchase.occurred_at, purchase.amount // 100
        timed = [limit for limit in self.limits if isinstance(limit, TimesLimit)]
        capped = [limit for limit in self.limits if isinstance(limit, MaxLimit)]
        if any(self.is_forgotten(limit.scope, at_ms) for limit in timed):
            return [(asked, "limit_forgotten")]
        if any(self.used(limit, at_ms, purchase.store)[1] >= limit.times for limit in timed):
            return [(asked, "limit_times")]
        if any(self.is_forgotten(limit.scope, at_ms) for limit in capped):
            return [(asked, "limit_forgotten")]
        allowed = asked
        for limit in capped:
            left = limit.amount - self.used(limit, at_ms, purchase.store)[0]
            if allowed > left:
                allowed = max(left, 0) if limit.over is Over.TRIM else 0
        if allowed:
            self.given[purchase.order_id] = Given(at_ms, purchase.store, allowed)
        rows: list[tuple[int, str | None]] = [(allowed, None)] if allowed else []
        return rows if allowed == asked else [*rows, (asked - allowed, "limit_max")]

    def take_back(self, order_id: str, amount: int) -> None:
        self.given[order_id].amount -= amount
        if not self.given[order_id].amount:
            del self.given[order_id]

    def is_forgotten(self, scope: LimitScope, at_ms: int) -> bool:
        end_ms = at_ms if isinstance(scope.every, Duration) else bounds_of(scope.every, at_ms, self.calendar)[1]
        return at_ms < self.clock_ms > self.calendar.after(end_ms, self.programme.terms.refunds.window)

    def used(self, limit: Limit, at_ms: int, store: str | None) -> tuple[int, int]:
        """Return amount and times: the most of any window that the instant lies in, or of its period."""
        own = [each for each in self.given.values() if limit.scope.by is None or each.store == store]
        every = limit.scope.every
        if not isinstance(every, Duration):
            period = period_of(every, at_ms, self.calendar)
            windows = [[each for each in own if period_of(every, each.at_ms, self.calendar) == period]]
        else:
            ends = [at_ms, *(each.at_ms for each in own if each.at_ms > at_ms)]
            spans = [(self.calendar.before(end_ms, every), end_ms) for end_ms in ends]
            windows = [[each for each in own if a < each.at_ms <= b] for a, b in spans if a < at_ms]
        return (
            max(sum(each.amount for each in window) for window in windows),
            max(sum(each.times for each in window) for window in windows),
        )

    def assert_nothing_is_over(self) -> None:
        for limit in self.limits:
            for each in self.given.values():
                amount, times = self.used(limit, each.at_ms, each.store)
                if isinstance(limit, MaxLimit):
                    assert amount <= limit.amount
                else:
                    assert times <= limit.times


def events_of(steps: list[Step]) -> Iterator[Purchase | Refund]:
    """Yield the steps as events; an order is returned 20 hours after whatever step came before."""
    orders = [number for number, step in enumerate(steps) if step.returned is None]
    at_ms = START_MS
    for number, step in enumerate(steps):
        earlier = [order for order in orders if order < number]
        if step.returned is None or not earlier:
            at_ms = START_MS + step.hour * HOUR_MS
            yield bought(number, at_ms, step.amount, step.store)
        else:
            at_ms += 20 * HOUR_MS
            order = f"o{earlier[step.returned % len(earlier)]}"
            yield Refund(
                event_id=f"e{number}", member_id="m", occurred_at=at_ms, order_id=order, refund_id=f"r{number}"
            )


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little fill a page, and few values crowd each other out."""
    monkeypatch.setattr(engine.state, "USES_MAX", 2)
    monkeypatch.setattr(engine.programme.uses, "VALUES_MAX", 2)


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
    for each in events_of(steps):
        first, *others = [member.take(each) for member in members]
        assert others == [first, first]
        if isinstance(each, Purchase):
            assert told(first) == oracle.buy(each)
            event(", ".join(sorted({str(reason) for _, reason in told(first)})))
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
    """How long uses are kept, and whether that changes on the way, is nothing to events whose times rise."""
    programmes = [loaded(texts, window), loaded(texts, "2d")]
    judges = [compile_programme(each, version) for version, each in enumerate(programmes, 1)]
    oracle, member = Oracle(programmes[0]), Member(judges[0])
    in_order = sorted((step for step in steps if step.returned is None), key=lambda step: step.hour)
    for number, each in enumerate(events_of(in_order)):
        assert isinstance(each, Purchase)
        if number == change:
            member.activate(judges[1])
        assert told(member.take(each)) == oracle.buy(each)
    assert not any(before.hour > after.hour for before, after in pairwise(in_order))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["max: 7", "times: 1"]), st.sampled_from(["day", "week", "month", "24h", "2d"]), STEPS,
    st.lists(st.tuples(st.integers(0, 21), st.sampled_from(["1d", "5d", "90d", "1mo"])), max_size=3),
)  # fmt: skip
def test_a_longer_window_brings_nothing_back(
    cap: str, every: str, steps: list[Step], changes: list[tuple[int, str]]
) -> None:
    """Whatever versions say of how long uses are kept, no period gets more than its cap."""
    text = f"{{{cap}, per: member, every: {every}}}"
    programme = loaded([text], "5d")
    oracle, member = Oracle(programme), Member(compile_programme(programme, 1))
    for number, each in enumerate(events_of(steps)):
        for version, (at, window) in enumerate(changes, 2):
            if at == number:
                member.activate(compile_programme(loaded([text], window), version))
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
    member = member_of(f"{{times: 1, per: [member, purchase.store], every: {every}}}")
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
    """Ten within the 24 hours that end at ten o'clock stay ten, whichever order is told of first."""
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
        member = member_of(f"{{max: 10, per: member, every: {every}}}")
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
    """Kept to the millisecond: 30 days after the end of the period, of a rolling one after the event."""
    limit = f"{{max: 10, per: member, every: {every}}}"
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
        explainer = Explainer(loaded([f"{{{limit}}}"]), 1)
        member = Member(explainer)
        member.buy("2024-06-01T12:00:00Z", 1)
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
        f"{{max: 1000, per: member, every: {every}}}" for every in ("day", "week", "month", "quarter", "year", "2d")
    ]
    forms += [f"{{times: 9, per: [member, purchase.store], every: {every}}}" for every in ("day", "24h")]
    rules = "".join(
        f"- {{id: r{n}, on: purchase, give: [{{points: {{rate: 1, per: 1.00, of: purchase.amount}}}}], "
        f"limits: [{forms[n % len(forms)]}]}}\n"
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
    text = (
        f"schema: guerdon/1\nprogramme: p\ntimezone: {TIMEZONE}\ncurrency: USD\n"
        f"referral: {{max_per_referrer: {{times: 2, every: {every}}}}}\n"
        "rules:\n- {id: r, on: signup, give: [{points: 1}]}\n"
    )
    programme = load_programme(text, "p.yaml").programme
    assert programme is not None
    assert programme.terms.referral is not None
    length, calendar = programme.terms.referral.every, calendar_of(TIMEZONE)
    assert isinstance(length, Duration)
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
    attributed: list[int] = []
    for hour in hours:
        at_ms = START_MS + hour * HOUR_MS
        spans = [(calendar.before(end_ms, length), end_ms) for end_ms in (at_ms, *attributed) if end_ms >= at_ms]
        is_full = any(a < at_ms and sum(a < each <= b for each in attributed) >= 2 for a, b in spans)
        if not is_full:
            attributed.append(at_ms)
        status = next(row["status"] for row in rows if row["referee_id"] == f"b{hour}")
        assert status == ("rejected" if is_full else "attributed")
