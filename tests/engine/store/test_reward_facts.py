"""Lots, their ages, redemptions, cohorts and members' days say what ledgers, balances and reports say."""

from __future__ import annotations

import re
import threading
from collections import Counter
from contextlib import closing
from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from msgspec import msgpack
from psycopg2 import sql

from engine.member.pages import LedgerRedemption
from engine.store.database import ANALYST, snapshot, transaction
from operations.replay.generations import discard
from operations.replay.run import Request, replay
from operations.report.catalogue import report
from operations.report.frame import Asked, frame
from operations.report.liability.lot_ages import lot_ages, together
from operations.rows import dictionaries
from projections.runner import finish
from tests.engine.history.test_cohort_versions import COHORTS
from tests.engine.store.test_view_plans import rows_read
from tests.operations.report.history import History
from tests.places import DOCS
from tests.strategies.replays import WITH_EVERYTHING, everything
from tests.system import shop

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

AMOUNTS = ("issued", "captured", "restored", "expired", "erased", "reversed", "reversed_expired", "settled", "left")
MEMBERS = 20_000
AFTER_ALL = Asked(until=date(2026, 8, 1))
"""Reports end with the last event by default, and time goes on after it."""


def asked(database_url: str, query: str, *parameters: object) -> list[dict[str, Any]]:
    """Return rows as an analyst reads them."""
    with transaction(database_url, role=ANALYST) as cursor:
        return dictionaries(cursor, query, parameters)


@pytest.fixture
def rich_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a database with refunds, debts, restores, expiries, erasures, late events and held members."""
    everything(database_url, monkeypatch)
    finish(database_url, threading.Event())
    return database_url


def test_lots_add_up_to_the_balances(rich_url: str) -> None:
    lots = asked(
        rich_url,
        """
        SELECT member_id, unit, sum(issued) AS granted, sum(l.left) AS left, sum(captured - restored) AS spent,
               sum(expired + erased - reversed_expired) AS expired,
               sum(reversed + reversed_expired + settled) AS settled
        FROM reward.lot l WHERE live GROUP BY 1, 2 ORDER BY 1, 2
        """,
    )
    balances = asked(
        rich_url,
        """
        SELECT member_id, unit, granted, pending + active + reserved AS left, spent, expired, settled
        FROM reward.member_balance ORDER BY 1, 2
        """,
    )
    assert lots == balances
    (sums,) = asked(rich_url, sums_of(AMOUNTS))
    assert all(sums.values()), "the history has all of it"


def sums_of(names: tuple[str, ...]) -> str:
    """Return the query of the sums of lots; the names are a test's own."""
    listed = ", ".join(f"sum(l.{name}) AS {name}" for name in names)
    return f"SELECT {listed} FROM reward.lot l WHERE live"


def test_each_lot_has_one_grant_and_a_place(rich_url: str) -> None:
    (row,) = asked(
        rich_url,
        """
        SELECT count(*) AS lots, count(DISTINCT lot) AS names,
               count(*) FILTER (WHERE granted_at IS NULL OR seq IS NULL OR issued <= 0 OR l.left < 0) AS wrong
        FROM reward.lot l WHERE live
        """,
    )
    assert row["lots"] == row["names"] > 100
    assert row["wrong"] == 0


@pytest.mark.parametrize("is_shop", [True, False])
def test_vintages_of_lots_are_those_of_the_report(
    is_shop: bool,  # noqa: FBT001  a parameter of the test
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("shop_url" if is_shop else "rich_url")
    rows = asked(
        url,
        """
        SELECT to_char(day, 'YYYY-MM') AS vintage, sum(issued) AS issued, sum(reversed + reversed_expired) AS reversed,
               sum(settled) AS settled, sum(captured - restored) AS redeemed,
               sum(expired - reversed_expired) AS expired, sum(erased) AS erased, sum(l.left) AS outstanding
        FROM reward.lot l WHERE live AND unit = 'points' GROUP BY 1 ORDER BY 1
        """,
    )
    vintages = report(url, "redemption", AFTER_ALL)["data"]["vintages"]
    assert rows
    for row in rows:
        of_report = vintages[row["vintage"]]
        earned = row["issued"] - row["reversed"] - row["settled"]
        assert earned == row["redeemed"] + row["expired"] + row["erased"] + row["outstanding"]
        assert earned == of_report["earned"]
        assert row == {"vintage": row["vintage"], **{key: of_report[key] for key in row if key != "vintage"}}


@pytest.mark.parametrize("is_shop", [True, False])
def test_lots_leave_at_the_ages_of_the_estimate(
    is_shop: bool,  # noqa: FBT001  a parameter of the test
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("shop_url" if is_shop else "rich_url")
    with snapshot(url) as cursor:
        left = together(lot_ages(frame(cursor, AFTER_ALL))).left
    expected = {
        (way, age): points
        for way, short in (("redeemed", "red"), ("expired", "exp"), ("reversed", "rev"))
        for age, points in left[short].items()
    }
    rows = asked(
        url,
        "SELECT by, age, sum(amount) AS amount FROM reward.lot_age WHERE live AND unit = 'points' GROUP BY 1, 2",
    )
    assert {(row["by"], row["age"]): row["amount"] for row in rows} == expected
    assert len({way for way, _ in expected}) == 3


@pytest.mark.parametrize("is_shop", [True, False])
def test_redemptions_end_as_the_ledgers_say(
    is_shop: bool,  # noqa: FBT001  a parameter of the test
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("shop_url" if is_shop else "rich_url")
    rows = asked(url, "SELECT * FROM reward.redemption WHERE live")
    with transaction(url) as cursor:
        cursor.execute(
            """
            SELECT coalesce(p.pseudonym, l.member_id), l.part, l.body FROM guerdon.member_ledger l
            LEFT JOIN guerdon.pseudonym p USING (member_id) WHERE starts_with(l.part, 'redemption:')
            """
        )
        ledgers = {
            (member_id, part.partition(":")[2]): msgpack.decode(bytes(body), type=LedgerRedemption)
            for member_id, part, body in cursor.fetchall()
        }

    # a redemption that moved nothing was refused, and the ledger does not know it
    by_id = {(row["member_id"], row["redemption_id"]): row for row in rows}
    assert len(by_id) == len(rows)
    met = {key for key, row in by_id.items() if row["outcome"] != "refused"}
    assert met == ledgers.keys()
    for key in met:
        row, ledger = by_id[key], ledgers[key]
        if ledger.status != "erased":
            assert row["outcome"] == ledger.status, key
        if ledger.status in {"captured", "restored"}:
            assert row["captured"] == ledger.amount, key
            assert row["captured"] - row["restored"] == sum(each.amount for each in ledger.withdrawals), key
        assert (row["unit"], row["reward"], row["order_id"]) == (ledger.unit, ledger.reward, ledger.order_id)
    assert {row["outcome"] for row in rows} >= {"refused", "captured", "voided", "restored"}
    assert all(row["reason"] for row in rows if row["outcome"] == "refused")

    # and all of them are what the lots have given
    (lots,) = asked(url, sums_of(("captured", "restored")))
    assert sum(row["captured"] for row in rows) == lots["captured"]
    assert sum(row["restored"] for row in rows) == lots["restored"]


def test_days_of_members_add_up_to_orders_and_movements(shop_url: str) -> None:
    (days,) = asked(
        shop_url,
        """
        SELECT sum(orders) AS orders, sum(net) AS net, sum(captured) AS captured, sum(restored) AS restored,
               sum(expired) AS expired, sum(shares) AS shares, sum(activities) AS activities,
               count(*) - count(DISTINCT (member_id, day)) AS repeated
        FROM reward.member_day WHERE live
        """,
    )
    (others,) = asked(
        shop_url,
        """
        SELECT (SELECT count(*) FROM reward.purchase) AS orders, (SELECT sum(net) FROM reward.purchase) AS net,
               sum(captured) AS captured, sum(restored) AS restored, sum(expired - reversed_expired) AS expired,
               (SELECT count(*) FROM reward.share) AS shares, (SELECT count(*) FROM reward.activity) AS activities,
               0 AS repeated
        FROM reward.lot WHERE live AND unit = 'points'
        """,
    )
    assert days == others
    assert all(days[name] for name in days if name != "repeated")

    # members who bought in a month, as the report counts them
    months = asked(
        shop_url,
        """
        SELECT to_char(day, 'YYYY-MM') AS month, count(DISTINCT member_id) AS buyers, sum(granted) AS granted
        FROM reward.member_day WHERE live AND orders > 0 GROUP BY 1
        """,
    )
    periods = report(shop_url, "customers", Asked())["data"]["periods"]
    assert {row["month"]: row["buyers"] for row in months} == {
        name: row["buyers"] for name, row in periods.items() if name != "all" and row["buyers"]
    }


def test_a_referrers_lot_names_the_referee_as_buyer(shop_url: str) -> None:
    rows = asked(
        shop_url,
        """
        SELECT l.member_id, l.order_id, l.order_member_id, f.referrer_id, p.amount
        FROM reward.lot l LEFT JOIN reward.referral f ON f.referee_id = l.order_member_id AND f.status <> 'rejected'
        LEFT JOIN reward.purchase p ON p.member_id = l.order_member_id AND p.order_id = l.order_id
        WHERE live AND rule_id = 'friend'
        """,
    )
    assert rows
    for row in rows:
        assert row["member_id"] == row["referrer_id"] != row["order_member_id"]
        assert row["amount"] is not None
    own = asked(shop_url, "SELECT DISTINCT member_id = order_member_id AS own FROM reward.lot WHERE rule_id = 'spend'")
    assert own == [{"own": True}]


def test_a_shadows_rows_stand_beside_the_live_ones(shop_url: str, tmp_path: Path) -> None:
    views = ("lot", "lot_age", "redemption", "cohort", "member_day", "programme_version")
    before = {view: counted(shop_url, view) for view in views}
    file = tmp_path / "half.yaml"
    file.write_text(shop.PROGRAMME.replace("[{points: 100}]", "[{points: 50}]"), "utf-8")
    shadow = replay(shop_url, Request(file))["generation"]
    finish(shop_url, threading.Event())
    for view in views:
        after = counted(shop_url, view)
        assert after[1, True] == before[view][1, True], view
        assert after.keys() == {(1, True), (shadow, False)}, view
    welcome = asked(
        shop_url,
        "SELECT live, sum(issued) / count(*) AS each FROM reward.lot WHERE rule_id = 'welcome' GROUP BY 1 ORDER BY 1",
    )
    assert welcome == [{"live": False, "each": 50}, {"live": True, "each": 100}]
    orders = asked(shop_url, "SELECT live, sum(orders) AS n, sum(net) AS net FROM reward.member_day GROUP BY 1")
    assert orders[0] == {**orders[1], "live": orders[0]["live"]}

    # and are gone with it
    discard(shop_url, shadow)
    assert {view: counted(shop_url, view) for view in views} == before


def counted(database_url: str, view: str) -> Counter[tuple[int, bool]]:
    """Return how many rows of a view each generation has."""
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute(
            sql.SQL("SELECT generation, live, count(*) FROM {} GROUP BY 1, 2").format(sql.Identifier("reward", view))
        )
        return Counter({(generation, live): rows for generation, live, rows in cursor.fetchall()})


def test_each_question_of_the_page_has_an_answer(shop_url: str) -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```$", (DOCS / "facts.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    of_events, of_rewards = ([each for each in block.split(";") if each.strip()] for block in blocks)
    for statement in of_events:
        asked(shop_url, statement)
    assert len(of_rewards) == 4
    for statement in of_rewards:
        assert asked(shop_url, statement), statement


def test_rules_and_versions_say_what_the_files_say(database_url: str) -> None:
    History(database_url, WITH_EVERYTHING.replace("points: {validity: 12h}", COHORTS))
    rules = {row["rule_id"]: row for row in asked(database_url, "SELECT * FROM reward.rule")}
    assert rules["trial"] == {
        "version": 1, "rule_id": "trial", "campaign": "spring", "phase": "base", "salt": "one", "treat": 5_000,
    }  # fmt: skip
    assert (rules["rare"]["salt"], rules["rare"]["treat"]) == ("two", 2_000)
    assert [rules["tiered"][name] for name in ("campaign", "phase", "salt", "treat")] == [None, "boost", None, None]
    versions = asked(
        database_url, "SELECT DISTINCT generation, live, version, zone, currency FROM reward.programme_version"
    )
    assert versions == [{"generation": 1, "live": True, "version": 1, "zone": "America/New_York", "currency": "USD"}]


TRIAL = """\
schema: guerdon/1
programme: p
timezone: UTC
currency: EUR
rules:
- {id: trial, on: purchase, cohort: {salt: one, treat: SHARE}, give: [{points: 5}]}
"""


def test_who_is_treated_as_of_the_other_arm_later_has_crossed(database_url: str, tmp_path: Path) -> None:
    history = History(database_url, TRIAL.replace("SHARE", "50%"))
    members = [f"m{number}" for number in range(20)]
    for number, member in enumerate(members):
        history.buys(member, f"2026-01-10T09:{number:02}:00Z", "o1", 1_000)
        history.buys(member, f"2026-01-11T09:{number:02}:00Z", "o2", 1_000)
    finish(database_url, threading.Event())
    live = asked(database_url, "SELECT * FROM reward.cohort WHERE live")
    assert len(live) == 20
    assert {row["arm"] for row in live} == {"treated", "control"}
    assert [row["crossed"] for row in live] == [False] * 20
    assert {(row["salt"], row["rule_id"], row["version"], row["treat"]) for row in live} == {("one", "trial", 1, 5_000)}
    assert {row["entered_at"][:10] for row in live} == {"2026-01-10"}

    # in a shadow the file treats everybody from the second day on: members of the control arm cross over
    file = tmp_path / "all.yaml"
    file.write_text(TRIAL.replace("SHARE", "100%"), "utf-8")
    shadow = replay(database_url, Request(file, from_ms=1_768_089_600_000))["generation"]
    rows = asked(database_url, "SELECT * FROM reward.cohort WHERE generation = %s", shadow)
    assert {row["member_id"]: row["arm"] for row in rows} == {row["member_id"]: row["arm"] for row in live}
    assert all(row["crossed"] == (row["arm"] == "control") for row in rows)


@pytest.fixture
def many(database_url: str) -> str:
    """Return a database with many members, each with an entry, a grant, an order, a share and a redemption."""
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.programme_version
                (version, programme, currency, digest, tzdata, file_name, body, timezone, rules, cohorts)
            VALUES (1, 'p', 'EUR', '', '', '', '', 'UTC', '{"r": {"phase": "base"}}',
                    '{"r": {"salt": "s", "treat": 1}}')
            """
        )
        cursor.execute(
            """
            INSERT INTO guerdon.reward_event
                (generation, shard, pos, seq, member_id, type, unit, item, debit, credit, amount, rule_id, rule_version,
                 event_id, order_id, reward_key, lot, hash, occurred_at, recorded_at)
            SELECT 1, n %% 64, 4 * n + t.nth, n, 'member-' || n, t.type::guerdon.reward_type, t.unit, t.item,
                   t.debit::guerdon.account, t.credit::guerdon.account, 1, 'r', 1, 'e' || n, 'o' || n,
                   int4send((4 * n + t.nth)::integer), t.lot, '', now(), now()
            FROM generate_series(1, %(members)s) AS n, LATERAL (VALUES
                (0, 'cohort.entered', 'cohort', 'treated', NULL, NULL, NULL::bytea),
                (1, 'points.granted', 'points', NULL, 'issued', 'active', NULL),
                (2, 'points.reserved', 'points', NULL, 'active', 'reserved', int4send((4 * n + 1)::integer)),
                (3, 'points.captured', 'points', NULL, 'reserved', 'spent', int4send((4 * n + 1)::integer))
            ) AS t (nth, type, unit, item, debit, credit, lot)
            """,
            {"members": MEMBERS},
        )
        for statement in (
            """
            INSERT INTO guerdon.fact_redemption (build, shard, seq, member_id, action, redemption_id, amount,
                                                 occurred_at, recorded_at)
            SELECT b.build, n % 64, n, 'member-' || n, 'spend', 'x', 1, now(), now()
            """,
            """
            INSERT INTO guerdon.fact_share (build, shard, seq, member_id, object, channel, occurred_at, recorded_at)
            SELECT b.build, n % 64, n, 'member-' || n, 'o', 'c', now(), now()
            """,
            """
            INSERT INTO guerdon.fact_purchase (build, shard, seq, member_id, order_id, event_id, source, currency,
                                               amount, refunded, revision, number, occurred_at, recorded_at)
            SELECT b.build, n % 64, n, 'member-' || n, 'o' || n, 'e' || n, 's', 'EUR', 1, 0, 1, 1, now(), now()
            """,
        ):
            cursor.execute(f"{statement} FROM guerdon.facts_build b, generate_series(1, {MEMBERS}) AS n")
        cursor.execute(
            """
            INSERT INTO guerdon.pseudonym (member_id, pseudonym, shard)
            SELECT 'member-' || 100 * n, 'erased:' || n, 100 * n % 64 FROM generate_series(1, 50) AS n
            """
        )
        cursor.execute("ANALYZE")
    return database_url


def test_a_member_and_a_shard_are_read_without_all_others(many: str) -> None:
    for view in ("lot", "lot_age", "redemption", "cohort", "member_day"):
        whole = plan(many, view, "true")
        assert whole["Actual Rows"] == MEMBERS
        tenth = sum(rows_read(whole)) / 10
        for condition, rows, reads_max in (
            ("member_id = 'member-17'", 1, 1_000),
            ("member_id = 'erased:1'", 1, 1_000),
            ("member_id = 'member-100'", 0, 1_000),
            ("shard = 17", len(range(17, MEMBERS + 1, 64)), tenth),
        ):
            found = plan(many, view, f"live AND {condition}")
            assert found["Actual Rows"] == rows, (view, condition)
            assert sum(rows_read(found)) < reads_max, (view, condition)


def plan(database_url: str, view: str, condition: str) -> dict[str, Any]:
    """Return the plan of a question about a view, as it was carried out."""
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM {} WHERE {}").format(
                sql.Identifier("reward", view), sql.SQL(condition)
            )
        )
        ((found,),) = cursor.fetchone() or ()
        of_query: dict[str, Any] = found["Plan"]
        return of_query
