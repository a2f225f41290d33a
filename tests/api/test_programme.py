"""Hold that the API tells of the programme what judges now, and who leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.store.database import transaction
from tests.api.test_conventions import problem
from tests.api.test_holdings import asking_as, checked_in, pages
from tests.system import shop

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres


def test_the_programme_is_told_in_words(api: Api) -> None:
    told = api.get("/v1/programme").json()
    assert (told["programme"], told["version"], told["timezone"], told["currency"]) == (
        "shop", 1, "Europe/Berlin", "EUR",
    )  # fmt: skip
    rules = {row["rule_id"]: row for row in told["rules"]}
    assert rules["spend"]["gives"] == ["1 point for each 1.00 of purchase.amount, valid for 90d"]
    assert rules["held"]["when"] == "purchase.amount is at least 80.00"
    assert rules["held"]["gives"] == ["30 points, on hold for 14d, valid for 90d"]
    assert rules["spring"]["gives"] == ["20 points, valid for 90d", 'coupon "five-off", valid for 30d']
    assert rules["spring"]["active_from"] == "2026-02-28T23:00:00Z"
    assert rules["friend"]["on"] == "referral"
    assert {row["campaign"]: row["rules"] for row in told["campaigns"]}["daily"] == ["spend"]
    assert [(level["tier"], level["from"]) for level in told["tiers"]["levels"]] == [("basic", 0), ("gold", 400)]
    assert [contest["contest"] for contest in told["contests"]] == ["race"]


def test_without_a_programme_there_is_none_to_tell(database_url: str, serving: Callable[..., Api]) -> None:
    api = serving(database_url)
    problem(api.get("/v1/programme"), "not_found")
    assert api.get("/v1/programme/versions").json() == {"items": []}


def test_versions_are_told_without_their_files(api: Api) -> None:
    (version,) = api.get("/v1/programme/versions").json()["items"]
    assert version["version"] == 1
    assert "body" not in version


def test_the_catalogue_says_what_a_member_lacks(database_url: str, serving: Callable[..., Api]) -> None:
    api = checked_in(database_url, serving)
    plain = api.get("/v1/catalogue").json()
    assert plain["available"] is None
    assert {reward["missing"] for reward in plain["rewards"]} == {None}
    told = api.get("/v1/catalogue?member_id=anna").json()
    assert told["available"] == 5
    rewards = {
        row["reward"]: (row["from_points"], row["left"], row["missing"], row["affordable"]) for row in told["rewards"]
    }
    assert rewards == {"pin": (4, None, 0, True), "mug": (120, 6, 115, False), "pay": (10, None, 5, False)}


def test_points_whose_time_has_passed_buy_nothing(api: Api) -> None:
    """The shop's points were all valid until last autumn, and no event of the members' has come since."""
    shown = {row["unit"]: row["available"] for row in api.get("/v1/members/member-00").json()["balances"]}
    assert shown["points"] > 0
    told = api.get("/v1/catalogue?member_id=member-00").json()
    assert told["available"] == 0
    assert {row["affordable"] for row in told["rewards"]} == {False}


def test_the_catalogue_is_for_members_who_are_there(api: Api) -> None:
    problem(api.get("/v1/catalogue?member_id=nobody"), "not_found")
    shop.erase(api.settings.database_url, "member-01")
    problem(api.get("/v1/catalogue?member_id=member-01"), "erased")


def test_a_members_token_asks_for_its_own_member(api: Api) -> None:
    own = asking_as(api, "member-00")
    told = api.client.get("/v1/catalogue", headers=own).json()
    assert told == api.get("/v1/catalogue?member_id=member-00").json()
    problem(api.client.get("/v1/catalogue?member_id=member-02", headers=own), "forbidden")
    problem(api.client.get("/v1/catalogue?member_id=member-02&member_id=member-00", headers=own), "forbidden")


def test_leaderboards_are_the_view_page_by_page(api: Api) -> None:
    listed = api.get("/v1/leaderboards").json()
    assert listed["metrics"] == ["points", "referrals", "shares"]
    assert listed["periods"][:2] == ["all", "month:2026-07"]
    assert listed["periods"][-1] == "month:2026-01"
    with transaction(api.settings.database_url) as cursor:
        for period in listed["periods"]:
            for metric in listed["metrics"]:
                cursor.execute(
                    "SELECT rank, member_id, value FROM reward.leaderboard "
                    "WHERE period = %s AND metric = %s ORDER BY rank",
                    (period, metric),
                )
                rows = [
                    (row["rank"], row["member_id"], row["value"])
                    for page in pages(api, f"/v1/leaderboards/{period}/{metric}?limit=5")
                    for row in page["items"]
                ]
                assert rows == cursor.fetchall(), (period, metric)
    problem(api.get("/v1/leaderboards/yesterday/points"), "invalid")
    problem(api.get("/v1/leaderboards/all/luck"), "invalid")


def test_a_members_token_sees_itself_alone_on_a_leaderboard(api: Api) -> None:
    rows = api.client.get("/v1/leaderboards/all/points", headers=asking_as(api, "member-00")).json()["items"]
    assert {row["member_id"] for row in rows} == {None, "member-00"}
