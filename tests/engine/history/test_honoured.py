"""A redemption that was accepted where it was live stays accepted wherever history is judged again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.live.batch import Batch
from engine.store.database import transaction
from operations.replay.backtest import Question, backtested
from operations.replay.difference import compared
from operations.replay.generations import promote
from operations.replay.run import Request, replay
from operations.verify.checks import verify
from schemas.events import Redemption, Refund
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.events import Event

pytestmark = pytest.mark.postgres

OLD = """\
schema: guerdon/1
programme: p
timezone: UTC
currency: USD
points: {validity: 30d}
catalogue:
- {id: mug, kind: gift, points: 80, stock: 5}
- {id: pay, kind: money, points_per: {10: 1.00}}
rules:
- {id: base, on: purchase, give: [{points: {rate: 10, per: 1.00, of: purchase.amount}}]}
"""
HALF = OLD.replace("rate: 10", "rate: 5")
NO_MUG = HALF.replace("- {id: mug, kind: gift, points: 80, stock: 5}\n", "")
NOTHING = HALF.replace("on: purchase", "on: signup").replace("{rate: 5, per: 1.00, of: purchase.amount}", "5")
DOUBLE = OLD.replace("rate: 10", "rate: 20")


def redemption(number: int, action: Any, **fields: Any) -> Redemption:
    at_ms = START_MS + number
    return Redemption(
        event_id=f"x{number}", member_id="m1", occurred_at=at_ms, action=action, redemption_id="r", **fields
    )


def lived(database_url: str, *events: Event) -> None:
    activate(database_url, OLD)
    for event in events:
        commit(database_url, Batch([admitted(event)]))


def judged(database_url: str, folder: Path, body: str) -> int:
    file = folder / "next.yaml"
    file.write_text(body, "utf-8")
    number: int = replay(database_url, Request(file))["generation"]
    return number


def moved(database_url: str, generation: int) -> list[tuple[Any, ...]]:
    """Return what moved in a generation, as (type, amount, reason), in its order."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT type::text, amount, reason FROM guerdon.reward_event WHERE generation = %s ORDER BY shard, pos
            """,
            (generation,),
        )
        return cursor.fetchall()


def balance(database_url: str, generation: int) -> dict[str, int]:
    """Return what m1 has of points in each account, added up from the log."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT account, sum(change)::bigint FROM (
                SELECT credit::text AS account, amount AS change FROM guerdon.reward_event
                WHERE generation = %(g)s AND unit = 'points' AND credit IS NOT NULL
                UNION ALL
                SELECT debit::text, -amount FROM guerdon.reward_event
                WHERE generation = %(g)s AND unit = 'points' AND debit IS NOT NULL
            ) moves GROUP BY account
            """,
            {"g": generation},
        )
        return {account: amount for account, amount in cursor.fetchall() if amount}


def assert_sound(database_url: str, generation: int) -> None:
    assert [finding for finding in verify(database_url, generation) if finding["problem"]] == []


def test_what_the_new_history_cannot_cover_is_honoured_and_becomes_debt(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1), redemption(2, "spend", reward="mug"), purchase(3))
    generation = judged(database_url, tmp_path, HALF)
    assert moved(database_url, generation) == [
        ("points.granted", 50, None),
        ("points.adjusted", 30, "honoured"),  # 80 are the price, 50 are there
        ("points.reserved", 50, None),
        ("points.reserved", 30, None),
        ("points.reversed", 30, "honoured"),
        ("points.captured", 50, None),
        ("points.captured", 30, None),
        ("gift.awarded", 1, "redeemed"),
        ("points.granted", 50, None),
        ("points.settled", 30, None),
    ]
    assert balance(database_url, generation) == {"issued": -130, "spent": 80, "reversed": 30, "active": 20}
    assert_sound(database_url, generation)


def test_a_member_without_any_points_owes_the_whole_price(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1), redemption(2, "spend", amount=60))
    generation = judged(database_url, tmp_path, NOTHING)
    assert balance(database_url, generation) == {"issued": -60, "spent": 60, "reversed": 60, "debt": -60}
    assert_sound(database_url, generation)
    promote(database_url, generation)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT granted, spent, debt, available FROM reward.member_balance")
        assert cursor.fetchall() == [(60, 60, 60, -60)]


def test_a_reservation_that_is_given_up_gives_back_what_was_honoured(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1), redemption(2, "reserve", reward="mug"), redemption(3, "void"))
    generation = judged(database_url, tmp_path, HALF)
    assert balance(database_url, generation) == {"issued": -80, "reversed": 30, "active": 50}
    assert [row[:2] for row in moved(database_url, generation)[-3:]] == [
        ("points.voided", 50), ("points.settled", 30), ("points.voided", 30),
    ]  # fmt: skip
    assert_sound(database_url, generation)


def test_what_was_refused_stays_refused_though_there_would_have_been_enough(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1), redemption(2, "spend", amount=150))
    generation = judged(database_url, tmp_path, DOUBLE)
    assert moved(database_url, generation) == [("points.granted", 200, None), ("reward.refused", 150, "insufficient")]


def test_money_is_what_it_was_and_comes_back_with_a_refund(database_url: str, tmp_path: Path) -> None:
    """60 of 100 points paid 6.00 of an order of 6.00; by the file 200 would be there, and more could be asked for."""
    pay = redemption(2, "spend", reward="pay", order_id="o9", order_amount=600)
    refund = Refund(event_id="f", member_id="m1", occurred_at=START_MS + 9, order_id="o9", refund_id="f", amount=300)
    lived(database_url, purchase(1), pay, purchase(3, order_id="o9", amount=600), refund)
    generation = judged(database_url, tmp_path, DOUBLE)
    restored = [row for row in moved(database_url, generation) if row[0] == "points.restored"]
    assert (
        restored
        == [row for row in moved(database_url, 1) if row[0] == "points.restored"]
        == [("points.restored", 30, None)]
    )
    assert ("points.captured", 60, None) in moved(database_url, generation)


def test_a_reward_that_the_file_does_not_have_was_handed_out_all_the_same(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1), redemption(2, "reserve", reward="mug"), redemption(3, "capture"))
    generation = judged(database_url, tmp_path, NO_MUG)
    assert ("gift.awarded", 1, "redeemed") in moved(database_url, generation)
    assert_sound(database_url, generation)


def test_a_backtest_and_a_diff_tell_the_debt_as_points_spent_and_not_given(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1), redemption(2, "spend", reward="mug"))
    generation = judged(database_url, tmp_path, HALF)
    with compared(database_url, generation) as difference:
        told = difference.document()
    with backtested(database_url, Question(tmp_path / "next.yaml")) as tested:
        asked = tested.document()
    assert [asked[name] for name in ("units", "rules", "campaigns")] == [
        told[name] for name in ("units", "rules", "campaigns")
    ]
    (points,) = [row for row in told["units"] if row["unit"] == "points"]
    assert (points["before"], points["after"], points["spent_not_given"]) == (100, 50, 30)
    given = {row["rule_id"]: row["given_after"] for row in told["rules"] if row["unit"] == "points"}
    assert given == {"base": 50}


def test_who_only_owes_what_was_honoured_was_given_nothing(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1), redemption(2, "spend", amount=60))
    judged(database_url, tmp_path, NOTHING)
    with backtested(database_url, Question(tmp_path / "next.yaml")) as tested:
        members = tested.document()["members"]
    assert members == {"active": 1, "awarded_before": 1, "awarded_after": 0, "affected": 1}


def test_the_generation_that_was_live_honours_what_the_new_one_accepts(database_url: str, tmp_path: Path) -> None:
    """Back after a promotion: what was spent meanwhile, by more generous rules, stays spent."""
    lived(database_url, purchase(1))
    generation = judged(database_url, tmp_path, DOUBLE)
    promote(database_url, generation)
    commit(database_url, Batch([admitted(redemption(4, "spend", amount=180))]))
    promote(database_url, 1)
    assert balance(database_url, 1) == {"issued": -180, "spent": 180, "reversed": 80, "debt": -80}
    assert_sound(database_url, 1)
