"""Edges where two commands, or a command and a worker, meet; each was found by somebody who tried to break it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg2
import pytest

import engine.driver
from engine.evaluate import fold
from engine.live.batch import Batch
from engine.live.duplicates import SMALL_BATCH
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.store import quarantine
from engine.store.database import INFRASTRUCTURE, transaction
from operations.verify.checks import verify
from projections import runner
from projections.rebuild import REBUILD_LOCK, rebuild
from schemas.errors import AnswerIsNo
from schemas.events import Erasure, Event, Signup
from schemas.partitioning import shard_of
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.ledger.books import Books
    from engine.member.state import MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import MemberEvent
    from schemas.rewards import RewardEvent

pytestmark = pytest.mark.postgres


@pytest.fixture
def logged(database_url: str) -> str:
    activate(database_url)
    commit(database_url, Batch(admitted=[admitted(purchase(number, f"m{number % 7}")) for number in range(50)]))
    return database_url


def test_a_build_that_was_cleared_away_meanwhile_has_nothing_to_fold(logged: str) -> None:
    with closing(runner.connect_to_project(logged)) as connection:
        assert runner.advance(connection, [12_345]) == 0


def test_of_two_rebuilds_at_once_one_is_told_to_wait_and_the_view_is_never_empty(logged: str) -> None:
    rebuild(logged, "member_balance")

    def again(_: int) -> None:
        with suppress(AnswerIsNo):
            rebuild(logged, "member_balance")

    empty = 0
    with ThreadPoolExecutor(3) as pool, closing(psycopg2.connect(logged)) as connection:
        connection.autocommit = True
        running = [pool.submit(again, number) for number in range(12)]
        with connection.cursor() as cursor:
            while not all(each.done() for each in running):
                cursor.execute("SELECT count(*) FROM reward.member_balance")
                empty += cursor.fetchone() == (0,)
        for each in running:
            each.result()
    assert empty == 0
    assert all(finding["problem"] is None for finding in verify(logged))


def test_a_rebuild_beside_another_says_so(logged: str) -> None:
    with transaction(logged) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext('member_balance'))", (REBUILD_LOCK,))
        with pytest.raises(AnswerIsNo, match="another rebuild of member_balance is under way"):
            rebuild(logged, "member_balance")


def test_a_server_that_is_read_only_counts_as_infrastructure(logged: str) -> None:
    read_only = psycopg2.connect(logged, options="-c default_transaction_read_only=on")
    with closing(read_only), read_only.cursor() as cursor, pytest.raises(INFRASTRUCTURE):
        cursor.execute("INSERT INTO guerdon.setting (name, value) VALUES ('x', '')")


def test_what_an_erased_member_sent_before_is_a_duplicate_when_met_again_in_a_batch_of_any_size(logged: str) -> None:
    events: list[Event] = []
    for number in range(SMALL_BATCH):
        member_id = f"gone-{number}"
        events.append(Signup(event_id=f"s{number}", member_id=member_id, occurred_at=START_MS))
        events.append(Erasure(event_id=f"x{number}", member_id=member_id, occurred_at=START_MS))
    batch = Batch(admitted=[admitted(event) for event in events])
    assert len(batch.admitted) > SMALL_BATCH
    first = commit(logged, batch)
    assert (first.accepted, first.duplicate, first.quarantined) == (len(events), 0, 0)
    again = commit(logged, batch)
    assert (again.accepted, again.duplicate, again.quarantined) == (0, len(events), 0)


def test_a_held_member_who_asks_for_erasure_is_erased_at_once_and_can_be_released(
    logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_one(
        state: MemberState, event: MemberEvent, occurrence: Occurrence, judge: Judge, books: Books
    ) -> Sequence[RewardEvent]:
        if event.event_id == "e900":
            raise ZeroDivisionError
        return fold(state, event, occurrence, judge, books)

    signup = Signup(event_id="s", member_id="h", occurred_at=START_MS, birthday="1990-01-02")
    erasure = Erasure(event_id="x", member_id="h", occurred_at=START_MS + 1_000)
    batch = Batch(admitted=[admitted(each) for each in (purchase(900, "h"), signup, erasure, purchase(901, "h"))])
    monkeypatch.setattr(engine.driver, "fold", fail_for_one)
    with closing(LiveTransaction(logged, SCHEMAS.lookup)) as live:
        outcome = live.commit(batch)
    assert (outcome.accepted, outcome.quarantined) == (3, 1), "the purchase after the erasure is set aside"
    monkeypatch.undo()
    with transaction(logged) as cursor:
        assert release_member(cursor, shard_of("h"), "h") > 0
    assert all(finding["problem"] is None for finding in verify(logged))


def test_a_record_that_was_discarded_meanwhile_is_not_released(logged: str) -> None:
    bad = Batch(admitted=[admitted(purchase(1, "m1", amount=77))])
    assert commit(logged, bad).quarantined == 1
    with transaction(logged) as cursor:
        quarantine.resolve(cursor, 1, "discarded", "test")
    with pytest.raises(AnswerIsNo, match="somebody else meanwhile"), transaction(logged) as cursor:
        quarantine.resolve(cursor, 1, "released", None)
