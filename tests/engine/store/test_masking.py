"""Analysts see erased members under pseudonyms, in every view and function, and find everybody else by the index."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from psycopg2 import sql

from engine.referral.codes import ALPHABET, LENGTH, code_of
from engine.store.cursor import one
from engine.store.database import ANALYST, migrate, transaction
from engine.store.digest_secret import read
from engine.store.members.pseudonyms import PREFIX, pseudonym_of
from engine.store.migrations.masking import MASKS
from operations.member.as_of import member_as_of
from operations.member.referrals import referrals
from operations.member.view import member
from operations.rows import dictionaries
from operations.settings import load_settings
from operations.verify.checks import verify
from projections.runner import finish
from tests.engine.store.test_migrations import migrate_to, transaction_of_owner
from tests.engine.store.test_view_plans import rows_read
from tests.system import shop

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

MEMBERS, ERASED = 20_000, 200
SECRET = b"a secret of 32 bytes for a test."


def test_a_pseudonym_gives_away_no_code_and_is_another_in_each_database() -> None:
    shown = pseudonym_of("ann", SECRET)
    assert shown == pseudonym_of("ann", SECRET)
    assert shown.startswith(PREFIX)
    assert len(shown) == len(PREFIX) + 64
    assert len({shown, pseudonym_of("bob", SECRET), pseudonym_of("ann", SECRET[::-1])}) == 3

    number, letters = int(shown.removeprefix(PREFIX), 16), []
    for _ in range(LENGTH - 1):
        number, letter = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[letter])
    assert not code_of("ann", SECRET).startswith("".join(letters)), "a code is made of a keyed hash of the id, too"


def views(cursor: Cursor) -> list[str]:
    cursor.execute("SELECT viewname FROM pg_views WHERE schemaname = 'reward' ORDER BY 1")
    return [name for (name,) in cursor.fetchall()]


def shown(cursor: Cursor, view: str, schema: str = "reward") -> list[str]:
    """Return the rows of a view, each as one text."""
    cursor.execute(sql.SQL("SELECT v::text FROM {} v").format(sql.Identifier(schema, view)))
    return [text for (text,) in cursor.fetchall()]


def leavers(database_url: str) -> list[str]:
    """Return a referrer whose referral has paid, their referee, and who has most coupons; the referee refers, too."""
    with transaction(database_url) as cursor:
        cursor.execute(
            "SELECT referrer_id, referee_id FROM reward.referral WHERE status = 'qualified' ORDER BY 2 LIMIT 1"
        )
        pair = cursor.fetchone()
        assert pair is not None
        cursor.execute("SELECT member_id FROM reward.member_reward GROUP BY 1 ORDER BY count(*) DESC, 1")
        return sorted({*pair, next(who for (who,) in cursor.fetchall() if who not in pair)})


@pytest.mark.postgres
def test_no_view_names_an_erased_member_and_no_row_is_lost(shop_url: str) -> None:
    gone = leavers(shop_url)
    with transaction(shop_url) as cursor:
        names = views(cursor)
        cursor.execute("SELECT code FROM guerdon.member_code WHERE member_id = ANY(%s)", (gone,))
        needles = {*gone, *(code for (code,) in cursor.fetchall())}
        needles |= {prefix + who for prefix in (shop.EMAIL, shop.VISITOR) for who in gone}
        before = "\n".join(text for view in names for text in shown(cursor, view))
    assert len(needles) > 3 * len(gone)
    assert {needle for needle in needles if needle in before} >= {*gone}

    # nothing of them is left, and all others are as they were
    shop.erase(shop_url, *gone)
    with transaction(shop_url, role=ANALYST) as cursor:
        for view in names:
            for text in shown(cursor, view):
                assert not [needle for needle in needles if needle in text], (view, text)
    with transaction(shop_url) as cursor:
        pseudonyms = {pseudonym_of(who, read(cursor)) for who in gone}
        for each in MASKS:
            masked, identified = shown(cursor, each.view), shown(cursor, f"identified_{each.view}", "guerdon")
            assert len(masked) == len(identified), each.view
            others = [text for text in identified if not any(needle in text for needle in needles)]
            assert sorted(others) == sorted(text for text in masked if text in set(identified)), each.view

        # everywhere they have the same name
        for view, column in (
            ("member_balance", "member_id"),
            ("reward_event", "member_id"),
            ("reward_event", "item"),
            ("referral", "referrer_id"),
            ("referral", "referee_id"),
            ("member_code", "member_id"),
        ):
            cursor.execute(
                sql.SQL("SELECT DISTINCT {0} FROM {1} WHERE {0} LIKE %s").format(
                    sql.Identifier(column), sql.Identifier("reward", view)
                ),
                (f"{PREFIX}%",),
            )
            here = {name for (name,) in cursor.fetchall()}
            assert here, (view, column)
            assert here <= pseudonyms, (view, column)
    assert [finding for finding in verify(shop_url) if finding["problem"]] == []


@pytest.mark.postgres
def test_analysts_ask_as_of_then_by_the_pseudonym_and_operators_by_the_id(shop_url: str, tmp_path: Any) -> None:
    who = leavers(shop_url)[0]
    shop.erase(shop_url, who)
    with transaction(shop_url) as cursor:
        name = pseudonym_of(who, read(cursor))
    questions = [
        ("SELECT * FROM reward.balance_as_of(%s, '2026-03-01T08:00:00Z') ORDER BY unit", "balances"),
        ("SELECT * FROM reward.tier_as_of(%s, '2026-03-01T08:00:00Z')", "tiers"),
    ]
    with transaction(shop_url, role=ANALYST) as cursor:
        for question, what in questions:
            assert dictionaries(cursor, question, (who,)) == [], what
        (balance, *_) = dictionaries(cursor, questions[0][0], (name,))
        assert balance["member_id"] == name

    # operators' commands
    settings = load_settings(database_url=shop_url, home=tmp_path)
    march = shop.START_MS + 59 * shop.DAY_MS
    assert member_as_of(shop_url, who, march, None)["balances"][0]["granted"] == balance["granted"]
    assert {event["member_id"] for event in member(shop_url, who)["reward_events"]} == {who}
    assert who in {row["referrer_id"] for row in referrals(settings)} | {
        row["referee_id"] for row in referrals(settings)
    }


@pytest.mark.postgres
def test_members_who_were_erased_before_the_migration_have_pseudonyms_after_it(empty_database_url: str) -> None:
    migrate_to(empty_database_url, "0029")
    with transaction_of_owner(empty_database_url) as cursor:
        cursor.execute(
            "INSERT INTO guerdon.member_key (shard, member_id, key) VALUES (1, 'ann', NULL), (1, 'bob', 'k')"
        )
    migrate(empty_database_url)
    finish(empty_database_url, threading.Event())
    with transaction(empty_database_url) as cursor:
        assert one(cursor, "SELECT member_id, pseudonym FROM guerdon.pseudonym") == (
            "ann", pseudonym_of("ann", read(cursor)),
        )  # fmt: skip


@pytest.mark.postgres
def test_verify_names_an_erased_member_without_a_pseudonym(database_url: str) -> None:
    with transaction(database_url) as cursor:
        cursor.execute("INSERT INTO guerdon.member_key (shard, member_id, key) VALUES (1, 'ann', NULL)")
    problems = [finding["problem"] for finding in verify(database_url) if finding["problem"]]
    assert problems == ["guerdon.pseudonym has nothing for ann, who was erased"]


@pytest.fixture
def many(database_url: str) -> str:
    """Return a database with many balances, some of erased members."""
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.member_balance (
                issued, pending, active, reserved, spent, expired, reversed, debt, build, shard, member_id, unit
            )
            SELECT -n, 0, n, 0, 0, 0, 0, 0, b.build, n %% 64, 'member-' || n, 'points'
            FROM guerdon.live_build b, generate_series(1, %s) AS n WHERE b.projection = 'member_balance'
            """,
            (MEMBERS,),
        )
        cursor.execute(
            """
            INSERT INTO guerdon.pseudonym (member_id, pseudonym, shard)
            SELECT 'member-' || 100 * n, 'erased:' || n, 100 * n %% 64 FROM generate_series(1, %s) AS n
            """,
            (ERASED,),
        )
        cursor.execute("ANALYZE guerdon.member_balance, guerdon.pseudonym")
    return database_url


@pytest.mark.postgres
@pytest.mark.parametrize(("who", "rows"), [("member-17", 1), ("erased:1", 1), ("member-100", 0)])
def test_one_members_balance_is_found_by_the_index(who: str, rows: int, many: str) -> None:
    with transaction(many, role=ANALYST) as cursor:
        cursor.execute("SELECT count(*) FROM reward.member_balance WHERE member_id = %s", (who,))
        assert cursor.fetchone() == (rows,)
    with closing(psycopg2.connect(many)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM reward.member_balance WHERE member_id = %s",
            (who,),
        )
        ((plan,),) = cursor.fetchone() or ()
    assert sum(rows_read(plan["Plan"])) < 2_000


@pytest.mark.postgres
def test_all_balances_are_read_once(many: str) -> None:
    with closing(psycopg2.connect(many)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM reward.member_balance")
        ((plan,),) = cursor.fetchone() or ()
    assert sum(rows_read(plan["Plan"])) < 3 * MEMBERS
