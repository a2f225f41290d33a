"""Hold that events come in over HTTP as they come in by `guerdon publish`, each with its own result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from engine.store.database import transaction
from operations.access.scopes import Scope
from operations.setup.initialise import create_topics
from tests.api.test_conventions import problem
from tests.system.load import activate
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from operations.settings import Settings
    from tests.api.conftest import Api

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

ORDER: dict[str, Any] = {
    "type": "purchase", "event_id": "p-1", "member_id": "ann", "occurred_at": "2026-03-04T08:10:00Z",
    "order_id": "o-1", "currency": "EUR", "amount": 2190,
    "items": [{"line_id": "1", "sku": "rye", "quantity": 1.1, "amount": 2190}],
}  # fmt: skip
VISIT = {
    "type": "activity", "event_id": "v-1", "member_id": "ann", "occurred_at": "2026-03-04T08:10:00Z", "kind": "visit",
}  # fmt: skip


@pytest.fixture
def shop(settings: Settings, serving: Callable[..., Api]) -> Api:
    """Return the API of an empty shop with topics."""
    create_topics(settings, 2)
    activate(settings.database_url, PROGRAMME)
    return serving(settings.database_url, bootstrap_servers=settings.bootstrap_servers, **named(settings))


def named(settings: Settings) -> dict[str, Any]:
    """Return the names of topics and group."""
    return {"topic_prefix": settings.topic_prefix, "group_id": settings.group_id}


PROGRAMME = """\
schema: guerdon/1
programme: shop
timezone: Europe/Berlin
currency: EUR
rules:
- {id: spend, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""


def send(api: Api, *events: Any, scopes: tuple[str, ...] = ()) -> Any:
    """Send events as a client."""
    return api.call("POST", "/v1/events", *scopes, json={"events": list(events)})


def logged(api: Api) -> list[tuple[str, str, str]]:
    """Return kind, source and event_id of all that the log has of members."""
    with transaction(api.settings.database_url) as cursor:
        cursor.execute(
            "SELECT kind::text, source, event_id FROM guerdon.source_event "
            "WHERE kind IN ('purchase', 'activity') ORDER BY kind::text, source"
        )
        return cursor.fetchall()


def test_events_are_taken_once_however_often_they_are_sent(shop: Api) -> None:
    for _ in range(3):
        response = send(shop, ORDER, VISIT, scopes=(Scope.SEND_EVENTS,))
        assert response.status_code == 202, response.text
        answer = response.json()
        assert (answer["accepted"], answer["refused"]) == (2, 0)
        assert [each["topic"] for each in answer["results"]] == [
            f"{shop.settings.topic_prefix}purchases", f"{shop.settings.topic_prefix}activities",
        ]  # fmt: skip
    summary = catch_up(shop.settings)
    assert (summary.accepted, summary.duplicate) == (2, 4)
    assert logged(shop) == [("activity", "client-0", "v-1"), ("purchase", "client-0", "p-1")]


def test_each_event_has_its_own_result_and_good_ones_are_sent_beside_bad_ones(shop: Api) -> None:
    bad = [
        (ORDER | {"amount": 1}, "items_mismatch", ""),
        (ORDER | {"currency": "USD"}, "wrong_currency", ""),
        (ORDER | {"occurred_at": "2999-03-04T08:10:00Z"}, "from_the_future", ""),
        (VISIT | {"event_id": "x" * 201}, "out_of_range", "/event_id"),
        (VISIT | {"memberid": "ann"}, "unknown_field", ""),
        ({**ORDER, "items": [{"line_id": "1", "sku": "rye", "quantity": "1", "amount": "2190"}]}, "wrong_type",
         "/items/0/amount"),
        (VISIT | {"source": "another"}, "source_denied", "/source"),
        ({"type": "decision"}, "missing_field", None),
    ]  # fmt: skip
    response = send(shop, *(event for event, _, _ in bad), VISIT, scopes=(Scope.SEND_EVENTS,))
    assert response.status_code == 202, response.text
    answer = response.json()
    assert (answer["accepted"], answer["refused"]) == (1, len(bad))
    for (_, code, pointer), result in zip(bad, answer["results"], strict=False):
        assert (result["status"], result["code"]) == ("refused", code), result
        assert result["detail"]
        if pointer:
            assert result["pointer"] == f"/events/{result['index']}{pointer}", result
    assert catch_up(shop.settings).accepted == 1


def test_where_nothing_can_be_taken_it_is_a_problem_that_names_each(shop: Api) -> None:
    document = problem(send(shop, VISIT | {"kind": 1}, {"type": "nothing"}), "invalid")
    assert [error["pointer"] for error in document["errors"]] == ["/events/0/kind", "/events/1/type"]


def test_a_key_may_name_sources_where_its_scopes_say_so(shop: Api) -> None:
    till = VISIT | {"source": "till-7"}
    assert send(shop, till, scopes=(Scope.SEND_EVENTS, Scope.NAME_SOURCES)).status_code == 202
    problem(send(shop, till, scopes=(Scope.SEND_EVENTS,)), "invalid")
    problem(send(shop, VISIT | {"source": "guerdon"}), "invalid")
    catch_up(shop.settings)
    assert logged(shop) == [("activity", "till-7", "v-1")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[1]", "unreadable"), (b"{", "unreadable"), (b'{"events": [], "events": []}', "unreadable"),
        (b'{"events": []}', "invalid"), (b'{"events": [1]}', "invalid"), (b'{"events": [{}], "more": 1}', "invalid"),
        (json.dumps({"events": [VISIT] * 1001}).encode(), "invalid"), (b"\xff", "unreadable"),
    ],
)  # fmt: skip
def test_bodies_that_are_none_are_refused(shop: Api, body: bytes, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    problem(shop.call("POST", "/v1/events", content=body, headers=headers), code)


def test_a_body_of_another_form_is_refused(shop: Api) -> None:
    headers = {"Content-Type": "text/plain"}
    problem(shop.call("POST", "/v1/events", content=b"{}", headers=headers), "unsupported_media_type")


def test_while_kafka_is_away_nothing_is_accepted_and_later_it_goes_on(
    settings: Settings, serving: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.intake.producer._TUNING", {"message.timeout.ms": 700, "linger.ms": 0})
    activate(settings.database_url, PROGRAMME)
    away = serving(settings.database_url, bootstrap_servers="127.0.0.1:9", **named(settings))
    problem(send(away, VISIT), "unavailable")
    assert away.get("/v1/members/ann").status_code == 404, "reads go on"


def test_without_a_programme_nothing_can_be_sent(settings: Settings, serving: Callable[..., Api]) -> None:
    api = serving(settings.database_url, bootstrap_servers=settings.bootstrap_servers)
    assert "guerdon programme activate" in problem(send(api, VISIT), "unavailable")["detail"]
