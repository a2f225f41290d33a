"""Hold that a member's history is the log's, page by page, each event with its sentence and its why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from operations.member.view import member
from operations.why.event import why_event
from tests.api.test_conventions import problem
from tests.api.test_holdings import pages
from tests.system import shop

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

MEMBER = "/v1/members/member-00"


def test_a_history_is_the_log_newest_first(api: Api) -> None:
    listed = list(pages(api, f"{MEMBER}/events?limit=7"))
    rows = [row for page in listed for row in page["items"]]
    shown = member(api.settings.database_url, "member-00", 100_000)["reward_events"]
    assert len(listed) > 2
    assert [(row["pos"], row["reward_key"], row["type"], row["amount"], row["item"]) for row in rows] == [
        (row["pos"], row["reward_key"], row["type"], row["amount"], row["item"]) for row in shown
    ]
    assert all(row["sentence"] for row in rows)


def test_sentences_say_what_happened_and_where_a_lot_came_from(api: Api) -> None:
    rows = [row for page in pages(api, f"{MEMBER}/events?limit=500") for row in page["items"]]
    by_type = {row["type"]: row["sentence"] for row in rows}
    assert by_type["points.granted"].startswith("rule ")
    assert "points lapsed: they were valid until" in by_type["points.expired"]
    assert "; they came with event e" in by_type["points.expired"]


def test_a_history_is_also_told_as_of_then(api: Api) -> None:
    rows = api.get(f"{MEMBER}/events?effective_at=2026-02-01T00:00:00Z&limit=500").json()["items"]
    assert rows
    assert max(row["occurred_at"] for row in rows) <= "2026-02-01T00:00:00Z"
    problem(api.get(f"{MEMBER}/events?known_at=2026-02-01T00:00:00"), "invalid")
    assert api.get(f"{MEMBER}/events?known_at=2020-01-01T00:00:00Z").json()["items"] == []


def test_an_erased_referee_has_a_pseudonym_in_the_referrers_history(api: Api) -> None:
    for number in range(8):
        path = f"/v1/members/member-{number:02}/events?limit=500"
        named = {row["item"] for row in api.get(path).json()["items"] if row["type"] == "referral.qualified"}
        if named:
            break
    referee = named.pop()
    shop.erase(api.settings.database_url, referee)
    text = api.get(path).text
    assert referee not in text
    assert "erased:" in text


def test_why_is_what_the_command_says_of_the_members_own_events(api: Api) -> None:
    event_id = api.get(f"{MEMBER}/events?limit=500").json()["items"][-1]["event_id"]
    told = api.get(f"{MEMBER}/why?event_id={event_id}").json()
    shown = json.loads(json.dumps(why_event(api.settings.database_url, event_id)))
    assert told == shown
    assert told["log_agrees"] is True
    problem(api.get(f"/v1/members/member-02/why?event_id={event_id}"), "not_found")
    problem(api.get(f"{MEMBER}/why?event_id=nothing"), "not_found")
    problem(api.get(f"{MEMBER}/why"), "invalid")
