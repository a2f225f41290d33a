"""`why` and `member` on a real PostgreSQL: they explain ticks and referrals, too, and find them by indexes."""

from __future__ import annotations

import json
import random
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from bench.as_of import FILL
from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.programme.interpret.interpreter import Interpreter
from engine.store.cursor import one
from engine.store.database import transaction
from operations.member.view import LAST_REWARD_EVENTS, member
from operations.rows import dictionaries
from operations.why.event import why_event, why_member, why_reward
from operations.why.own import BY_KEY, LAST_BROUGHT
from schemas.events import Activity, Signup
from schemas.json_events import decode_json
from schemas.partitioning import shard_of
from schemas.scalars import instant_from_iso
from tests.engine.live.test_referrals import PROGRAMME as OF_REFERRALS
from tests.engine.live.test_referrals import drain, order, signup, taken_in
from tests.strategies.histories import DAY_MS, History, programme
from tests.system.batches import SCHEMAS, admitted, commit
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from schemas.events import Event

pytestmark = pytest.mark.postgres
EVENTS, MEMBERS = 160, 3
NOBODY = 10_000


def keys_of(documents: list[dict[str, Any]]) -> list[str]:
    """Return the keys of all explained reward events, in order."""
    return sorted(
        each["reward_key"]
        for document in documents
        for each in (
            *(award for rule in document["rules"] for award in (*rule["gave"], *rule["refused"])),
            *document["moved"],
        )
    )


@pytest.fixture
def recorded(database_url: str) -> str:
    """Return a database with a year of everything that time brings, ticks between the batches."""
    activate(database_url, programme())
    lines = History(MEMBERS, seed=5).fill(EVENTS).in_time
    chance = random.Random(5)  # noqa: S311  a test must repeat
    while lines:
        taken = [lines.pop(0) for _ in range(min(len(lines), chance.randrange(1, 30)))]
        events: list[Event] = [decode_json(json.dumps(line)) for line in taken]
        commit(database_url, Batch([admitted(event) for event in events]))
        at_ms = instant_from_iso(taken[-1]["occurred_at"], "at")
        if chance.random() < 0.5:
            commit(database_url, Batch(clock=ClockMove(at_ms, everywhere=True)))
    while commit(database_url, Batch(clock=ClockMove(at_ms + 400 * DAY_MS, everywhere=True))).ticks:
        pass
    return database_url


def test_everything_that_happened_to_a_member_is_told_as_the_log_has_it(recorded: str) -> None:
    with transaction(recorded) as cursor:
        rows = dictionaries(cursor, "SELECT member_id, reward_key, event_id, type FROM reward.reward_event")
    kinds = set()
    for number in range(MEMBERS):
        told = why_member(recorded, f"member-{number}", NOBODY)
        assert [each["log_agrees"] for each in told] == [True] * len(told)
        assert keys_of(told) == sorted(row["reward_key"] for row in rows if row["member_id"] == f"member-{number}")
        kinds |= {(each["status"], each["type"]) for each in told}
    assert ("by itself", "tick") in kinds
    of_ticks = [row for row in rows if row["event_id"].startswith("tick-")]
    assert {row["type"] for row in of_ticks} >= {"points.expired", "tier.changed", "points.granted", "points.voided"}
    for kind in {row["type"] for row in of_ticks}:
        row = next(each for each in of_ticks if each["type"] == kind)
        found = why_reward(recorded, row["reward_key"])
        assert (found["status"], found["log_agrees"], len(found["notes"])) == ("by itself", True, 1)
        assert keys_of([found]).count(row["reward_key"]) == (1 if kind == "points.granted" else 0)


def test_a_referrer_sees_their_own_events_whatever_is_passed_on_to_them(database_url: str) -> None:
    activate(database_url, OF_REFERRALS)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        taken_in(worker, signup(1, "ann"), order(2, "ann", 1), signup(3, "bob", 2, referrer_id="ann"))
        taken_in(worker, *(order(number, "bob", number) for number in range(10, 60)))
        drain(worker)
    shown = member(database_url, "ann")["reward_events"]
    with transaction(database_url) as cursor:
        everything = one(cursor, "SELECT count(*) FROM reward.reward_event WHERE member_id = 'ann'")[0]
        passed_on = one(cursor, "SELECT count(*) FROM guerdon.source_event WHERE kind = 'forwarded'")[0]
    assert (len(shown), passed_on) == (min(everything, 20), 51)
    told = why_member(database_url, "ann", 3)
    assert {"s1", "p2"} < {each["event_id"] for each in told}
    brought = {row["event_id"] for row in shown}
    assert {each["event_id"] for each in told} <= brought | {"s1", "p2"}
    forwarded = [each for each in told if each["type"] == "forwarded"]
    assert forwarded
    assert all(keys_of([each]) for each in forwarded)


QUIET_BIRTHDAYS = """\
schema: guerdon/1
programme: quiet
timezone: UTC
currency: USD
points: {validity: 5d}
rules:
- {id: rich, on: birthday, when: {member.balance: {gte: 1000}}, give: [{points: 100}]}
- {id: played, on: activity, give: [{points: 3}]}
"""


def test_a_tick_that_gave_nothing_has_moved_the_clock_all_the_same(database_url: str) -> None:
    """The birthday gives nothing. A late activity's points have lapsed by the clock when they come."""
    activate(database_url, QUIET_BIRTHDAYS)
    born = Signup(event_id="s1", member_id="m1", occurred_at=START_MS, birthday="1990-05-10")
    commit(database_url, Batch([admitted(born)]))
    assert commit(database_url, Batch(clock=ClockMove(START_MS + 30 * DAY_MS, everywhere=True))).ticks == 1
    late = Activity(event_id="a1", member_id="m1", occurred_at=START_MS + DAY_MS, kind="game")
    commit(database_url, Batch([admitted(late)]))

    told = why_event(database_url, "a1")
    assert told["log_agrees"]
    assert [each["type"] for each in told["moved"]] == ["points.expired"]


def test_no_question_about_a_member_or_a_reward_reads_the_whole_log(database_url: str) -> None:
    asked = {"generation": 1, "live": 1, "shard": shard_of("busy"), "member": "busy", "last": 20}
    with transaction(database_url, role="none") as cursor:
        fill = {"every": 100, "busy": "busy", "others": 5_000, "log": 40_000, "shard": asked["shard"]}
        cursor.execute(FILL, fill)
        cursor.execute("SELECT brin_summarize_new_values('guerdon.reward_event_g1_key')")
        cursor.execute("ANALYZE guerdon.reward_event")
        asked["key"] = one(cursor, "SELECT reward_key FROM guerdon.reward_event WHERE pos = 20000")[0]
        for query, index in (
            (LAST_BROUGHT, "reward_event_g1_member"),
            (LAST_REWARD_EVENTS, "reward_event_g1_member"),
            (f"{BY_KEY} AND shard = %(shard)s AND member_id = %(member)s", "reward_event_g1_member"),
        ):
            assert index in plan(cursor, query, asked)
        cursor.execute("SET LOCAL enable_seqscan = off")  # as `find_reward` does
        by_key = plan(cursor, BY_KEY, asked)
    assert "Bitmap Index Scan on reward_event_g1_key" in by_key
    rows_read = int(by_key.split("Rows Removed by Index Recheck: ")[1].split("\n")[0])
    assert rows_read < 10_000, "the whole log was read"


def plan(cursor: Any, query: str, asked: dict[str, Any]) -> str:
    """Return how PostgreSQL carries out a query, which must not read a whole table."""
    cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {query.format(log='reward_event_g1')}", asked)
    found = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan on reward_event" not in found
    return found


def test_one_event_of_a_long_history_is_judged_by_the_interpreter_and_all_others_by_the_compiled_programme(
    recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    judge = Interpreter.rewards_for

    def noted(self: Interpreter, event: Any, state: Any, occurrence: Any) -> Any:
        judged.append(event.event_id)
        return judge(self, event, state, occurrence)

    monkeypatch.setattr(Interpreter, "rewards_for", noted)
    with transaction(recorded) as cursor:
        query = "SELECT event_id FROM guerdon.source_event WHERE kind = 'purchase' ORDER BY occurred_at DESC LIMIT 1"
        (newest,) = one(cursor, query)
    assert why_event(recorded, newest)["log_agrees"] is True
    assert judged.count(newest) == 1
    assert not [each for each in judged if each.startswith("e") and each != newest]
