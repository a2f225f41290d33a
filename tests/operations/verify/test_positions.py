"""Whatever byte or row is changed behind Guerdon's back, `verify` names its position and exits with 1."""

from __future__ import annotations

import sys

import psycopg2
import pytest

from cli import main
from engine.live.batch import Batch
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.kafka import offsets
from engine.store.logs import source_log
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.hash_chain import REWARD_COLUMNS, SOURCE_COLUMNS
from engine.store.logs.reward_log import PostingFields, RewardRows
from operations.verify.checks import CHECKS, verify
from tests.operations.verify.conftest import take
from tests.operations.verify.test_ledger import GRANT
from tests.operations.verify.test_verify import PLACE, SHARD, problems, tamper
from tests.system.batches import admitted, commit, purchase

pytestmark = pytest.mark.postgres


def answer(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[object, str]:
    """Return the exit code of `guerdon verify` and the last line on standard error, after that of the progress."""
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    monkeypatch.setattr(sys, "argv", ["guerdon", "verify", *words])
    with pytest.raises(SystemExit) as left:
        main.run()
    return left.value.code, capsys.readouterr().err.splitlines()[-1]


def test_what_was_not_touched_is_sound(whole: str) -> None:
    assert [finding["check"] for finding in verify(whole)] == list(CHECKS)
    assert problems(whole) == []


FLIPS = {
    "smallint": "({c} # 1)::smallint",
    "integer": "coalesce({c} # 1, 1)",
    "bigint": "{c} # 1",
    "timestamp with time zone": "coalesce({c} + interval '1 microsecond', to_timestamp(0))",
    "text": "coalesce(overlay({c} placing chr(ascii({c}) # 1) FROM 1 FOR 1), 'x')",
    "bytea": "coalesce(set_byte({c}, 2, get_byte({c}, 2) # 1), '\\x00')",
    "guerdon.source_kind": "'share'",
    "guerdon.reward_type": "'points.adjusted'",
    "guerdon.account": "'spent'",
}
"""How a value is changed in one place, by its type: in one bit, where there is one."""

FLIPPED = [
    *(("source_event", "seq", column) for column in SOURCE_COLUMNS if column not in ("seq", "shard")),
    *(("reward_event", "pos", column) for column in REWARD_COLUMNS if column not in ("pos", "shard", "generation")),
]


@pytest.mark.parametrize(("log", "place", "column"), FLIPPED)
def test_i3_one_bit_of_any_column_that_is_flipped_is_named(log: str, place: str, column: str, whole: str) -> None:
    with transaction(whole) as cursor:
        (kind,) = one(
            cursor,
            """
            SELECT format_type(atttypid, NULL) FROM pg_attribute
            WHERE attrelid = %s::regclass AND attname = %s
            """,
            (f"guerdon.{log}", column),
        )
    flipped = FLIPS[kind].format(c=column)
    assert tamper(whole, f"UPDATE guerdon.{log} SET {column} = {flipped} WHERE shard = %s AND {place} = 5", SHARD) == 1
    name = log.replace("_event", " log")
    assert problems(whole)[0] == f"{name}, shard {SHARD}, {place} 5: the row is not what was written"


def test_i3_no_row_can_be_given_to_a_generation_in_whose_part_of_the_log_it_is_not(whole: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        tamper(whole, "UPDATE guerdon.reward_event SET generation = 2")


AT_SHARD = {
    "I2 the first row of the source log deleted": (
        "DELETE FROM guerdon.source_event WHERE shard = %s AND seq = 1",
        f"source log, shard {SHARD}: seq 1 is missing",
    ),
    "I2 a row in the midst of the source log deleted": (
        "DELETE FROM guerdon.source_event WHERE shard = %s AND seq = 6",
        f"source log, shard {SHARD}: seq 6 is missing",
    ),
    "I2 the last row of the source log deleted": (
        "DELETE FROM guerdon.source_event WHERE shard = %s AND seq = 11",
        f"source log, shard {SHARD}: seq 11 is missing",
    ),
    "I2 the first row of the reward log deleted": (
        "DELETE FROM guerdon.reward_event WHERE shard = %s AND pos = 1",
        f"reward log, shard {SHARD}: pos 1 is missing",
    ),
    "I2 a row in the midst of the reward log deleted": (
        "DELETE FROM guerdon.reward_event WHERE shard = %s AND pos = 7",
        f"reward log, shard {SHARD}: pos 7 is missing",
    ),
    "I2 all rows of the reward log deleted": (
        "DELETE FROM guerdon.reward_event WHERE shard = %s",
        f"reward log, shard {SHARD}: pos 1 is missing",
    ),
    "I2 a row that moved on": (
        "UPDATE guerdon.source_event SET seq = seq + 1 WHERE shard = %s AND seq = 11",
        f"source log, shard {SHARD}: seq 11 is missing",
    ),
    "I2 a row that moved to another shard": (
        "UPDATE guerdon.reward_event SET shard = 63 WHERE shard = %s AND pos = 5",
        f"reward log, shard {SHARD}: pos 5 is missing",
    ),
    "I2 a row that moved to a shard that there is not": (
        "UPDATE guerdon.reward_event SET shard = 64 WHERE shard = %s AND pos = 5",
        "reward log, shard 64, pos 5: there is no such shard",
    ),
    "I2 a row of the source log beyond the head": (
        """
        INSERT INTO guerdon.source_event
        SELECT 12, prev_seq, occurred_at, recorded_at, offset_, partition, schema_id, shard, kind, member_id, source,
               event_id, payload, sealed, hash
        FROM guerdon.source_event WHERE shard = %s AND seq = 11
        """,
        f"source log, shard {SHARD}, seq 12: the row stands beyond the head, 11",
    ),
    "I2 a reward in a shard that has none": (
        "UPDATE guerdon.reward_event SET shard = 63, pos = 1 WHERE shard = %s AND pos = 10",
        f"reward log, shard {SHARD}: pos 10 is missing",
    ),
    "I3 the hash of the source log's head changed": (
        "UPDATE guerdon.shard_head SET hash = set_byte(hash, 0, get_byte(hash, 0) # 1) WHERE shard = %s",
        f"source log, shard {SHARD}, seq 11: the head has another hash than the last row",
    ),
    "I3 the hash of the reward log's head changed": (
        "UPDATE guerdon.generation_head SET hash = set_byte(hash, 0, get_byte(hash, 0) # 1) WHERE shard = %s",
        f"reward log, shard {SHARD}, pos 10: the head has another hash than the last row",
    ),
    "I2 a head that went back": (
        "UPDATE guerdon.shard_head SET seq = seq - 1 WHERE shard = %s",
        f"source log, shard {SHARD}, seq 11: the row stands beyond the head, 10",
    ),
    "I2 a head that went ahead": (
        "UPDATE guerdon.generation_head SET pos = pos + 1 WHERE shard = %s",
        f"reward log, shard {SHARD}: pos 11 is missing",
    ),
    "I2 a head of the source log deleted": (
        "DELETE FROM guerdon.shard_head WHERE shard = %s",
        f"source log, shard {SHARD}: its head is missing",
    ),
    "I2 a head of the reward log deleted": (
        "DELETE FROM guerdon.generation_head WHERE shard = %s",
        f"reward log, shard {SHARD}: its head is missing",
    ),
    "I2 a generation that judged what is not there": (
        "UPDATE guerdon.generation_head SET seq = 12 WHERE shard = %s",
        f"reward log, shard {SHARD}: judged is up to seq 12, and the source log ends at seq 11",
    ),
    "I7 a cursor beyond the log": (
        "UPDATE guerdon.projection_cursor SET pos = 11 WHERE build = 1 AND shard = %s",
        (
            f"projection member_balance, shard {SHARD}: its cursor stands at pos 11, and the log ends at pos 10; "
            "run `guerdon projection rebuild member_balance`"
        ),
    ),
    "I7 a cursor deleted": (
        "DELETE FROM guerdon.projection_cursor WHERE build = 1 AND shard = %s",
        (
            f"projection member_balance, shard {SHARD}: its cursor is missing; "
            "run `guerdon projection rebuild member_balance`"
        ),
    ),
}


@pytest.mark.parametrize("what", AT_SHARD)
def test_a_change_is_named_with_its_position_and_the_exit_code_is_1(
    what: str, whole: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statement, wanted = AT_SHARD[what]
    assert tamper(whole, statement, SHARD) > 0
    code, output = answer(whole, monkeypatch, capsys)
    assert (code, output) == (1, f"guerdon: {wanted}; stop the workers and compare with a backup")


IDENTITIES = {
    "one missing": (
        "DELETE FROM guerdon.event_identity WHERE identity = %(event)s",
        "the identity of event e3 of source default is missing: the event would be taken again",
    ),
    "one that says another place": (
        "UPDATE guerdon.event_identity SET seq = 9 WHERE identity = %(event)s",
        f"the identity of event e3 of source default says shard {SHARD}, seq 9",
    ),
    "one of another shard": (
        "UPDATE guerdon.event_identity SET shard = shard + 1 WHERE identity = %(event)s",
        f"the identity of event e3 of source default says shard {SHARD + 1}, seq 5",
    ),
    "one of an order missing": (
        "DELETE FROM guerdon.event_identity WHERE identity = %(order)s",
        "the identity of its order is missing: the order would be taken again",
    ),
    "one of an order in place of another": (
        "UPDATE guerdon.event_identity SET identity = %(other)s WHERE identity = %(order)s",
        "the identity of order o3 is missing, and 00000000-0000-0000-0000-000000000001 stands in its place",
    ),
    "one too many": (
        "INSERT INTO guerdon.event_identity (identity, digest, seq, shard) VALUES (%(other)s, %(other)s, 5, %(shard)s)",
        "2 identities of orders stand where one should",
    ),
    "another content": (
        "UPDATE guerdon.event_identity SET digest = %(other)s WHERE identity = %(event)s",
        "order o3 and its event have different digests",
    ),
}


@pytest.mark.parametrize("what", IDENTITIES)
def test_i5_an_identity_that_is_not_of_the_log_is_named(what: str, whole: str) -> None:
    statement, wanted = IDENTITIES[what]
    event = admitted(purchase(3))
    assert event.order_identity is not None
    names = {
        "event": event.identity[:16].hex(), "order": event.order_identity[:16].hex(),
        "other": "00000000-0000-0000-0000-000000000001", "shard": SHARD,
    }  # fmt: skip
    with transaction(whole) as cursor:
        cursor.execute(statement, names)
        assert cursor.rowcount == 1
    assert problems(whole) == [f"source log, shard {SHARD}, seq 5: {wanted}"]


@pytest.mark.parametrize("seq", [1, 99])
def test_i5_an_identity_of_what_is_no_purchase_is_named(seq: int, whole: str) -> None:
    identity = "00000000-0000-0000-0000-000000000001"
    with transaction(whole) as cursor:
        cursor.execute(
            "INSERT INTO guerdon.event_identity (identity, digest, seq, shard) VALUES (%s, %s, %s, %s)",
            (identity, identity, seq, SHARD),
        )
    assert problems(whole) == [
        f"source log, shard {SHARD}, seq {seq}: identity {identity} is of no event and of no order there"
    ]


def reward_of(database_url: str, seq: int) -> None:
    """Append a reward of the source event `seq`, in good form, as a worker with a defect would."""
    with transaction(database_url) as cursor:
        generation = live_generation.live(cursor)
        (head,) = source_log.lock_heads(cursor, [SHARD], generation).values()
        rewards = RewardRows(generation, PostingFields())
        ended, head.seq = head.seq, seq
        rewards.append([GRANT], head, pack_text("m1") + pack_text("e"))
        head.seq = ended
        rewards.write(cursor)
        source_log.save_heads(cursor, [head], generation)


def test_i2_a_reward_of_an_earlier_event_than_the_one_before_it_is_named_though_every_hash_is_right(whole: str) -> None:
    reward_of(whole, 3)
    assert problems(whole)[0] == (
        f"reward log, shard {SHARD}, pos 11: its source event is seq 3, and that of the row before it seq 11"
    )


def test_i2_a_reward_of_an_event_that_was_not_judged_is_named_though_every_hash_is_right(whole: str) -> None:
    reward_of(whole, 12)
    assert problems(whole)[0] == (
        f"reward log, shard {SHARD}, pos 11: its source event is seq 12, and judged is up to seq 11"
    )


def test_i1_the_first_offset_of_which_nothing_is_kept_is_named(whole: str) -> None:
    tamper(whole, "DELETE FROM guerdon.source_event WHERE shard = %s AND seq IN (5, 8)", SHARD)
    assert problems(whole)[1] == (
        "t.purchases partition 0: offsets 0 to 9 were taken, 10, but 10 are accepted, 0 duplicate, 0 quarantined, 0 "
        "passed; the log holds 8, the quarantine 0; offset 3 is the first of which neither has anything"
    )


def test_i1_an_offset_that_was_never_taken_is_named(whole: str) -> None:
    tamper(whole, "UPDATE guerdon.source_event SET offset_ = 42 WHERE shard = %s AND seq = 5", SHARD)
    assert problems(whole)[1] == (
        f"t.purchases partition 0, offset 42 stands in shard {SHARD}, seq 5, and was never taken"
    )


def test_i1_a_partition_that_was_never_taken_is_named(whole: str) -> None:
    tamper(whole, "UPDATE guerdon.consumer_offset SET partition = 1")
    assert problems(whole)[0].startswith("t.purchases partition 1: offsets 0 to 9 were taken, 10, but 10 are accepted")
    tamper(whole, "DELETE FROM guerdon.consumer_offset")
    assert problems(whole) == [
        f"purchases partition 0, offset 0 stands in shard {SHARD}, seq 2, and the partition was never taken"
    ]


def test_i1_an_offset_that_became_an_event_and_a_quarantined_record_is_named(whole: str) -> None:
    with transaction(whole) as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.quarantine (stage, reason, message, topic, partition, offset_)
            VALUES ('admit', 'out_of_range', 'made by this test', 't.purchases', 0, 3)
            """
        )
        cursor.execute("UPDATE guerdon.consumer_offset SET next_offset = 11, quarantined = 1")
    assert problems(whole) == [
        f"t.purchases partition 0, offset 3 became 2 things: it stands in quarantine 1 and in shard {SHARD}, seq 5"
    ]


def test_i1_the_offsets_of_a_topic_that_was_made_anew_are_taken_for_what_they_are(whole: str) -> None:
    with transaction(whole) as cursor:
        offsets.begin_again(cursor, PLACE, 0, "made anew by this test")
    take(whole, range(10, 13), 0)
    assert problems(whole) == []
    take(whole, range(13, 14), 3)
    tamper(whole, "UPDATE guerdon.source_event SET offset_ = 2 WHERE shard = %s AND seq = 15", SHARD)
    assert problems(whole)[1].startswith("t.purchases partition 0, offset 2 became 3 things: it stands in shard ")


BESIDE = {
    "a fact of what was not judged": (
        "INSERT INTO guerdon.generation_fact VALUES (1, %s, 12, 0, 'budget', '{}')",
        f"generation 1, shard {SHARD}, seq 12: there is a fact (budget), and judged is up to seq 11",
    ),
    "a fact of a whole generation at an event": (
        "INSERT INTO guerdon.generation_fact VALUES (1, %s, 5, 0, 'adjusted', '{}')",
        f"generation 1, shard {SHARD}, seq 5: there is a fact (adjusted), and judged is up to seq 11",
    ),
    "a fact before which one is missing": (
        "INSERT INTO guerdon.generation_fact VALUES (1, %s, 5, 1, 'budget', '{}')",
        f"generation 1, shard {SHARD}, seq 5: fact 0 is missing, and fact 1 is there",
    ),
    "a fact before the first event": (
        "INSERT INTO guerdon.generation_fact VALUES (1, %s, 0, 0, 'budget', '{}')",
        f"generation 1, shard {SHARD}, seq 0: there is a fact (budget), and judged is up to seq 11",
    ),
    "a version that is not kept": (
        "INSERT INTO guerdon.generation_schedule VALUES (1, %s, 9, 7)",
        f"generation 1, shard {SHARD}: from seq 9 on version 7 judges, which is not kept",
    ),
    "an event that waits and comes from nowhere": (
        "INSERT INTO guerdon.forwarded VALUES (3, %s, 12, 0, now(), 'm9', '')",
        (
            f"source log, shard {SHARD}, seq 12: an event waits from there for member m9 in shard 3, and the log ends "
            "at seq 11"
        ),
    ),
    "an attribution that is a purchase": (
        """
        INSERT INTO guerdon.attribution (shard, seq, referee_id, status, occurred_at)
        VALUES (%s, 5, 'm1', 'attributed', now())
        """,
        f"source log, shard {SHARD}, seq 5: guerdon.attribution tells of an attribution there, and it is a purchase",
    ),
    "a touch that is nothing": (
        "INSERT INTO guerdon.touch VALUES ('v', now(), %s, 12, 'CODE', NULL)",
        f"source log, shard {SHARD}, seq 12: guerdon.touch tells of a touch there, and nothing is there",
    ),
}


@pytest.mark.parametrize("what", BESIDE)
def test_what_names_a_source_event_that_is_not_there_is_named(what: str, whole: str) -> None:
    statement, wanted = BESIDE[what]
    assert tamper(whole, statement, SHARD) == 1
    assert problems(whole) == [wanted]


def test_an_attribution_of_which_the_table_has_nothing_is_named(whole: str) -> None:
    tamper(whole, "UPDATE guerdon.source_event SET kind = 'attribution' WHERE shard = %s AND seq = 5", SHARD)
    assert f"source log, shard {SHARD}, seq 5: guerdon.attribution has nothing of the attribution of m1" in problems(
        whole
    )


def test_a_cursor_in_the_midst_of_a_source_event_is_named(whole: str) -> None:
    commit(whole, Batch([admitted(purchase(50, amount=9_000))]))  # of more than 50.00: two rewards
    tamper(whole, "UPDATE guerdon.projection_cursor SET pos = 11 WHERE build = 1 AND shard = %s", SHARD)
    assert problems(whole)[0] == (
        f"projection member_balance, shard {SHARD}: its cursor stands at pos 11, and that is in the midst of a source "
        "event; run `guerdon projection rebuild member_balance`"
    )


def test_a_projection_that_a_generation_has_not_is_named(whole: str) -> None:
    tamper(whole, "UPDATE guerdon.projection_build SET status = 'retired' WHERE projection = 'leaderboard'")
    assert problems(whole) == ["generation 1 has no projection leaderboard"]
