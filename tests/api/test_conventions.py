"""Hold what every route promises: problems, ids, bounds, tags, and that no page asks a network."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from api.app import ROUTERS
from api.problems import CODES, MEDIA_TYPE
from api.requests import BODY_MAX
from api.routing import DEPTH_MAX, depth

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

MEMBER = "member-00"


def problem(response: Any, code: str) -> dict[str, Any]:
    """Return the problem of an answer, after a look at its form."""
    document: dict[str, Any] = response.json()
    assert (response.status_code, response.headers["content-type"]) == (CODES[code][0], MEDIA_TYPE), response.text
    assert document["code"] == code
    assert document["status"] == response.status_code
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["type"] == f"/problems/{code}"
    return document


def test_a_path_that_is_not_there_is_a_problem_with_a_page(api: Api) -> None:
    document = problem(api.get("/v1/nothing"), "not_found")
    assert "/docs lists every path" in document["detail"]
    page = api.client.get(document["type"])
    assert page.status_code == 200
    assert "There is no such thing" in page.text


def test_a_method_that_a_path_does_not_have_is_a_problem(api: Api) -> None:
    response = api.call("DELETE", f"/v1/members/{MEMBER}")
    problem(response, "method_not_allowed")
    assert "GET" in response.headers["allow"]


def test_a_parameter_that_cannot_be_used_is_named(api: Api) -> None:
    document = problem(api.get(f"/v1/members/{MEMBER}/balances?effective_at=yesterday"), "invalid")
    assert [error["pointer"] for error in document["errors"]] == ["effective_at"]


def test_a_defect_tells_nothing_but_the_requests_id(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr("api.routes.members.member_view", broken)
    response = api.get(f"/v1/members/{MEMBER}", headers={"X-Request-Id": "till-7.42"})
    assert problem(response, "defect")["request_id"] == "till-7.42"
    assert "inside" not in response.text


def test_an_odd_request_id_is_replaced(api: Api) -> None:
    response = api.get(f"/v1/members/{MEMBER}", headers={"X-Request-Id": "two words"})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_a_database_that_is_away_is_unavailable_and_comes_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg2  # noqa: PLC0415  for its error alone

    def away(*_: object, **__: object) -> None:
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr("api.routes.members.member_view", away)
        response = api.get(f"/v1/members/{MEMBER}")
        problem(response, "unavailable")
        assert int(response.headers["retry-after"]) > 0
        assert "server closed" not in response.text
    assert api.get(f"/v1/members/{MEMBER}").status_code == 200


def test_a_session_that_postgresql_has_ended_is_replaced(api: Api, shop_url: str) -> None:
    import psycopg2  # noqa: PLC0415  as an operator, who ends sessions

    assert api.get(f"/v1/members/{MEMBER}").status_code == 200
    with psycopg2.connect(shop_url) as operator, operator.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'guerdon serve'"
        )
        row = cursor.fetchone()
    operator.close()
    assert row is not None
    assert row[0] >= 1
    assert api.get(f"/v1/members/{MEMBER}").status_code == 200


def test_an_answer_that_is_no_costs_no_new_session(api: Api, shop_url: str) -> None:
    import psycopg2  # noqa: PLC0415  as an operator, who counts sessions

    def sessions() -> set[int]:
        with closing(psycopg2.connect(shop_url)) as operator, operator, operator.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity "
                "WHERE application_name = 'guerdon serve' AND datname = current_database()"
            )
            return {pid for (pid,) in cursor.fetchall()}

    problem(api.get("/v1/members/nobody"), "not_found")
    before = sessions()
    for _ in range(3):
        problem(api.get("/v1/members/nobody"), "not_found")
    assert before
    assert sessions() == before


def test_who_has_an_answer_already_gets_304(api: Api) -> None:
    first = api.get(f"/v1/members/{MEMBER}")
    again = api.get(f"/v1/members/{MEMBER}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = api.get("/v1/members/member-01", headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code == 200


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(api: Api, *, announced: bool) -> None:
    size = BODY_MAX + 1

    def pieces() -> Any:
        yield from (b" " * 65_536 for _ in range(size // 65_536 + 1))

    content = b" " * size if announced else pieces()
    response = api.call("POST", f"/v1/members/{MEMBER}", content=content)
    assert response.status_code in {405, 413}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[" * 40 + b"]" * 40, 40),
        (b'{"a": "' + b"[" * 100 + b'"}', 1),
        (b'{"a\\"[[[": [1, [2, [3]]]}' + b"[]" * 40, 4),
        (b"[" * DEPTH_MAX, 0),
    ],
)
def test_depth_counts_brackets_outside_of_texts(body: bytes, expected: int) -> None:
    assert depth(body) == expected


def test_pages_ask_no_network_and_run_nothing(api: Api) -> None:
    for path in ("/docs", "/problems/invalid"):
        page = api.client.get(path)
        assert page.status_code == 200
        assert not re.search(r"<script|https?://", page.text)
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "/v1/members/{member_id}" in api.client.get("/docs").text


def test_the_openapi_file_documents_every_route_and_its_problems(api: Api) -> None:
    file = json.loads(api.client.get("/openapi.json").text)
    assert file["openapi"].startswith("3.1")
    for path, methods in file["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (path, method)
            assert {"401", "403", "422", "429", "500", "503"} <= set(operation["responses"]), (path, method)
    assert {route.path for router in ROUTERS for route in router.routes} == set(file["paths"])  # type: ignore[attr-defined]


def test_origins_are_refused_unless_they_are_named(shop_url: str, serving: Callable[..., Api]) -> None:
    closed = serving(shop_url)
    response = closed.get(f"/v1/members/{MEMBER}", headers={"Origin": "https://shop.example"})
    assert "access-control-allow-origin" not in response.headers
    opened = serving(shop_url, api_cors_origins=["https://shop.example"])
    response = opened.get(f"/v1/members/{MEMBER}", headers={"Origin": "https://shop.example"})
    assert response.headers["access-control-allow-origin"] == "https://shop.example"
