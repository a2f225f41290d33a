"""Hold that the API tells of members what the views and `guerdon member` tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.store.database import snapshot
from operations.member.projected import balances_of, rewards_of, tier_of
from operations.member.view import member
from operations.rows import dictionaries
from tests.api.test_conventions import problem
from tests.system import shop

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres


def test_a_member_has_what_the_command_shows(api: Api) -> None:
    shown = member(api.settings.database_url, "member-00")
    told = api.get("/v1/members/member-00").json()
    assert [row["unit"] for row in told["balances"]] == [row["unit"] for row in shown["balances"]]
    for row, other in zip(told["balances"], shown["balances"], strict=True):
        assert {name: row[name] for name in ("granted", "active", "spent", "available", "debt")} == {
            name: other[name] for name in ("granted", "active", "spent", "available", "debt")
        }
    assert told["tier"]["tier"] == shown["tier"]["tier"]
    assert told["referrals"]["codes"] == shown["codes"]
    assert told["referrals"]["links"] == [f"/r/{code}" for code in shown["codes"]]
    assert len(told["rewards"]) == len(shown["rewards"])
    assert told["held"] is False


def test_an_unknown_member_is_not_found_and_an_erased_one_gone(api: Api) -> None:
    problem(api.get("/v1/members/nobody"), "not_found")
    shop.erase(api.settings.database_url, "member-01")
    problem(api.get("/v1/members/member-01"), "erased")
    problem(api.get("/v1/members/member-01/balances"), "erased")


def test_balances_have_both_times(api: Api) -> None:
    now = api.get("/v1/members/member-00/balances").json()
    before = api.get("/v1/members/member-00/balances?effective_at=2026-02-01T00:00:00Z").json()
    assert before["effective_at"] == "2026-02-01T00:00:00Z"
    assert before["known_at"] > before["effective_at"]
    granted = {row["unit"]: row["granted"] for row in now["balances"]}
    assert any(row["granted"] < granted[row["unit"]] for row in before["balances"])
    problem(api.get("/v1/members/member-00/balances?known_at=2020-01-01T00:00:00Z"), "not_found")


def test_what_is_read_by_keys_is_what_the_views_say(shop_url: str) -> None:
    shop.erase(shop_url, "member-01")
    with snapshot(shop_url) as cursor:
        for number in range(24):
            of = (f"member-{number:02}",)
            said = [
                dictionaries(cursor, f"{query} WHERE member_id = %s ORDER BY {order}", of) for query, order in VIEWS
            ]
            balances, _ = balances_of(cursor, of[0], 0)
            tier = tier_of(cursor, of[0])
            rewards = [{"member_id": of[0], **row} for row in rewards_of(cursor, of[0])]
            assert [balances, [{"member_id": of[0], **tier}] if tier else [], rewards] == said


VIEWS = (
    ("SELECT * FROM guerdon.identified_member_balance", "unit"),
    ("SELECT * FROM guerdon.identified_member_tier", "tier"),
    ("SELECT * FROM guerdon.identified_member_reward", "granted_at, unit, item"),
)
