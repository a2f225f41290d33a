"""Hold that a client's server makes tokens that read one member, for an hour at most."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from operations.access.scopes import Scope
from tests.api.test_conventions import problem
from tests.system import shop

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres


def test_a_token_reads_its_member_until_it_ends(api: Api) -> None:
    asked = {"member_id": "member-00", "seconds": 60}
    made = api.call("POST", "/v1/member-tokens", Scope.MAKE_MEMBER_TOKENS, json=asked)
    assert made.status_code == 201, made.text
    assert 50 < datetime.fromisoformat(made.json()["expires_at"]).timestamp() - time.time() <= 60
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    assert api.client.get("/v1/members/member-00", headers=headers).status_code == 200
    problem(api.client.get("/v1/members/member-01", headers=headers), "forbidden")

    basket = {"member_id": "member-00", "amount": 1_000}
    assert api.client.post("/v1/quotes", json=basket, headers=headers).status_code == 200
    problem(api.client.post("/v1/quotes", json=basket | {"member_id": "member-01"}, headers=headers), "forbidden")
    problem(api.client.post("/v1/member-tokens", json=asked, headers=headers), "forbidden")


def test_a_token_ends_within_the_hour_and_erased_members_get_none(api: Api) -> None:
    for seconds in (0, 3_601, "long"):
        problem(api.call("POST", "/v1/member-tokens", json={"member_id": "m", "seconds": seconds}), "invalid")
    shop.erase(api.settings.database_url, "member-03")
    problem(api.call("POST", "/v1/member-tokens", json={"member_id": "member-03"}), "erased")
