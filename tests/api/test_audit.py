"""Hold that what operators do over HTTP is written down, refusals included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.test_conventions import problem

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

URL = "https://127.0.0.1/"


def test_a_refusal_is_written_down_with_who_asked_and_for_whom(api: Api) -> None:
    headers = {"X-On-Behalf-Of": "ann@shop.example", "X-Request-Id": "r-1"}
    problem(api.call("POST", "/v1/webhooks", json={"url": URL}, headers=headers), "invalid")
    told = api.get("/v1/audit?action=POST%20/v1/webhooks").json()["entries"]
    refused, begun = told
    assert begun["actor"].startswith("client:client-")
    assert (begun["on_behalf"], begun["request_id"], begun["result"]) == ("ann@shop.example", "r-1", "begun")
    assert URL in begun["arguments"]["body"]
    assert (refused["result"], refused["begun"]) == ("refused", begun["seq"])
    assert "not public" in refused["detail"]


def test_who_lacks_the_scope_is_written_down_too(api: Api) -> None:
    problem(api.call("DELETE", "/v1/webhooks/wh_1", "members:read"), "forbidden")
    refused = api.get("/v1/audit").json()["entries"][1]
    assert (refused["action"], refused["result"]) == ("DELETE /v1/webhooks/{webhook_id}", "refused")
    assert refused["detail"] == "this needs the scope webhooks:write"


def test_reads_of_members_are_not_written_down(api: Api) -> None:
    api.get("/v1/members/member-00")
    assert {entry["action"] for entry in api.get("/v1/audit").json()["entries"]} == {"GET /v1/audit"}


def test_pages_follow_each_other_while_rows_come(api: Api) -> None:
    for _ in range(5):
        api.call("DELETE", "/v1/webhooks/wh_1")
    seen: list[int] = []
    path = "/v1/audit?limit=4&action=DELETE%20/v1/webhooks/%7Bwebhook_id%7D"
    while path:
        page = api.get(path)
        seen += [entry["seq"] for entry in page.json()["entries"]]
        path = page.headers.get("link", "").partition(">")[0].lstrip("<")
        api.call("DELETE", "/v1/webhooks/wh_1")
    assert len(seen) == len(set(seen)) == 10
    assert seen == sorted(seen, reverse=True)
    wrong = api.get("/v1/audit?cursor=nonsense")
    assert problem(wrong, "invalid")["errors"][0]["pointer"] == "cursor"
    first = api.get("/v1/audit?limit=1").json()["next"]
    assert "other filters" in problem(api.get(f"/v1/audit?limit=1&actor=x&cursor={first}"), "invalid")["detail"]


def test_what_postgresql_cannot_hold_is_written_down_in_another_way(api: Api) -> None:
    problem(api.call("DELETE", "/v1/webhooks/wh%00"), "invalid")
    refused = api.get("/v1/audit").json()["entries"][1]
    assert refused["result"] == "refused"
    assert refused["arguments"] == {"webhook_id": "wh\\0"}
