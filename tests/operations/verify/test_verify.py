"""`verify` names the first position that is not as it was written, whatever was changed behind Guerdon's back."""

from __future__ import annotations

from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING

import psycopg2
import pytest

from engine.intake.batch import OffsetMove
from engine.live.batch import Batch
from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.kafka import offsets
from engine.store.logs import source_log
from engine.store.logs.binary_copy import pack_text
from operations.verify.checks import verify
from projections.runner import finish
from schemas.partitioning import shard_of
from tests.models.oracle import assert_judged
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres

PLACE = ("t.purchases", 0)
SHARD = shard_of("m1")


@pytest.fixture
def whole(database_url: str) -> str:
    """Return a database with ten purchases of one member, consumed, judged and projected."""
    activate(database_url)
    events = [admitted(purchase(number)) for number in range(10)]
    for offset, event in enumerate(events):
        event.topic, event.partition, event.offset = *PLACE, offset
    with transaction(database_url) as cursor:
        offsets.add_partitions(cursor, {PLACE: 0})
    commit(database_url, Batch(events, moves={PLACE: OffsetMove(0, 10, START_MS)}))
    finish(database_url, Event())
    assert problems(database_url) == []
    return database_url


def problems(database_url: str) -> list[str]:
    return [finding["problem"] for finding in verify(database_url) if finding["problem"]]


def tamper(database_url: str, statement: str, *parameters: object) -> int:
    """Change the database as its owner may, past the triggers, and return how many rows that touched."""
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


SWAP = """
UPDATE guerdon.{log} SET {place} = CASE {place} WHEN 3 THEN -4 ELSE -3 END WHERE shard = %s AND {place} IN (3, 4);
UPDATE guerdon.{log} SET {place} = -{place} WHERE shard = %s AND {place} < 0
"""
CHANGES = {
    "I3 an amount of the reward log": (
        "UPDATE guerdon.reward_event SET amount = amount + 1 WHERE shard = %s AND pos = 5",
        f"reward log, shard {SHARD}, pos 5: the row is not what was written",
    ),
    "I3 a payload of the source log": (
        "UPDATE guerdon.source_event SET payload = payload || '\\x00' WHERE shard = %s AND seq = 5",
        f"source log, shard {SHARD}, seq 5: the row is not what was written",
    ),
    "I3 a hash": (
        "UPDATE guerdon.source_event SET hash = sha256('') WHERE shard = %s AND seq = 6",
        f"source log, shard {SHARD}, seq 6: the row is not what was written",
    ),
    "I3 a member's chain": (
        "UPDATE guerdon.source_event SET prev_seq = 0 WHERE shard = %s AND seq = 7",
        f"source log, shard {SHARD}, seq 7: the row is not what was written",
    ),
    "I2 a row of the source log deleted": (
        "DELETE FROM guerdon.source_event WHERE shard = %s AND seq = 4",
        f"source log, shard {SHARD}: seq 4 is missing",
    ),
    "I2 a row of the reward log deleted": (
        "DELETE FROM guerdon.reward_event WHERE shard = %s AND pos = 4",
        f"reward log, shard {SHARD}: pos 4 is missing",
    ),
    "I2 the last row deleted": (
        "DELETE FROM guerdon.reward_event WHERE shard = %s AND pos = 10",
        f"reward log, shard {SHARD}: pos 10 is missing",
    ),
    "I9 two rows of the source log swapped": (
        SWAP.format(log="source_event", place="seq"),
        f"source log, shard {SHARD}, seq 3: the row is not what was written",
    ),
    "I7 a balance changed by one": (
        "UPDATE guerdon.member_balance SET active = active + 1, issued = issued - 1 WHERE shard = %s",
        (
            "member m1, points: the projection says issued -101, active 101 and the log says issued -100, active 100; "
            "run `guerdon projection rebuild member_balance`"
        ),
    ),
    "I4 I12 a balance that is no longer a balance": (
        "UPDATE guerdon.member_balance SET active = active + 1 WHERE shard = %s",
        "member m1, points: the balance equations do not hold",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_behind_guerdons_back_is_named_with_its_first_position(what: str, whole: str) -> None:
    statement, wanted = CHANGES[what]
    if "swapped" in what:
        tamper(whole, "ALTER TABLE guerdon.source_event DROP CONSTRAINT source_event_seq_check")
    assert tamper(whole, statement, *[SHARD] * statement.count("%s")) > 0
    assert problems(whole)[0] == wanted


@pytest.mark.parametrize("counter", ["accepted", "duplicate", "quarantined", "passed", "next_offset"])
def test_i1_a_counter_of_an_offset_that_is_off_by_one_is_named(counter: str, whole: str) -> None:
    tamper(whole, f"UPDATE guerdon.consumer_offset SET {counter} = {counter} + 1")
    (problem,) = problems(whole)
    assert problem.startswith("t.purchases partition 0: ")


def test_i1_a_quarantined_record_that_vanished_is_named(whole: str) -> None:
    tamper(whole, "UPDATE guerdon.consumer_offset SET quarantined = 1, accepted = 9")
    (problem,) = problems(whole)
    assert problem == (
        "t.purchases partition 0: offsets 0 to 9 were taken, 10, but 9 are accepted, 0 duplicate, 1 quarantined, 0 "
        "passed; the log holds 10, the quarantine 0; each of them is kept"
    )


def append_again(cursor: Cursor, number: int) -> None:
    """Append an event that the log has, in good form, as a worker with a defect would."""
    (head,) = source_log.lock_heads(cursor, [SHARD], 1).values()
    rows = source_log.SourceRows()
    event = purchase(number)
    texts = pack_text(event.member_id) + pack_text(event.source) + pack_text(event.event_id)
    rows.append(admitted(event), head, head.seq, texts, None)
    rows.write_events(cursor)
    source_log.save_heads(cursor, [head], live_generation.live(cursor))


def test_i5_an_event_that_stands_in_the_log_twice_is_named_though_every_hash_is_right(whole: str) -> None:
    with transaction(whole) as cursor:
        append_again(cursor, 3)
    assert problems(whole) == [
        f"source log, shard {SHARD}, seq 12: event e3 of source default stands in the log 2 times"
    ]


def test_i5_a_reward_key_that_stands_twice_is_named(whole: str) -> None:
    tamper(
        whole,
        """
        UPDATE guerdon.reward_event SET reward_key = (SELECT reward_key FROM guerdon.reward_event WHERE pos = 1)
        WHERE pos = 2 AND shard = %s
        """,
        SHARD,
    )
    changed, repeated, *_ = problems(whole)
    assert changed == f"reward log, shard {SHARD}, pos 2: the row is not what was written"
    assert repeated.startswith(f"reward log, shard {SHARD}, pos 2: reward_key ")
    assert repeated.endswith("stands in the log 2 times")


def test_i6_the_oracle_finds_a_reward_event_that_nobody_earned_though_every_hash_is_right(whole: str) -> None:
    with transaction(whole) as cursor:
        assert_judged(cursor)
        append_again(cursor, 99)
        with pytest.raises(AssertionError, match="missing or too many"):
            assert_judged(cursor)


@pytest.mark.parametrize("log", ["source_event", "reward_event", "reward_event_g1"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET seq = 1", "DELETE FROM {}", "TRUNCATE {}"])
def test_i8_not_even_the_owner_changes_a_log_while_its_triggers_stand(log: str, statement: str, whole: str) -> None:
    with (
        closing(psycopg2.connect(whole)) as connection,
        connection.cursor() as cursor,
        pytest.raises(psycopg2.errors.RaiseException, match="is append-only"),
    ):
        cursor.execute(statement.format(f"guerdon.{log}"))


@pytest.mark.parametrize("statement", ["UPDATE {} SET seq = 1", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize("log", ["guerdon.source_event", "guerdon.reward_event_g1"])
def test_i8_the_writer_has_no_right_to_change_a_log(log: str, statement: str, whole: str) -> None:
    with transaction(whole) as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(statement.format(log))
