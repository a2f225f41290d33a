"""Referrals in the live transaction: races for a claim, crossing shards, crashes, and the same answers as in memory."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.programme.file.load import load_programme
from engine.store.cursor import one
from engine.store.database import ANALYST, transaction
from operations.rows import dictionaries
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from operations.verify.checks import verify
from projections.runner import finish
from schemas.events import Decision, Event, Purchase, Refund, Share, Signup
from schemas.scalars import iso_from_instant
from tests.engine.ledger.test_referrals import RULES, programme
from tests.engine.live.test_clock import messages, work
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import START_MS, activate, make_topics, publish
from tests.system.poison import STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operations.settings import Settings

pytestmark = pytest.mark.postgres

PROGRAMME = programme("{claim_window: 90d, block: [self, cycle]}")
MINUTE_MS = 60_000
END_MS = START_MS + 10_000 * MINUTE_MS


def signup(number: int, who: str, at: int = 0, **fields: Any) -> Signup:
    return Signup(event_id=f"s{number}", member_id=who, occurred_at=START_MS + at * MINUTE_MS, **fields)


def order(number: int, who: str, at: int = 0, amount: int = 2_500) -> Purchase:
    return Purchase(
        event_id=f"p{number}", member_id=who, occurred_at=START_MS + at * MINUTE_MS, order_id=f"o{number}",
        currency="USD", amount=amount,
    )  # fmt: skip


def taken_in(worker: LiveTransaction, *events: Event) -> None:
    worker.commit(Batch([admitted(event) for event in events]))


def drain(worker: LiveTransaction) -> None:
    """Let what was forwarded be taken in, as idle workers do."""
    while worker.commit(Batch(clock=ClockMove(START_MS, everywhere=True, hourly=False, reached_ms=END_MS))).ticks:
        pass


def statuses(database_url: str) -> dict[str, Counter[tuple[str, str | None]]]:
    """Return what the view says of each referee, as an analyst reads it."""
    finish(database_url, threading.Event())
    with transaction(database_url, role=ANALYST) as cursor:
        rows = dictionaries(cursor, "SELECT * FROM reward.referral")
    found: dict[str, Counter[tuple[str, str | None]]] = {}
    for row in rows:
        found.setdefault(row["referee_id"], Counter())[row["status"], row["reason"]] += 1
    return found


def assert_sound(database_url: str) -> None:
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.forwarded") == (0,)


def test_two_members_who_claim_each_other_at_once_are_not_both_attributed(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    pairs = [(f"a{n}", f"b{n}") for n in range(40)]
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        taken_in(worker, *(signup(n, who) for n, who in enumerate(who for pair in pairs for who in pair)))

    def claim(turned: int) -> None:
        with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
            for n, pair in enumerate(pairs):
                who, by = pair[turned], pair[1 - turned]
                taken_in(worker, signup(1_000 + 2 * n + turned, who, 1, referrer_id=by))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(claim, (0, 1)))
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        drain(worker)
    found = statuses(database_url)
    for pair in pairs:
        outcomes = sorted(outcome for who in pair for outcome in found[who])
        assert outcomes == [("attributed", None), ("rejected", "cycle")]
    assert_sound(database_url)


def crossing(members: int, seed: int) -> list[Event]:
    """Return members who refer one another across shards, and what they buy and return."""
    chance = random.Random(seed)  # noqa: S311  a test's own
    events: list[Event] = [signup(n, f"m{n}") for n in range(members // 4)]
    for n in range(members // 4, members):
        events.append(signup(n, f"m{n}", n, referrer_id=f"m{chance.randrange(n)}"))
        events.append(order(n, f"m{n}", n + 1, chance.choice((1_500, 2_500, 9_900))))
        if chance.random() < 0.2:
            returned = Refund(
                event_id=f"r{n}", member_id=f"m{n}", occurred_at=START_MS + (n + 2) * MINUTE_MS, order_id=f"o{n}",
                refund_id="r", amount=700,
            )  # fmt: skip
            events.append(returned)
    return events


def test_crossing_referrals_at_four_workers_end_in_no_deadlock_and_lose_nothing(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    events = crossing(2_000, 1)
    passed: list[str] = []

    def run(part: Sequence[Event]) -> None:
        with closing(LiveTransaction(database_url, SCHEMAS.lookup, observe=passed.append)) as worker:
            for first in range(0, len(part), 25):
                taken_in(worker, *part[first : first + 25])

    roots = [event for event in events if isinstance(event, Signup) and event.referrer_id is None]
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        taken_in(worker, *roots)
        by_member: list[list[Event]] = [[], [], [], []]
        for event in events:
            if event not in roots:
                by_member[int(event.member_id[1:]) % 4].append(event)  # type: ignore[attr-defined]  # all have a member
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(run, by_member))
        drain(worker)
    assert_sound(database_url)
    found = statuses(database_url)
    referred = {event.member_id for event in events if isinstance(event, Signup) and event.referrer_id is not None}
    assert set(found) == referred
    assert {status for outcomes in found.values() for status, _ in outcomes} == {"attributed", "qualified"}
    with transaction(database_url) as cursor:
        counts = one(
            cursor,
            """
            SELECT count(*) FILTER (WHERE kind = 'attribution'), count(*) FILTER (WHERE kind = 'forwarded')
            FROM guerdon.source_event
            """,
        )
    assert counts == (len(referred), len([e for e in events if e not in roots]))


def balances(database_url: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute("SELECT member_id, unit, granted, reversed, available FROM reward.member_balance")
        return {(member_id, unit): tuple(rest) for member_id, unit, *rest in cursor.fetchall()}


def in_memory(text: str, events: Sequence[Event], until_ms: int) -> dict[str, Any]:
    checked = load_programme(text, "p").programme
    assert checked is not None
    lines = [Line("e", n, line_of(event).encode()) for n, event in enumerate(events, 1)]
    return simulate_lines(checked, lines, until_ms).document()


def line_of(event: Event) -> str:
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if getattr(event, name) is not None}
    fields["occurred_at"] = iso_from_instant(event.occurred_at)
    return json.dumps({"type": type(event).__name__.lower(), **fields})


@pytest.mark.kafka
@pytest.mark.parametrize("workers", [1, 3])
def test_a_history_of_referrals_comes_out_as_in_memory_whoever_works_it_off(workers: int, settings: Settings) -> None:
    events = sorted(crossing(240, 7), key=lambda event: event.occurred_at)
    make_topics(settings, 4)
    activate(settings.database_url, PROGRAMME)
    publish(settings, messages([line_of(event) for event in events]))
    work(settings.model_copy(update={"max_batch": 40}), END_MS, workers)
    assert_sound(settings.database_url)
    expected = in_memory(PROGRAMME, events, END_MS)
    if workers == 1:  # with more, a referee may buy before their referrer is known, and is not welcomed then
        assert balances(settings.database_url) == {
            (row["member_id"], row["unit"]): (row["granted"], row["reversed"], row["available"])
            for row in expected["balances"]
        }
    with transaction(settings.database_url, role=ANALYST) as cursor:
        rows = dictionaries(cursor, "SELECT referee_id, referrer_id, status FROM reward.referral")
        earned = dictionaries(cursor, "SELECT referrer_id, referred, points FROM reward.referrer")
        board = dictionaries(cursor, "SELECT * FROM reward.leaderboard WHERE period = 'all' AND metric = 'referrals'")
    told = {(row["referee_id"], row["referrer_id"], row["status"]) for row in expected["referrals"]}
    assert {(row["referee_id"], row["referrer_id"], row["status"]) for row in rows} == told
    paid: Counter[str] = Counter()
    for row in expected["reward_events"]:
        if row["rule_id"] == "friend" and row["type"] in ("points.granted", "points.reversed"):
            paid[row["member_id"]] += row["amount"] if row["type"] == "points.granted" else -row["amount"]
    assert {row["referrer_id"]: row["points"] for row in earned} == {
        row["referrer_id"]: paid[row["referrer_id"]] for row in earned
    }
    qualified = Counter(row["referrer_id"] for row in expected["referrals"] if row["status"] == "qualified")
    assert {row["member_id"]: row["value"] for row in board} == dict(qualified)
    assert [row["rank"] for row in sorted(board, key=lambda row: row["rank"])] == list(range(1, len(board) + 1))


@pytest.mark.parametrize("step", [f"{when} {name}" for name in STEPS for when in ("before", "after")])
def test_a_crash_at_any_step_forwards_nothing_twice_and_loses_nothing(step: str, database_url: str) -> None:
    class Crash(Exception):
        pass

    def crash(point: str) -> None:
        if point == step:
            raise Crash

    activate(database_url, PROGRAMME)
    batches: list[list[Event]] = [
        [signup(1, "ann")],
        [signup(2, "bob", 1, referrer_id="ann")],
        [order(3, "bob", 2), order(4, "ann", 2)],
    ]
    for batch in batches:
        with closing(LiveTransaction(database_url, SCHEMAS.lookup, observe=crash)) as worker, pytest.raises(Crash):
            taken_in(worker, *batch)
        with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
            taken_in(worker, *batch)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup, observe=crash)) as worker, pytest.raises(Crash):
        drain(worker)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        drain(worker)
    assert_sound(database_url)
    assert balances(database_url)["ann", "points"] == (250, 0, 250)
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.source_event WHERE kind = 'forwarded'") == (2,)


def test_a_code_used_before_its_owner_came_is_decided_by_an_idle_worker(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        taken_in(worker, signup(1, "bob", 1, referrer_id="ann"), order(2, "bob", 2))
        drain_nothing = worker.commit(
            Batch(clock=ClockMove(START_MS, everywhere=True, hourly=False, reached_ms=START_MS + MINUTE_MS))
        )
        assert drain_nothing.ticks == 0
        taken_in(worker, signup(3, "ann", 3))
        drain(worker)
    assert_sound(database_url)
    assert statuses(database_url) == {"bob": Counter({("qualified", None): 1})}


def test_an_operator_voids_a_referral_and_both_shards_hear_of_it(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    void = Decision(
        event_id="v", source="operator", member_id="bob", occurred_at=START_MS + 9 * MINUTE_MS, action="referral_void",
        reason="one person",
    )  # fmt: skip
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        taken_in(worker, signup(1, "ann"), signup(2, "bob", 1, referrer_id="ann"), order(3, "bob", 2))
        drain(worker)
        taken_in(worker, void)
        drain(worker)
        taken_in(worker, order(4, "bob", 10, 9_900))
        drain(worker)
    assert_sound(database_url)
    assert statuses(database_url) == {"bob": Counter({("voided", None): 1})}
    taken_back = {who: row[1] for (who, unit), row in balances(database_url).items() if unit == "points"}
    assert taken_back == {"ann": 250, "bob": 50}


def test_views_believe_no_name_and_take_nothing_from_who_earned_it(database_url: str) -> None:
    """A void of what never qualified costs nothing, and an own event called like a forwarded one pays none."""
    activate(database_url, PROGRAMME)
    named = Purchase(
        event_id="forwarded:mine", member_id="ann", occurred_at=START_MS + 3 * MINUTE_MS, order_id="x", currency="USD",
        amount=9_900,
    )  # fmt: skip
    void = Decision(
        event_id="v", source="operator", member_id="cat", occurred_at=START_MS + 9 * MINUTE_MS, action="referral_void",
        reason="one person",
    )  # fmt: skip
    rules = PROGRAMME.replace("rules:\n", "rules:\n- {id: own, on: purchase, give: [{points: 7}]}\n")
    activate(database_url, rules.replace("timezone: UTC", "timezone: Pacific/Auckland"))
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        joined = [signup(n, who, n, referrer_id="ann") for n, who in enumerate(("bob", "cat"), 2)]
        taken_in(worker, signup(1, "ann"), *joined, order(3, "bob", 4), named)
        drain(worker)
        taken_in(worker, void)
        drain(worker)
    assert_sound(database_url)
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute("SELECT points FROM reward.referrer WHERE referrer_id = 'ann'")
        assert cursor.fetchall() == [(250,)]
        cursor.execute("SELECT period, value FROM reward.leaderboard WHERE metric = 'referrals' ORDER BY period")
        day = iso_from_instant(START_MS + 12 * 3_600_000)[:10]  # twelve hours ahead in May
        assert cursor.fetchall() == [("all", 1), (f"day:{day}", 1), (f"month:{day[:7]}", 1)]


def test_the_leaderboard_ranks_points_and_verified_shares_by_day_month_and_all_time(database_url: str) -> None:
    activate(database_url, PROGRAMME.replace("rules:\n", "rules:\n- {id: own, on: purchase, give: [{points: 7}]}\n"))
    day = 24 * 60
    shares = [
        Share(
            event_id=f"h{n}", member_id=who, occurred_at=START_MS + at * MINUTE_MS, object="x", channel="link",
            verified=verified,
        )
        for n, (who, at, verified) in enumerate((("bob", 0, True), ("ann", 1, True), ("ann", 2, False)))
    ]  # fmt: skip
    orders = [order(1, "ann", 0), order(2, "bob", 5), order(3, "bob", day)]
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        taken_in(worker, *shares, *orders)
    assert_sound(database_url)
    first, second = (iso_from_instant(START_MS + n * day * MINUTE_MS)[:10] for n in (0, 1))
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute("SELECT metric, period, rank, member_id, value FROM reward.leaderboard ORDER BY 1, 2, 3")
        assert cursor.fetchall() == [
            ("points", "all", 1, "bob", 14), ("points", "all", 2, "ann", 7),
            ("points", f"day:{first}", 1, "ann", 7), ("points", f"day:{first}", 2, "bob", 7),
            ("points", f"day:{second}", 1, "bob", 7),
            ("points", f"month:{first[:7]}", 1, "bob", 14), ("points", f"month:{first[:7]}", 2, "ann", 7),
            ("shares", "all", 1, "bob", 1), ("shares", "all", 2, "ann", 1),
            ("shares", f"day:{first}", 1, "bob", 1), ("shares", f"day:{first}", 2, "ann", 1),
            ("shares", f"month:{first[:7]}", 1, "bob", 1), ("shares", f"month:{first[:7]}", 2, "ann", 1),
        ]  # fmt: skip


def test_the_funnel_counts_shares_touches_signups_and_first_purchases(settings: Settings) -> None:
    assert "referral.number: 1" in RULES
    make_topics(settings, 1)
    activate(settings.database_url, PROGRAMME)
    at = {"occurred_at": iso_from_instant(START_MS)}
    checked = load_programme(PROGRAMME, "p").programme
    assert checked is not None
    lines = [
        {"type": "signup", "event_id": "1", "member_id": "ann", **at},
        {
            "type": "share",
            "event_id": "2",
            "member_id": "ann",
            "object": "x",
            "channel": "wechat",
            "verified": True,
            **at,
        },
    ]
    simulated = simulate_lines(checked, [Line("e", 1, json.dumps(lines[0]).encode())]).document()
    assert simulated["codes"][0]["member_id"] == "ann"
    publish(settings, messages([json.dumps(line) for line in lines]))
    work(settings, START_MS)
    with transaction(settings.database_url) as cursor:
        (code,) = one(cursor, "SELECT code FROM reward.member_code WHERE member_id = 'ann'")
    touch = {"type": "touch", "event_id": "3", "referral_code": code, "visitor": "v", "channel": "wechat", **at}
    at = {"occurred_at": iso_from_instant(START_MS + MINUTE_MS)}
    joined = {"type": "signup", "event_id": "4", "member_id": "bob", "visitor": "v", **at}
    bought = {
        "type": "purchase",
        "event_id": "5",
        "member_id": "bob",
        "order_id": "o",
        "currency": "USD",
        "amount": 2500,
    }
    publish(settings, messages([json.dumps(line) for line in (touch, joined, bought | at | {"amount": 2500})]))
    work(settings, START_MS + MINUTE_MS)
    with transaction(settings.database_url, role=ANALYST) as cursor:
        cursor.execute("SELECT channel, shares, touches, signups, first_purchases FROM reward.referral_funnel")
        assert cursor.fetchall() == [("wechat", 1, 1, 1, 1)]
