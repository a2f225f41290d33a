"""Hold who may call what: every route by every scope, keys that end, tokens of one member, and rates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fastapi.routing import APIRoute

from api.access.caller import Needs
from api.app import ROUTERS
from operations.access import keys, member_tokens
from operations.access.member_tokens import MemberToken
from operations.access.scopes import MEANINGS, OF_A_MEMBER, Scope
from schemas.errors import AnswerIsNo, InputError
from tests.api.test_conventions import problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres


def scope_of(route: APIRoute) -> Scope:
    """Return the scope that a route needs; each needs one."""
    scopes = [each.call.scope for each in route.dependant.dependencies if isinstance(each.call, Needs)]
    assert len(scopes) == 1, route.path
    return scopes[0]


def routes() -> list[APIRoute]:
    """Return every route below /v1."""
    return [each for router in ROUTERS for each in router.routes if isinstance(each, APIRoute)]


def test_every_route_lets_in_its_own_scope_and_no_other(api: Api) -> None:
    for route in routes():
        needed, path = scope_of(route), route.path.format_map(dict.fromkeys(route.param_convertors, "0"))
        (method,) = route.methods or {""}
        assert api.client.request(method, path).status_code == 401, route.path
        for scope in Scope:
            status = api.call(method, path, scope).status_code
            assert (status in {401, 403}) == (scope is not needed), (route.path, scope, status)


def test_every_scope_is_told_in_words() -> None:
    assert set(MEANINGS) == set(Scope)


@pytest.mark.parametrize(
    "credential", ["", "gdn_000000000000_" + "a" * 43, "gdm_e30.e30", "nonsense", "gdm_", "gdm_ü.ü"]
)
def test_who_is_unknown_is_told_how_to_be_known(api: Api, credential: str) -> None:
    response = api.client.get("/v1/members/member-00", headers={b"Authorization": f"Bearer {credential}".encode()})
    problem(response, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_a_key_is_kept_as_a_digest_and_shown_once(api: Api) -> None:
    made = keys.create(api.settings.database_url, "till", ["members:read"])
    (row,) = [row for row in keys.keys(api.settings.database_url) if row["client"] == "till"]
    assert row["key_id"] == made.key_id
    assert made.key.split("_", 2)[2] not in str(row)
    assert row["valid"]


def test_a_client_has_two_keys_at_most_to_change_without_a_pause(api: Api) -> None:
    url = api.settings.database_url
    first = keys.create(url, "till", ["members:read"])
    keys.create(url, "till", ["members:read"])
    with pytest.raises(InputError, match="has 2 valid keys already"):
        keys.create(url, "till", ["members:read"])
    assert keys.revoke(url, first.key_id) == "till"
    keys.create(url, "till", ["members:read"])
    with pytest.raises(AnswerIsNo, match="no valid key"):
        keys.revoke(url, first.key_id)


def test_a_revoked_key_is_worthless_after_the_time_for_which_it_is_remembered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys.create(api.settings.database_url, "till", ["members:read"])
    headers = {"Authorization": f"Bearer {made.key}"}
    assert api.client.get("/v1/members/member-00", headers=headers).status_code == 200
    keys.revoke(api.settings.database_url, made.key_id)
    monkeypatch.setattr("api.access.caller.REMEMBERED_S", 0.0)
    problem(api.client.get("/v1/members/member-00", headers=headers), "unauthenticated")


def test_an_unknown_scope_and_an_odd_name_are_refused(database_url: str) -> None:
    with pytest.raises(InputError, match='no scope "members:eat"'):
        keys.create(database_url, "till", ["members:eat"])
    with pytest.raises(InputError, match="cannot be the name of a client"):
        keys.create(database_url, "The Till", ["members:read"])
    with pytest.raises(InputError, match="needs a scope"):
        keys.create(database_url, "till", [])


def test_a_members_token_reads_that_member_only(api: Api) -> None:
    secret = api.client.app.state.service.callers.secret  # type: ignore[attr-defined]
    token = member_tokens.issue(secret, MemberToken("member-00", "app", int(time.time()) + 60))
    headers = {"Authorization": f"Bearer {token}"}
    assert api.client.get("/v1/members/member-00", headers=headers).json()["member_id"] == "member-00"
    problem(api.client.get("/v1/members/member-01", headers=headers), "forbidden")
    for route in routes():
        (method,) = route.methods or {""}
        path = route.path.format_map(dict.fromkeys(route.param_convertors, "member-00"))
        status = api.client.request(method, path, headers=headers).status_code
        assert (status == 403) == (scope_of(route) not in OF_A_MEMBER), route.path


def test_a_token_that_has_ended_or_was_changed_is_worthless(api: Api) -> None:
    secret = api.client.app.state.service.callers.secret  # type: ignore[attr-defined]
    ended = member_tokens.issue(secret, MemberToken("member-00", "app", int(time.time()) - 1))
    whole = member_tokens.issue(secret, MemberToken("member-00", "app", int(time.time()) + 60))
    other = member_tokens.issue(b"another secret", MemberToken("member-00", "app", int(time.time()) + 60))
    body, _, signature = whole.partition(".")
    for token in (ended, other, f"{body}x.{signature}", f"{body}.{signature}"[:-2]):
        headers = {"Authorization": f"Bearer {token}"}
        problem(api.client.get("/v1/members/member-00", headers=headers), "unauthenticated")


def test_too_many_requests_are_told_when_to_come_back(shop_url: str, serving: Callable[..., Api]) -> None:
    slow = serving(shop_url, api_requests_per_s=2.0)
    statuses = [slow.get("/v1/members/member-00").status_code for _ in range(6)]
    assert statuses[:4] == [200] * 4
    response = slow.get("/v1/members/member-00")
    problem(response, "rate_limited")
    assert int(response.headers["retry-after"]) >= 1
    assert slow.get("/v1/members/member-00", Scope.READ_MEMBERS).status_code == 200, (
        "another client has its own allowance"
    )
