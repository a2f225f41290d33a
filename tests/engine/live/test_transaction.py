"""What the live transaction writes depends on the events alone: not on batches, workers, partitions or races."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from engine.intake.batch import OffsetMove
from engine.live.batch import Batch
from engine.live.work import Outcome
from engine.store.database import transaction
from engine.store.kafka import offsets
from engine.store.kafka.offsets import Fenced
from engine.store.programmes import load_judge
from operations.settings import Settings, load_settings
from operations.verify.checks import verify
from projections.runner import finish
from schemas.events import Share, Touch
from tests.engine.books import Refusing
from tests.models.oracle import assert_judged, assert_whole, rewards_by_member
from tests.system.batches import admitted, commit, purchase
from tests.system.load import PROGRAMME, PROGRAMME_WITHOUT_ORDER, START_MS, Load, activate, make_topics, publish
from tests.system.workers import catch_up, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.models.oracle import Row

EVENTS = 250
MEMBERS = 12


def totals(outcomes: list[Outcome]) -> tuple[int, int, int]:
    return (
        sum(each.accepted for each in outcomes),
        sum(each.duplicate for each in outcomes),
        sum(each.quarantined for each in outcomes),
    )


def assert_sound(database_url: str) -> None:
    assert [finding for finding in verify(database_url) if finding["problem"]] == []


# The same input, in other company


class Topics:
    """Publish each load once; every run reads it into a database of its own."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        self._bootstrap = bootstrap
        self._home = home
        self._prefixes: dict[str, str] = {}

    def settings(self, database_url: str, load: Load, partitioner: str, **more: Any) -> Settings:
        name = f"{partitioner}{load.bad}{load.late}"
        known = name in self._prefixes
        prefix = self._prefixes.setdefault(name, f"t{uuid.uuid4().hex[:10]}.")
        found = load_settings(
            bootstrap_servers=self._bootstrap, database_url=database_url, topic_prefix=prefix,
            group_id=uuid.uuid4().hex, home=self._home, **more,
        )  # fmt: skip
        if not known:
            make_topics(found, 4)
            publish(found, load.messages, partitioner)
        return found


@pytest.fixture(scope="module")
def topics(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Topics:
    return Topics(kafka_bootstrap, tmp_path_factory.mktemp("home"))


SEEN: dict[str, dict[str, list[Row]]] = {}
in_one_process = pytest.mark.xdist_group("the same input")  # which compares them by SEEN


def judge(
    topics: Topics, database_url: str, load: Load, how: tuple[str, int, int], programme: str = PROGRAMME
) -> dict[str, list[Row]]:
    """Take `load` with (partitioner, largest batch, number of workers), and return each member's reward events."""
    partitioner, max_batch, workers = how
    activate(database_url, programme)
    settings = topics.settings(database_url, load, partitioner, max_batch=max_batch)
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(catch_up, settings) for _ in range(workers)]:
            done.result()
    assert_whole(settings, load.messages)
    return rewards_by_member(database_url)


@pytest.mark.kafka
@in_one_process
@pytest.mark.parametrize(("max_batch", "workers"), [(500, 1), (1, 1), (7, 1), (500, 3), (7, 3)])
def test_with_topics_partitioned_alike_neither_batches_nor_workers_change_what_a_member_gets(
    max_batch: int, workers: int, topics: Topics, database_url: str
) -> None:
    load = Load(MEMBERS).fill(EVENTS)
    found = judge(topics, database_url, load, ("murmur2_random", max_batch, workers))
    assert found == SEEN.setdefault("alike", found)
    assert len(found) > MEMBERS // 2


@pytest.mark.kafka
@in_one_process
@pytest.mark.parametrize("how", [("murmur2_random", 500, 1), ("random", 500, 1), ("random", 7, 1), ("random", 1, 1)])
def test_one_worker_merges_scattered_partitions_into_the_order_in_which_things_happened(
    how: tuple[str, int, int], topics: Topics, database_url: str
) -> None:
    """With times that rise strictly, that order is the order of publication, and limits fall on the same events."""
    load = Load(MEMBERS, bad=False, late=False).fill(EVENTS)
    found = judge(topics, database_url, load, how)
    assert found == SEEN.setdefault("scattered", found)


@pytest.mark.kafka
@in_one_process
@pytest.mark.parametrize("how", [("murmur2_random", 500, 1), ("random", 500, 3), ("random", 7, 3)])
def test_three_workers_on_scattered_partitions_give_each_event_what_it_is_worth(
    how: tuple[str, int, int], topics: Topics, database_url: str
) -> None:
    """Without limits: one member's events come through three workers, and nothing orders those among each other.

    A daily limit may then be used up by another of the day's events, and points be spent before or after they are
    earned, which is right as well. What an event is worth by itself is the same however it comes, and that is what is
    compared, without the order.
    """
    load = Load(MEMBERS, bad=False, late=False).fill(EVENTS)
    judged = judge(topics, database_url, load, how, PROGRAMME_WITHOUT_ORDER)
    granted = {member_id: [row for row in rows if row[1] == "points.granted"] for member_id, rows in judged.items()}
    found = {member_id: sorted(rows, key=str) for member_id, rows in granted.items() if rows}
    assert found == SEEN.setdefault("without order", found)


# Races


@pytest.mark.postgres
@pytest.mark.parametrize("other_member", [False, True])
@pytest.mark.parametrize("other_content", [False, True])
def test_of_two_workers_that_are_given_the_same_event_id_at_once_exactly_one_accepts_it(
    database_url: str, *, other_member: bool, other_content: bool
) -> None:
    activate(database_url)
    meeting = threading.Barrier(2)

    def meet(point: str) -> None:
        if point == "before append identities" and not meeting.broken:
            try:
                meeting.wait(1 if other_member else 0.2)
            except threading.BrokenBarrierError:
                return  # the other waits for the shard's head, which is as good

    first = purchase(1)
    second = purchase(1, "m2" if other_member else "m1", amount=2_000 if other_content else 1_000)
    same = second == first
    # more than a small batch each, so that nothing is looked up before it is inserted
    batches = [
        Batch([admitted(event), *(admitted(purchase(place + number, f"m{place}")) for number in range(300))])
        for place, event in ((1_000, first), (2_000, second))
    ]
    with ThreadPoolExecutor(2) as pool:
        racing = [pool.submit(commit, database_url, batch, meet) for batch in batches]
        outcomes = [each.result(30) for each in racing]
    assert totals(outcomes) == (601, 1 if same else 0, 0 if same else 1)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT count(*) FROM guerdon.source_event WHERE event_id = 'e1'")
        assert cursor.fetchone() == (1,)
        cursor.execute("SELECT reason FROM guerdon.quarantine")
        assert cursor.fetchall() == ([] if same else [("id_conflict",)])
        cursor.execute("SELECT count(*) FROM guerdon.reward_event WHERE event_id = 'e1' AND rule_id = 'spend'")
        assert cursor.fetchone() == (1,)


@pytest.mark.postgres
def test_an_order_that_comes_twice_at_once_under_two_event_ids_with_other_content_is_accepted_once(
    database_url: str,
) -> None:
    activate(database_url)
    with ThreadPoolExecutor(2) as pool:
        racing = [
            pool.submit(commit, database_url, Batch([admitted(purchase(1, event_id=event_id, amount=amount))]))
            for event_id, amount in (("a", 1_000), ("b", 2_000))
        ]
        assert totals([each.result(30) for each in racing]) == (1, 0, 1)


@pytest.mark.postgres
def test_batches_that_hold_the_same_events_crosswise_end_and_accept_each_once(database_url: str) -> None:
    activate(database_url)
    events = [admitted(purchase(number, f"m{number}")) for number in range(400)]
    orders = [events, events[::-1], events[200:] + events[:200], events[::2] + events[1::2]]
    with ThreadPoolExecutor(4) as pool:
        racing = [pool.submit(commit, database_url, Batch(order)) for order in orders]
        assert totals([each.result(60) for each in racing]) == (400, 1_200, 0)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT event_id) FROM guerdon.source_event WHERE kind = 'purchase'")
        assert cursor.fetchone() == (400, 400)


@pytest.mark.postgres
def test_of_two_batches_from_the_same_offset_the_second_is_fenced_and_writes_nothing(database_url: str) -> None:
    activate(database_url)
    place = ("t.purchases", 0)
    with transaction(database_url) as cursor:
        offsets.add_partitions(cursor, {place: 0})
    first, second = admitted(purchase(1)), admitted(purchase(2))
    for each in (first, second):
        each.topic, each.partition, each.offset = *place, 0
    commit(database_url, Batch([first], moves={place: OffsetMove(0, 1, START_MS)}))
    with pytest.raises(Fenced, match=r"t\.purchases partition 0 stands at 1, not at 0"):
        commit(database_url, Batch([second], moves={place: OffsetMove(0, 1, START_MS)}))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT event_id FROM guerdon.source_event WHERE kind = 'purchase'")
        assert cursor.fetchall() == [("e1",)]


# Errors of evaluation


@pytest.mark.postgres
def test_events_that_cannot_be_judged_hold_their_members_however_many_and_nobody_else(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url)
    bad = {f"m{number}" for number in range(0, 100, 2)}
    monkeypatch.setattr(
        "engine.live.load.load_judge",
        lambda cursor, version: Refusing(load_judge(cursor, version), lambda event: event.member_id in bad),
    )
    events = [admitted(purchase(number, f"m{number % 100}")) for number in range(300)]
    assert totals([commit(database_url, Batch(events))]) == (300, 0, 0)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT member_id), min(reason) FROM guerdon.quarantine")
        assert cursor.fetchone() == (50, 50, "evaluation_failed")
        cursor.execute("SELECT count(*) FROM guerdon.reward_event")
        assert cursor.fetchone() == (150,)
    finish(database_url, threading.Event())
    with transaction(database_url) as cursor:
        assert_judged(cursor)


@pytest.mark.postgres
def test_a_touch_has_no_member_and_a_share_beside_it_counts(database_url: str) -> None:
    activate(database_url)
    touch = Touch(event_id="t", occurred_at=START_MS, referral_code="code", visitor="hash")
    share = Share(event_id="s", occurred_at=START_MS, member_id="m1", object="shoe", channel="link")
    assert commit(database_url, Batch([admitted(touch), admitted(share)])) == Outcome(2, 0, 0, 1)
    assert_sound(database_url)


@pytest.mark.postgres
def test_a_worker_that_waited_for_a_shard_goes_on_where_the_other_one_ended(database_url: str) -> None:
    """Both logs' heads must be read after the wait, also where the first events give nothing and leave no trace."""
    activate(database_url)
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        late: list[Any] = []

        def arrive(point: str) -> None:
            if point == "after look up":
                waiting.set()

        def let_the_other_wait(point: str) -> None:
            if point == "after load":
                nothing = Batch([admitted(purchase(2, amount=10))])
                late.append(pool.submit(commit, database_url, nothing, arrive))
                assert waiting.wait(10)
                eventually(lambda: waits_for_a_lock(database_url), "the other worker at the shard's head")

        commit(database_url, Batch([admitted(purchase(1))]), let_the_other_wait)
        assert late[0].result(10) == Outcome(1, 0, 0, 0)
    assert commit(database_url, Batch([admitted(purchase(3))])) == Outcome(1, 0, 0, 1)
    finish(database_url, threading.Event())
    assert_sound(database_url)


def waits_for_a_lock(database_url: str) -> bool:
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone() != (0,))
