"""Hold that the API tells what a member holds as the log has it: tier, lots, rewards, challenges, referrals."""

from __future__ import annotations

import re
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.database import transaction
from operations.access import member_tokens
from operations.access.member_tokens import MemberToken
from operations.member.view import member
from projections.runner import finish
from schemas.events import Activity
from tests.api.test_conventions import problem
from tests.system import shop
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

MEMBER = "/v1/members/member-00"


def pages(api: Api, path: str) -> Iterator[dict[str, Any]]:
    """Yield every page of a list, by its links."""
    following = path
    while following:
        response = api.get(following)
        assert response.status_code == 200, response.text
        yield response.json()
        link = re.fullmatch('<(.*)>; rel="next"', response.headers.get("link", ""))
        following = link[1] if link else ""


def asking_as(api: Api, member_id: str) -> dict[str, str]:
    """Return the headers of a member's token."""
    secret = api.client.app.state.service.callers.secret  # type: ignore[attr-defined]
    token = member_tokens.issue(secret, MemberToken(member_id, "app", 2**40))
    return {"Authorization": f"Bearer {token}"}


def test_lots_add_up_to_the_balances(api: Api) -> None:
    for number in range(8):
        path = f"/v1/members/member-{number:02}"
        balances = {row["unit"]: row for row in api.get(path).json()["balances"]}
        lots = [lot for page in pages(api, f"{path}/lots?limit=2") for lot in page["items"]]
        for account in ("pending", "active", "reserved"):
            for unit, row in balances.items():
                assert sum(lot[account] for lot in lots if lot["unit"] == unit) == row[account], (path, unit, account)
        order = [(lot["expires_at"] or "9", lot["granted_at"]) for lot in lots]
        assert order == sorted(order)
        assert len({lot["lot"] for lot in lots}) == len(lots)


def test_lots_are_of_one_unit_where_it_is_asked_for(api: Api) -> None:
    lots = api.get(f"{MEMBER}/lots?unit=points").json()["items"]
    assert {lot["unit"] for lot in lots} == {"points"}


def test_a_cursor_goes_with_its_own_list_only(api: Api) -> None:
    cursor = api.get(f"{MEMBER}/lots?limit=1").json()["next"]
    for path in (f"{MEMBER}/lots?unit=points", "/v1/members/member-01/lots", f"{MEMBER}/events", f"{MEMBER}/referrals"):
        joined = "&" if "?" in path else "?"
        document = problem(api.get(f"{path}{joined}cursor={cursor}"), "invalid")
        assert document["errors"][0]["pointer"] == "cursor"


def test_a_tier_tells_what_each_level_lacks(api: Api) -> None:
    now = api.get(f"{MEMBER}/tier").json()
    assert now["qualifying"] == api.get(f"{MEMBER}/balances").json()["tier"]["qualifying"]
    assert [level["tier"] for level in now["levels"]] == ["basic", "gold"]
    assert now["levels"][1]["missing"] == max(400 - now["qualifying"], 0)
    before = api.get(f"{MEMBER}/tier?effective_at=2026-01-09T00:00:00Z").json()
    assert before["tier"] == "basic"
    assert before["effective_at"] == "2026-01-09T00:00:00Z"


def test_rewards_are_those_that_the_command_shows(api: Api) -> None:
    told = api.get(f"{MEMBER}/rewards").json()["items"]
    shown = member(api.settings.database_url, "member-00")["rewards"]
    assert told
    assert [(row["unit"], row["item"], row["status"]) for row in told] == [
        (row["unit"], row["item"], row["status"]) for row in shown
    ]


def test_referrals_are_those_of_the_view_newest_first(api: Api) -> None:
    with transaction(api.settings.database_url) as cursor:
        cursor.execute("SELECT referrer_id, count(*) FROM guerdon.identified_referral GROUP BY 1 ORDER BY 2 DESC")
        referrer, count = next(row for row in cursor.fetchall() if row[0] is not None)
    path = f"/v1/members/{referrer}/referrals"
    listed = list(pages(api, f"{path}?limit=1"))
    rows = [row for page in listed for row in page["items"]]
    assert len(rows) == count > 1
    assert len({row["referee_id"] for row in rows}) == count
    times = [row["attributed_at"] or "" for row in rows]
    assert times == sorted(times, reverse=True)
    assert listed[0]["links"] == [f"/r/{code}" for code in listed[0]["codes"]]

    # an erased referee has a pseudonym, and a member's token is told of nobody
    shop.erase(api.settings.database_url, rows[0]["referee_id"])
    again = api.get(path).json()["items"]
    assert again[0]["referee_id"].startswith("erased:")
    own = api.client.get(path, headers=asking_as(api, referrer)).json()["items"]
    assert {row["referee_id"] for row in own} == {None}


def test_a_code_has_a_picture_until_its_owner_is_erased(api: Api) -> None:
    (code,) = api.get(f"{MEMBER}/referrals").json()["codes"]
    path = f"/v1/referral-codes/{code}/qr.svg"
    response = api.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/svg+xml")
    assert response.text.startswith("<svg")
    problem(api.get("/v1/referral-codes/NOBODY22/qr.svg"), "not_found")
    assert api.client.get(path, headers=asking_as(api, "member-00")).status_code == 200
    problem(api.client.get(path, headers=asking_as(api, "member-01")), "not_found")
    shop.erase(api.settings.database_url, "member-00")
    assert api.get(path).status_code in {404, 410}


def test_challenges_stand_where_the_rules_left_them(database_url: str, serving: Callable[..., Api]) -> None:
    told = {}
    for row in checked_in(database_url, serving).get("/v1/members/anna/challenges").json()["items"]:
        told[row["rule_id"]] = row
    assert told["three"]["goal"] == "3 events"
    assert (told["three"]["reached"], told["three"]["missing"], told["three"]["completions"]) == (1, 2, 1)
    assert (told["once"]["status"], told["once"]["missing"]) == ("completed", 0)
    assert (told["week"]["within"], told["week"]["reached"]) == ("7d", 0), "the events are older than its window"
    assert told["old"]["status"] == "over"


def checked_in(database_url: str, serving: Callable[..., Api]) -> Api:
    """Return the API of a programme of challenges, of which anna has done four things."""
    activate(database_url, CHALLENGES)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for number in range(4):
            event = Activity(
                event_id=f"a{number}", member_id="anna", occurred_at=shop.START_MS + number, kind="checkin"
            )
            worker.commit(Batch([admitted(event)]))
    finish(database_url, threading.Event())
    return serving(database_url)


CHALLENGES = """\
schema: guerdon/1
programme: club
timezone: Europe/Berlin
currency: EUR
rules:
- {id: three, on: activity, challenge: {count: 3, repeat: after_completion}, give: [{points: 3}]}
- {id: once, on: activity, challenge: {count: 2}, give: [{points: 2}]}
- {id: week, on: activity, challenge: {count: 9, within: 7d}, give: [{points: 9}]}
- {id: old, on: activity, active: {until: 2026-01-01}, challenge: {count: 9}, give: [{points: 9}]}
catalogue:
- {id: pin, points: 4, kind: gift}
- {id: mug, points: 120, kind: gift, stock: 6}
- {id: pay, kind: money, points_per: {10: 0.10}}
"""


@pytest.mark.parametrize(
    "name", ["", "/balances", "/tier", "/lots", "/rewards", "/challenges", "/referrals", "/events", "/why?event_id=e1"]
)
def test_nobody_is_told_of_who_is_unknown_or_erased(api: Api, name: str) -> None:
    problem(api.get(f"/v1/members/nobody{name}"), "not_found")
    shop.erase(api.settings.database_url, "member-01")
    problem(api.get(f"/v1/members/member-01{name}"), "erased")
