"""The stores keep what they promise beneath the live transaction: connections, limits, caches, keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest

from engine.live.batch import Batch
from engine.store.cursor import one
from engine.store.database import FROZEN_AFTER, INFRASTRUCTURE, connect, end_frozen, migrate, transaction
from engine.store.kafka.offsets import add_partitions, positions
from engine.store.logs.history import History
from engine.store.members import personal
from engine.store.members.member_states import Member, MemberCache
from operations.setup import programmes
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable
from schemas.events import Signup
from schemas.partitioning import shard_of
from schemas.rewards import ITEM_LOSSES, ITEM_UNITS, REWARD_TYPES
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate
from tests.system.workers import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def test_a_server_that_is_away_and_a_database_without_tables_are_one_sentence_each(empty_database_url: str) -> None:
    with pytest.raises(ServiceUnreachable, match=r"PostgreSQL does not answer: .*; start it with `guerdon up`"):
        connect(NOWHERE)
    with pytest.raises(InputError, match="run `guerdon init` first"):
        connect(empty_database_url)


def test_a_database_is_migrated_by_two_at_once_and_again(empty_database_url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        revisions = set(pool.map(migrate, [empty_database_url] * 2))
    assert revisions == {migrate(empty_database_url)}
    with transaction(empty_database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.shard_head") == (64,)


def test_the_database_knows_every_type_of_reward_event_and_every_unit_of_items(database_url: str) -> None:
    with transaction(database_url) as cursor:
        (types,) = one(cursor, "SELECT enum_range(NULL::guerdon.reward_type)::text[]")
        (view,) = one(cursor, "SELECT pg_get_viewdef('guerdon.item_movement'::regclass)")
    assert set(REWARD_TYPES) == set(types)
    assert [word for word in (*ITEM_UNITS, *sorted(ITEM_LOSSES)) if f"'{word}'" not in view] == []


def test_a_transaction_that_idles_too_long_is_ended_and_that_counts_as_infrastructure(database_url: str) -> None:
    with closing(connect(database_url, idle_max="50ms")) as connection, connection.cursor() as cursor:
        pid = one(cursor, "SELECT pg_backend_pid()")

        def is_gone() -> bool:
            with transaction(database_url) as other:
                return bool(one(other, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == (0,))

        eventually(is_gone, "the end of the session")
        with pytest.raises(INFRASTRUCTURE):
            cursor.execute("SELECT 1")


def test_a_limit_that_the_operator_has_set_stands(database_url: str) -> None:
    name = "idle_in_transaction_session_timeout"
    with closing(connect(database_url)) as connection, connection.cursor() as cursor:
        assert one(cursor, f"SHOW {name}") == (FROZEN_AFTER,)
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE \"{connection.info.dbname}\" SET {name} = '3s'")
    with closing(connect(database_url)) as connection, connection.cursor() as cursor:
        assert one(cursor, f"SHOW {name}") == ("3s",)


def test_only_a_copy_that_waits_for_its_client_is_ended(database_url: str) -> None:
    with closing(connect(database_url, application="guerdon worker")) as connection:
        assert one(connection.cursor(), "SELECT 1") == (1,)
        assert end_frozen(database_url) == 0
        assert one(connection.cursor(), "SELECT 1") == (1,)


def test_a_cache_believes_a_shard_only_while_its_head_stands_where_this_worker_left_it() -> None:
    cache = MemberCache(members_max=2)
    cache.of_shard(1, (1, 0))["m1"] = Member("m1", 1, b"")
    cache.keep({1: (1, 5)})
    assert list(cache.of_shard(1, (1, 5))) == ["m1"]
    assert cache.of_shard(1, (1, 6)) == {}, "another worker wrote to the shard"
    cache.of_shard(1, (1, 6))["m1"] = Member("m1", 1, b"")
    cache.keep({1: (1, 7)})
    assert cache.of_shard(1, (2, 7)) == {}, "another generation is live"


def test_a_cache_that_is_full_drops_the_shard_that_was_used_least_recently() -> None:
    cache = MemberCache(members_max=2)
    for shard in (1, 2, 3):
        cache.of_shard(shard, (1, 0))[f"m{shard}"] = Member(f"m{shard}", shard, b"")
        cache.keep({shard: (1, 1)})
    assert [len(cache.of_shard(shard, (1, 1))) for shard in (1, 2, 3)] == [0, 1, 1]


def test_a_worker_reads_a_member_anew_after_another_one_wrote(database_url: str) -> None:
    """Daily limits are in the state: a worker that believed its cache would grant beyond them."""
    from engine.live.transaction import LiveTransaction  # noqa: PLC0415  beside its only use
    from tests.system.batches import SCHEMAS  # noqa: PLC0415  as above

    activate(database_url)
    with (
        closing(LiveTransaction(database_url, SCHEMAS.lookup)) as first,
        closing(LiveTransaction(database_url, SCHEMAS.lookup)) as second,
    ):
        for number in range(6):
            worker = (first, second)[number % 2]
            worker.commit(Batch([admitted(purchase(number, amount=4_900 * 2 + 150))]))
    with transaction(database_url) as cursor:
        granted = one(
            cursor, "SELECT sum(amount) FROM guerdon.reward_event WHERE rule_id = 'spend' AND debit = 'issued'"
        )
    assert granted == (300,)


def test_a_member_has_one_key_for_good_and_after_erasure_none(database_url: str) -> None:
    owner = (3, "m1")
    with transaction(database_url) as cursor:
        first = personal.keys_for(cursor, [owner])[owner]
        assert personal.keys_for(cursor, [owner, owner])[owner] == first
        assert first is not None
        assert len(first) == 32
        personal.drop_keys(cursor, [owner])
        assert personal.keys_for(cursor, [owner]) == {owner: None}


def test_what_was_sealed_for_one_event_opens_for_no_other() -> None:
    signup = Signup(event_id="s", member_id="m1", occurred_at=START_MS, birthday="1971-02-03")
    key = b"k" * 32
    payload, sealed = personal.seal(signup, b"identity", key)
    assert sealed is not None
    assert b"1971" not in payload + sealed
    assert personal.unseal("signup", payload, sealed, b"identity", key) == signup
    for wrong in ((b"other", key), (b"identity", b"x" * 32), (b"identity", None)):
        with pytest.raises(personal.Erased):
            personal.unseal("signup", payload, sealed, *wrong)


def test_a_members_history_is_read_along_its_chain(database_url: str) -> None:
    activate(database_url)
    commit(database_url, Batch([admitted(purchase(number, f"m{number % 3}")) for number in range(30)]))
    shard = shard_of("m1")
    with transaction(database_url) as cursor:
        (last_seq,) = one(
            cursor, "SELECT seq FROM guerdon.member_state WHERE shard = %s AND member_id = 'm1'", (shard,)
        )
        history = [recorded.event_id for recorded in History(cursor).of_member(shard, last_seq)]
        assert history == [f"e{number}" for number in range(28, 0, -3)]
        with pytest.raises(LookupError, match=f"shard {shard} has no source event 999"):
            History(cursor).at(shard, 999)


def test_a_partition_keeps_the_position_it_has(database_url: str) -> None:
    with transaction(database_url) as cursor:
        add_partitions(cursor, {("t", 0): 7, ("t", 1): 0})
        add_partitions(cursor, {("t", 0): 9, ("t", 2): 1})
        assert positions(cursor, [("t", 0), ("t", 2)]) == {("t", 0): (7, 0), ("t", 2): (1, 0)}


def test_of_two_activations_of_one_programme_at_once_the_second_is_told_that_it_is_active(
    database_url: str, tmp_path: Path
) -> None:
    """Both would be version 1: the one that waited sees the other's version, and every shard has one activation."""
    file = tmp_path / "programme.yaml"
    file.write_text(
        "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\n"
        "rules:\n- {id: r, on: signup, give: [{points: 1}]}\n",
        encoding="utf-8",
    )

    def once(_: int) -> str:
        try:
            return str(programmes.activate(database_url, file)["version"])
        except AnswerIsNo as answer:
            return str(answer)

    with ThreadPoolExecutor(2) as pool:
        first, second = sorted(pool.map(once, range(2)))
    assert first == "1"
    assert "active already" in second
    with transaction(database_url) as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT shard) FROM guerdon.source_event WHERE kind = 'activation'")
        assert cursor.fetchone() == (64, 64)
