"""History: metrics, segments, challenges and what is known of a member, all as they stand before the event."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as drawing
from hypothesis import settings
from hypothesis import strategies as st
from msgspec import msgpack

from engine.evaluate import fold
from engine.member.state import MemberState, is_full, turn_page, turn_uses
from engine.member.windows import ENTRIES_MAX, VALUES_MAX
from engine.programme.conditions import Duration
from engine.programme.file.load import load_programme
from engine.programme.localtime import calendar_of
from engine.programme.rules.occurrence import Occurrence
from schemas.events import Activity, Purchase, Signup
from schemas.scalars import instant_from_iso
from tests.engine.books import NO_BOOKS
from tests.engine.one_member import BothWays
from tests.programme_text import head, loaded, rules, written

HEAD = head("America/New_York")
NOON = "T17:00:00Z"


class Member(BothWays):
    """Fold events into one member, by sections and rules given as text."""

    def __init__(self, sections: str, *each: str) -> None:
        super().__init__(loaded(f"{HEAD}{sections}\n{rules(*each)}"))
        self.count = 0

    def gets(self, event: Purchase | Signup | Activity) -> list[tuple[str, int]]:
        given = [r for r in self.take(event) if r.posting.unit != "challenge" and r.posting.type != "benefit.ended"]
        return [(r.posting.rule_id or r.posting.type, r.amount) for r in given]

    def buy(self, at: str, amount: int = 100, **fields: Any) -> list[tuple[str, int]]:
        return self.gets(Purchase(**self.head(at), order_id="o", currency="USD", amount=amount, **fields))

    def act(self, at: str, kind: str = "login") -> list[tuple[str, int]]:
        return self.gets(Activity(**self.head(at), kind=kind))

    def head(self, at: str) -> dict[str, Any]:
        return self.head_at(instant_from_iso(at if "T" in at else at + NOON, "at"))

    def head_at(self, at_ms: int) -> dict[str, Any]:
        self.count += 1
        return {"event_id": f"e{self.count}", "member_id": "m", "occurred_at": at_ms}


def counts(metric: str, on: str = "purchase") -> Member:
    """Return a member whose every event gives a point for each that the metric says; none for 0."""
    give = "{points: {rate: 1, per: 1, of: history.m}}"
    return Member(
        written("metrics: {m: $metric}", metric=metric), written("{id: r, on: $on, give: [$give]}", on=on, give=give)
    )


def given(rewards: list[tuple[str, int]]) -> int:
    return sum(amount for _, amount in rewards)


def test_a_count_is_read_before_the_event() -> None:
    member = counts("{count: purchase, where: {purchase.amount: {gte: 1.00}}}")
    assert [given(member.buy("2024-03-01", amount)) for amount in (100, 99, 100, 100)] == [0, 1, 1, 2]


def test_a_sum_adds_in_the_unit_of_its_field_and_stays_within_64_bits() -> None:
    member = counts("{sum: purchase.tax}")
    assert [given(member.buy("2024-03-01", tax=tax)) for tax in (150, None, 250, 0)] == [0, 1, 1, 4]
    for _ in range(4):
        member.buy("2024-03-02", tax=2**63 - 1)
    assert msgpack.decode(msgpack.encode(member.states[0]), type=MemberState) == member.states[0]


@pytest.mark.parametrize(
    ("over", "before", "inside"),
    [
        # 10 March has 23 hours in New York: a day by the wall ends an hour earlier than 24 hours.
        ("1d", "2024-03-10T16:00:00Z", "2024-03-10T15:59:59.999Z"),
        ("24h", "2024-03-10T17:00:00Z", "2024-03-10T16:59:59.999Z"),
        ("1mo", "2024-04-09T16:00:00Z", "2024-04-09T15:59:59.999Z"),
    ],
)
def test_a_window_is_open_at_its_beginning(over: str, before: str, inside: str) -> None:
    for at, seen in ((before, 0), (inside, 1)):
        member = counts(written("{count: purchase, over: $over}", over=over))
        member.buy("2024-03-09T17:00:00Z")
        assert given(member.buy(at)) == seen


def test_a_late_event_sees_its_own_window() -> None:
    member = counts("{count: purchase, over: 2d}")
    for day in ("2024-03-01", "2024-03-02", "2024-03-08"):
        member.buy(day)
    assert given(member.buy("2024-03-02T18:00:00Z")) == 2
    assert given(member.buy("2024-03-09")) == 1


def test_a_streak_counts_units_in_a_row() -> None:
    member = counts("{streak: activity, unit: day}", "activity")
    days = ["2024-03-01", "2024-03-02", "2024-03-02T18:00:00Z", "2024-03-03", "2024-03-05", "2024-03-04", "2024-03-06"]
    assert [given(member.act(day)) for day in days] == [0, 1, 2, 2, 0, 0, 2]


def test_a_streak_of_weeks_begins_on_monday_by_the_wall() -> None:
    member = counts("{streak: purchase, unit: week}")
    instants = ["2024-03-04T04:59:59Z", "2024-03-04T05:00:00Z", "2024-03-11T03:59:59Z", "2024-03-11T04:00:00Z"]
    assert [given(member.buy(at)) for at in instants] == [0, 1, 2, 2]


def test_the_time_since_the_last_event_and_the_signup_are_ages() -> None:
    member = Member(
        "metrics: {last_buy: {last: purchase}}",
        "{id: back, on: purchase, when: {history.last_buy: {gte: 30d}}, give: [{points: 1}]}",
        "{id: first, on: purchase, when: {history.last_buy: {exists: false}}, give: [{points: 2}]}",
        "{id: new, on: purchase, when: {member.age: {within: 1mo}}, give: [{points: 4}]}",
    )
    assert given(member.buy("2024-01-30")) == 2
    member.gets(Signup(**member.head("2024-01-31")))
    member.gets(Signup(**member.head("2024-02-20")))
    assert [given(member.buy(at)) for at in ("2024-02-29", "2024-03-01", "2024-03-31T15:59:59Z", "2024-04-30")] == [
        5, 0, 0, 1,
    ]  # fmt: skip


def test_a_segment_is_its_condition() -> None:
    head = (
        "metrics: {n: {count: purchase}}\n"
        "segments: {rare: {history.n: {lte: 1}}, regular: {history.n: {between: [1, 2]}}}"
    )
    tests = [
        "{contains: rare}", "{contains_any: [rare, regular]}", "{contains_all: [rare, regular]}", "{exists: false}",
    ]  # fmt: skip
    rules = [
        written("{id: r$n, on: purchase, when: {member.segment: $t}, give: [{points: 1}]}", n=n, t=t)
        for n, t in enumerate(tests)
    ]
    member = Member(head, *rules)
    assert [[rule for rule, _ in member.buy("2024-03-01")] for _ in range(4)] == [
        ["r0", "r1"], ["r0", "r1", "r2"], ["r1"], ["r3"],
    ]  # fmt: skip


def test_balance_and_badges_are_those_before_the_event() -> None:
    member = Member(
        "",
        "{id: a, on: purchase, when: {member.held.star: false}, give: [{points: 10}, {badge: star}]}",
        "{id: b, on: purchase, when: {member.held.star: true}, give: [{points: 1}]}",
        "{id: c, on: purchase, when: {member.balance: {gte: 11}}, give: [{benefit: {id: vip, for: 1d}}]}",
        "{id: d, on: purchase, when: {member.held.vip: true}, give: [{points: 5}]}",
    )
    days = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04T16:59:59Z", "2024-03-06"]
    assert [[rule for rule, _ in member.buy(day)] for day in days] == [
        ["a", "a"], ["b"], ["b", "c"], ["b", "c", "d"], ["b", "c"],
    ]  # fmt: skip


def challenged(challenge: str, more: str = "") -> Member:
    return Member(
        "",
        written(
            "{id: r, on: purchase, challenge: $challenge, give: [{points: 1}]$more}", challenge=challenge, more=more
        ),
    )


def test_a_challenge_ends_with_its_first_completion_unless_it_repeats() -> None:
    once, again = challenged("{count: 2}"), challenged("{count: 2, repeat: after_completion}")
    assert [given(once.buy("2024-03-01")) for _ in range(5)] == [0, 1, 0, 0, 0]
    assert [given(again.buy("2024-03-01")) for _ in range(5)] == [0, 1, 0, 1, 0]


def test_a_challenge_counts_what_when_and_where_both_let_through() -> None:
    member = challenged("{count: 2, where: {purchase.amount: {gte: 1.00}}}", ", when: {purchase.channel: app}")
    bought = [(100, "app"), (99, "app"), (100, "web"), (100, "app")]
    assert [given(member.buy("2024-03-01", amount, channel=channel)) for amount, channel in bought] == [0, 0, 0, 1]


def test_the_window_of_a_challenge_slides_and_begins_anew() -> None:
    member = challenged("{sum: purchase.amount, gte: 10.00, within: 24h, repeat: after_completion}")
    bought = [("2024-03-01", 600), ("2024-03-02", 600), ("2024-03-03T16:59:59Z", 400), ("2024-03-03", 900)]
    assert [given(member.buy(at, amount)) for at, amount in bought] == [0, 0, 1, 0]


def test_a_member_with_100_000_events_has_a_state_of_bounded_size() -> None:
    member = Member(
        "metrics: {n: {count: purchase, over: 1y}, s: {sum: purchase.amount, over: 90d}, t: {sum: purchase.amount},"
        " d: {streak: purchase, unit: day}, l: {last: purchase}}",
        "{id: r, on: purchase, when: {history.n: {gte: 3}, history.s: {gte: 1.00}, history.t: {gte: 1.00}},"
        " give: [{points: 1}],"
        " limits: [{max: 1000000, per: member, every: 30d}, {times: 5, per: [member, purchase.store], every: day}]}",
        "{id: c, on: purchase, when: {history.d: {gte: 2}, history.l: {lte: 1y}}, give: [{points: 1}, {badge: b}],"
        " challenge: {count: 600, within: 1y, repeat: after_completion}}",
        "{id: v, on: purchase, give: [{points: 1}], limits: [{times: 5, per: [member, purchase.store], every: 30d}]}",
    )
    state, judge = MemberState(), member.members[0].judge
    sizes = []
    for n in range(100_000):
        event = Purchase(
            event_id=f"e{n}", member_id="m", occurred_at=1_709_942_400_000 + n * 400_000, order_id="o", currency="USD",
            amount=100, store=f"s{n % 5_000}",
        )  # fmt: skip
        fold(state, event, Occurrence(b"i" * 32, n, 0), judge, NO_BOOKS)
        if is_full(state):
            turn_page(state)
        if n in (9_999, 99_999):
            turn_uses(state, 0)
            sizes.append(len(msgpack.encode(state)))

    memory = state.remembering()
    assert all(len(window.instants) <= ENTRIES_MAX for window in memory.windows.values())
    assert [len(values) for values in memory.value_limits.values()] == [VALUES_MAX]
    assert [len(values) for values in memory.value_windows.values()] == [VALUES_MAX]
    assert len(memory.counters) == 4
    assert sizes[1] < sizes[0] * 1.1 < 120_000


@settings(max_examples=40, deadline=None)
@drawing(
    st.lists(st.integers(0, 30 * 24 * 2), min_size=2, max_size=40).map(sorted),
    st.sampled_from(["2024-03-01T00:00:00Z", "2024-10-25T00:00:00Z"]),
)
def test_windows_reach_the_same_time_of_earlier_days_when_clocks_change(half_hours: list[int], first: str) -> None:
    first_ms = instant_from_iso(first, "at")
    give = "{points: {rate: 1, per: 1, of: history.%s}}"
    member = Member(
        "metrics: {a: {count: purchase, over: 1d}, b: {sum: purchase.amount, over: 9d},"
        " c: {count: purchase, over: 1mo}}",
        *(written("{id: $name, on: purchase, give: [$value]}", name=name, value=give % name) for name in "abc"),
    )
    calendar = calendar_of("America/New_York")

    came: list[int] = []
    for half_hour in half_hours:
        at_ms = first_ms + half_hour * 1_800_000
        came_within = [
            sum(calendar.before(at_ms, length) < earlier_ms <= at_ms for earlier_ms in came)
            for length in (Duration(days=1), Duration(days=9), Duration(months=1))
        ]
        rewards = member.gets(Purchase(**member.head_at(at_ms), order_id="o", currency="USD", amount=100))
        assert [dict(rewards).get(name, 0) for name in "abc"] == came_within
        came.append(at_ms)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("metrics: {m: {count: purchase, sum: purchase.amount}}", "contradiction"),
        ("metrics: {m: {}}", "contradiction"),
        ("metrics: {m: {count: purchse}}", "unknown_value"), ("metrics: {m: {sum: purchase.channel}}", "wrong_type"),
        ("metrics: {m: {streak: purchase}}", "contradiction"),
        ("metrics: {m: {last: purchase, over: 1d}}", "contradiction"),
        ("metrics: {m: {streak: purchase, unit: year}}", "contradiction"), ("metrics: []", "wrong_type"),
        ("metrics: {m: {count: purchase, where: {history.m: 1}}}", "unknown_field"),
        ("segments: {s: {purchase.amount: 1}}", "other_event"), ("segments: []", "wrong_type"),
        ("metrics: {unread: {count: purchase}}", "unread"),
    ],
)  # fmt: skip
def test_history_that_cannot_be_meant_is_refused(head: str, code: str) -> None:
    text = written(
        "$head$head2\nrules:\n- {id: r, on: purchase, when: {history.m: {exists: true}}, give: [{points: 1}]}",
        head=HEAD,
        head2=head,
    )
    text = text if "{m:" in head else text.replace("when: {history.m: {exists: true}}, ", "")
    assert code in [problem.code.value for problem in load_programme(text, "p.yaml").problems]


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("challenge: {count: 3, sum: purchase.amount}", "contradiction"),
        ("challenge: {sum: purchase.amount}", "contradiction"),
        ("challenge: {count: 0}", "out_of_range"), ("challenge: {count: 2, repeat: daily}", "unknown_value"),
        ("challenge: {sum: purchase.channel, gte: 1}", "wrong_type"),
        ("challenge: {sum: purchase.amount, gte: 0}", "out_of_range"),
        ("when: {history.nothing: 1}", "unknown_field"),
        ("when: {member.segment: {contains: nobody}}", "unknown_value"),
        ("challenge: {count: 2, where: {purchase.amount: {lt: 0}}}", "never_matches"),
    ],
)  # fmt: skip
def test_a_rule_about_the_past_that_cannot_be_meant_is_refused(rule: str, code: str) -> None:
    text = written("${head}rules:\n- {id: r, on: purchase, $rule, give: [{points: 1}]}", head=HEAD, rule=rule)
    assert [problem.code.value for problem in load_programme(text, "p.yaml").problems] == [code]
