"""Hold that webhooks can be managed over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.test_conventions import problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

URL = "http://127.0.0.1:9/hook"


def test_a_webhook_is_made_listed_paused_and_removed(shop_url: str, serving: Callable[..., Api]) -> None:
    api = serving(shop_url, webhook_allow_private=True)
    made = api.call("POST", "/v1/webhooks", json={"url": URL, "types": ["points.*"]})
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    webhook_id = made.json()["webhook_id"]

    # nobody can read the secret again
    (listed,) = api.get("/v1/webhooks").json()["webhooks"]
    assert made.json()["secret"] not in str(listed)
    assert (listed["url"], listed["behind"], listed["paused_at"]) == (URL, 0, None)
    assert listed["created_by"].startswith("client-")
    assert "points.granted" in listed["types"]

    path = f"/v1/webhooks/{webhook_id}"
    assert api.call("POST", f"{path}/pause", json={"why": "the CRM is being moved"}).status_code == 204
    assert api.get("/v1/webhooks").json()["webhooks"][0]["why"] == "the CRM is being moved"
    assert api.call("POST", f"{path}/resume").status_code == 204
    assert api.call("POST", f"{path}/secret").json()["secret"] != made.json()["secret"]
    assert api.call("DELETE", path).status_code == 204
    assert api.get("/v1/webhooks").json() == {"webhooks": []}
    problem(api.call("DELETE", path), "not_found")


def test_an_address_inside_and_an_unknown_field_are_refused(api: Api) -> None:
    document = problem(api.call("POST", "/v1/webhooks", json={"url": "https://127.0.0.1/"}), "invalid")
    assert "not public" in document["detail"]
    document = problem(api.call("POST", "/v1/webhooks", json={"url": URL, "kinds": []}), "invalid")
    assert [error["pointer"] for error in document["errors"]] == ["/kinds"]


def test_what_was_logged_is_sent_again_on_request(shop_url: str, serving: Callable[..., Api]) -> None:
    api = serving(shop_url, webhook_allow_private=True)
    webhook_id = api.call("POST", "/v1/webhooks", json={"url": URL}).json()["webhook_id"]
    path = f"/v1/webhooks/{webhook_id}"
    api.call("POST", f"{path}/pause", json={"why": "for the test"})
    answer = api.call("POST", f"{path}/replay", json={"recorded_since": "2000-01-01T00:00:00Z"})
    assert answer.json()["events"] > 0
    (listed,) = api.get("/v1/webhooks").json()["webhooks"]
    assert listed["behind"] == answer.json()["events"]
