"""Budgets of campaigns: exactly what was allowed is given, however many workers ask at once, and refunds give back."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.programmes import load_judge
from operations.simulate.run import simulate
from operations.verify.checks import verify
from operations.why.event import why_event, why_member
from schemas.events import Event, Refund, Share
from schemas.json_events import event_to_object
from schemas.partitioning import shard_of
from tests.engine.books import Refusing, fails_on_e2
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.postgres

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\nrules:\n"
SEVEN = HEAD + "- {id: r, on: purchase, campaign: spring, give: [{points: 7}], limits: [%s]}\n"
TIMES, AMOUNT = "{times: 25, per: campaign}", "{max: 100, per: campaign, every: year}"
WORKERS = 4
DAY_MS = 86_400_000


def refund(number: int, member_id: str) -> Refund:
    """Return the refund of a whole order."""
    return Refund(
        event_id=f"r{number}", member_id=member_id, occurred_at=START_MS + DAY_MS + number, order_id=f"o{number}",
        refund_id=f"r{number}",
    )  # fmt: skip


def work_through(database_url: str, events: Sequence[Event], size: int = 5) -> None:
    """Let four workers take the events at once, in batches, each by its own members."""
    by_member: dict[str, list[Event]] = {}
    for event in events:
        by_member.setdefault(event.member_id, []).append(event)  # type: ignore[attr-defined]  # no touches here
    shares: list[list[Event]] = [[] for _ in range(WORKERS)]
    for number, own in enumerate(by_member.values()):
        shares[number % WORKERS] += own

    def take(mine: list[Event]) -> None:
        with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
            for first in range(0, len(mine), size):
                worker.commit(Batch([admitted(event) for event in mine[first : first + size]]))

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(take, shares))


def counted(database_url: str) -> tuple[int, int]:
    """Return what the budgets' rows say was given: amount, times."""
    with transaction(database_url) as cursor:
        amount, times = one(cursor, "SELECT coalesce(sum(amount), 0), coalesce(sum(times), 0) FROM guerdon.budget")
    return int(amount), int(times)


def given(database_url: str) -> tuple[int, int]:
    """Return the points that the log says were given and not taken back, and how many grants there were."""
    with transaction(database_url) as cursor:
        amount, grants = one(
            cursor,
            """
            SELECT coalesce(sum(amount * CASE type WHEN 'points.granted' THEN 1 WHEN 'points.reversed' THEN -1 END), 0),
                   count(*) FILTER (WHERE type = 'points.granted')
            FROM reward.reward_event
            """,
        )
    return int(amount), int(grants)


def refused(database_url: str) -> dict[str, tuple[int, int]]:
    """Return how often, and how much, was refused for each reason."""
    with transaction(database_url) as cursor:
        cursor.execute(
            "SELECT reason, count(*), sum(amount) FROM reward.reward_event WHERE type = 'reward.refused' GROUP BY 1"
        )
        return {reason: (count, int(amount)) for reason, count, amount in cursor.fetchall()}


def test_the_last_of_a_number_of_times_goes_to_one_of_four_workers(database_url: str) -> None:
    activate(database_url, SEVEN % TIMES)
    work_through(database_url, [purchase(n, f"m{n}") for n in range(80)])
    assert given(database_url) == (175, 25)
    assert counted(database_url) == (0, 25)
    assert refused(database_url) == {"limit_times": (55, 385)}


def test_the_last_points_of_an_amount_are_given_down_to_one(database_url: str) -> None:
    """14 awards of 7 points fit under 100, and 2 of the 15th."""
    activate(database_url, SEVEN % AMOUNT)
    work_through(database_url, [purchase(n, f"m{n}") for n in range(80)])
    assert given(database_url) == (100, 15)
    assert counted(database_url) == (100, 0)
    assert refused(database_url) == {"limit_max": (66, 80 * 7 - 100)}


def test_what_refunds_give_back_is_given_again(database_url: str) -> None:
    activate(database_url, SEVEN % AMOUNT + "- {id: own, on: share, give: [{points: 1}]}\n")
    work_through(database_url, [purchase(n, f"m{n}") for n in range(40)])
    again = [refund(n, f"m{n}") for n in range(40)] + [purchase(n, f"m{n}") for n in range(100, 140)]
    work_through(database_url, again, size=3)
    assert counted(database_url)[0] == given(database_url)[0] <= 100
    work_through(database_url, [purchase(n, f"m{n}") for n in range(200, 240)])
    assert counted(database_url)[0] == given(database_url)[0] == 100
    assert [finding for finding in verify(database_url) if finding["problem"]] == []


def test_budgets_that_batches_touch_crosswise_end_and_are_given_whole(database_url: str) -> None:
    rule = "- {id: %s, on: purchase, campaign: c-%s, when: {purchase.channel: %s}, give: [{points: 1}], limits: [%s]}\n"
    names = ["a", "b", "c", "d"]
    activate(database_url, HEAD + "".join(rule % (n, n, n, "{max: 30, per: campaign}") for n in names))
    events = [purchase(n, f"m{n}", channel=names[(n * 7 + n // 4) % 4]) for n in range(320)]
    work_through(database_url, events, size=4)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT rule_id, sum(amount)::int FROM reward.reward_event WHERE debit = 'issued' GROUP BY 1")
        assert dict(cursor.fetchall()) == dict.fromkeys(names, 30)


def once(at: str, then: Callable[[], object]) -> Callable[[str], None]:
    """Return an observer that does something the first time that a worker comes to a point."""
    done = threading.Event()

    def observe(point: str) -> None:
        if point == at and not done.is_set():
            done.set()
            then()

    return observe


def test_of_two_workers_that_have_read_the_same_rest_one_gives_it(database_url: str) -> None:
    activate(database_url, SEVEN % "{times: 1, per: campaign}")
    meeting = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        racing = [
            pool.submit(
                commit, database_url, Batch([admitted(purchase(n, f"m{n}"))]),
                once("after evaluate", lambda: meeting.wait(30)),
            )
            for n in range(2)
        ]  # fmt: skip
        assert [each.result(30).rewards for each in racing] == [1, 1]
    assert given(database_url) == (7, 1)
    assert refused(database_url) == {"limit_times": (1, 7)}


def test_of_two_workers_the_one_that_has_seen_nothing_left_gives_what_a_refund_gave_back_meanwhile(
    database_url: str,
) -> None:
    activate(database_url, SEVEN % "{times: 1, per: campaign}")
    commit(database_url, Batch([admitted(purchase(1, "m1"))]))
    back = once("after evaluate", lambda: commit(database_url, Batch([admitted(refund(1, "m1"))])))
    commit(database_url, Batch([admitted(purchase(2, "m2"))]), back)
    assert given(database_url) == (7, 2)
    assert refused(database_url) == {}


class Killed(Exception):
    """Stand for the end of a worker at one of its steps."""


@pytest.mark.parametrize("at", ["after hold budgets", "after append rewards", "after save states", "before commit"])
def test_a_worker_that_ends_between_lock_and_commit_gives_everything_back(at: str, database_url: str) -> None:
    """The other, of another shard, waits for the lock meanwhile, and then finds the last unit still there."""
    assert shard_of("m1") != shard_of("m2")
    activate(database_url, SEVEN % "{times: 1, per: campaign}")
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Any] = []

        def end() -> None:
            waiting.append(pool.submit(commit, database_url, Batch([admitted(purchase(2, "m2"))])))
            eventually(lambda: is_waited_for(database_url), "nobody waits for the budget")
            raise Killed

        with pytest.raises(Killed):
            commit(database_url, Batch([admitted(purchase(1, "m1"))]), once(at, end))
        assert waiting[0].result(30).rewards == 1
    assert given(database_url) == (7, 1)
    assert refused(database_url) == {}


def is_waited_for(database_url: str) -> bool:
    with transaction(database_url) as cursor:
        (waiting,) = one(
            cursor,
            """
            SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE NOT granted AND datname = current_database()
            """,
        )
    return bool(waiting)


MIXED = (
    HEAD
    + """\
- {id: often, on: purchase, campaign: spring, give: [{points: 3}, {coupon: t}], limits: [{times: 9, per: campaign}]}
- {id: also, on: share, campaign: spring, give: [{points: 2}], limits: [{times: 11, per: campaign}]}
- {id: rate, on: purchase, group: {id: g, pick: best}, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}],
   limits: [{max: 90, per: campaign}]}
- {id: flat, on: purchase, group: {id: g, pick: best}, give: [{points: 6}],
   limits: [{max: 30, per: campaign, every: day}, {times: 4, per: member}]}
- {id: whole, on: purchase, give: [{cash: {amount: 0.40}}], limits: [{max: 3.00, per: campaign, over: refuse}]}
"""
)


def mixed_history() -> list[Event]:
    found: list[Event] = []
    for n in range(60):
        member_id, at_ms = f"m{n * 7 % 5}", START_MS + n * 3_600_000
        found.append(purchase(n, member_id, occurred_at=at_ms, amount=400 + n * 37 % 900))
        if n % 4 == 0:
            found.append(
                Share(event_id=f"s{n}", member_id=member_id, occurred_at=at_ms + 1, object="x", channel="link")
            )
        if n % 6 == 5:
            head: dict[str, Any] = {"event_id": f"r{n}", "member_id": f"m{(n - 3) * 7 % 5}", "occurred_at": at_ms + 2}
            found.append(Refund(**head, order_id=f"o{n - 3}", refund_id=f"r{n}", amount=(None, 200)[n % 4 == 1]))
    return found


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_log_says_what_simulate_says_and_why_explains_each_event_so(
    size: int, database_url: str, tmp_path: Path
) -> None:
    events = mixed_history()
    (tmp_path / "p.yaml").write_text(MIXED)
    (tmp_path / "e.jsonl").write_text("\n".join(json.dumps(event_to_object(event)) for event in events))
    simulated = simulate(tmp_path / "p.yaml", [tmp_path / "e.jsonl"]).document()["reward_events"]
    activate(database_url, MIXED)
    for first in range(0, len(events), size):
        commit(database_url, Batch([admitted(event) for event in events[first : first + size]]))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id, pos, reward_key, type, amount, reason FROM reward.reward_event")
        logged = sorted((row[0], *row[1:]) for row in cursor.fetchall())
    names = ("member_id", "pos", "reward_key", "type", "amount", "reason")
    assert logged == sorted(tuple(row[name] for name in names) for row in simulated)
    told = [document for n in range(5) for document in why_member(database_url, f"m{n}", last=100)]
    assert len(told) == len(events)
    assert [document["event_id"] for document in told if not document["log_agrees"]] == []


def test_a_fact_says_what_a_budget_let_through_and_none_is_written_where_it_had_enough(database_url: str) -> None:
    activate(database_url, SEVEN % "{max: 10, per: campaign}")
    for n in range(3):
        commit(database_url, Batch([admitted(purchase(n, f"m{n}"))]))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT fact->>'member_id', fact->>'rule', fact->'allowed' FROM guerdon.generation_fact")
        assert sorted(cursor.fetchall()) == [("m1", "r", 3), ("m2", "r", 0)]
    cut, nothing = (why_event(database_url, f"e{n}")["rules"][0]["sentence"] for n in (1, 2))
    budget = 'the budget of campaign "spring", 10 points in a lifetime for all members,'
    assert cut.endswith(f"4 points more were refused, because {budget} had 3 points left: 7 points so far")
    assert nothing == f"r: did not give, because {budget} is used up: 10 points so far"


def test_a_member_who_is_released_takes_from_the_budget_what_is_left_by_then(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, SEVEN % "{max: 20, per: campaign}")
    with monkeypatch.context() as defect:
        defect.setattr(
            "engine.live.load.load_judge",
            lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e2),
        )
        for n in range(1, 4):
            commit(database_url, Batch([admitted(purchase(n, "m1" if n == 2 else "m2"))]))
    assert counted(database_url) == (14, 0)
    commit(database_url, Batch([admitted(purchase(4, "m1"))]))
    with transaction(database_url) as cursor:
        release_member(cursor, shard_of("m1"), "m1")
    assert counted(database_url) == (20, 0)
    assert given(database_url) == (20, 3)
    assert refused(database_url) == {"limit_max": (2, 8)}
    assert why_event(database_url, "e4")["log_agrees"]


def test_a_refund_gives_back_in_the_period_of_the_purchase(database_url: str) -> None:
    activate(database_url, SEVEN % "{max: 10, per: campaign, every: day}")
    commit(database_url, Batch([admitted(purchase(n, f"m{n}")) for n in range(2)]))
    tomorrow = [purchase(n, f"m{n}", occurred_at=START_MS + DAY_MS + n) for n in (2, 3)]
    commit(database_url, Batch([admitted(event) for event in [*tomorrow, refund(0, "m0")]]))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT amount FROM guerdon.budget ORDER BY period")
        assert cursor.fetchall() == [(3,), (10,)]
