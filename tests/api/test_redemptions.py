"""Hold that a redemption over HTTP has one outcome, the same however often and whenever it is asked for."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from operations.access import member_tokens
from operations.access.member_tokens import MemberToken
from operations.intake import quarantine
from tests.api.shops import AT, buys, redeem, served
from tests.api.test_conventions import problem
from tests.system import shop
from tests.system.workers import catch_up, eventually, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from operations.settings import Settings
    from tests.api.conftest import Api

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.fixture
def till(settings: Settings, serving: Callable[..., Api]) -> Api:
    """Return the API of a shop in which ann has 150 points."""
    api = served(settings, serving)
    buys(api, "ann", 150)
    catch_up(settings)
    return api


def outcome(response: Any) -> dict[str, Any]:
    """Return the outcome of an answer with 200."""
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_redemption_goes_from_reservation_to_restoration(till: Api, settings: Settings) -> None:
    with running(settings):
        reserved = outcome(redeem(till, "k-1", "reserve", "x-1", reward="pay", amount=55, order_amount=2_000))
        assert (reserved["outcome"], reserved["amount"], reserved["available"]) == ("accepted", 50, 100)
        assert reserved["worth"] == {"amount": 50, "currency": "EUR"}
        lapses_at = datetime.fromisoformat(reserved["lapses_at"])
        assert lapses_at - datetime.fromisoformat(AT) == timedelta(days=3)
        assert (reserved["unit"], reserved["reward"], reserved["recorded_at"] is not None) == ("points", "pay", True)

        captured = outcome(redeem(till, "k-2", "capture", "x-1", amount=30))
        assert (captured["outcome"], captured["amount"], captured["available"]) == ("accepted", 30, 120)
        assert captured["worth"] == {"amount": 30, "currency": "EUR"}
        assert captured["lapses_at"] is None

        restored = outcome(redeem(till, "k-3", "restore", "x-1", amount=10))
        assert (restored["amount"], restored["available"]) == (10, 130)

        spent = outcome(redeem(till, "k-4", "spend", "x-2", reward="mug"))
        assert (spent["amount"], spent["available"], spent["worth"]) == (120, 10, None)
        assert spent["items"] == [{"unit": "gift", "item": "mug", "expires_at": None}]

        kept = outcome(redeem(till, "k-5", "reserve", "x-3", reward="tea"))
        voided = outcome(redeem(till, "k-6", "void", "x-3"))
        assert (kept["available"], voided["amount"], voided["available"]) == (0, 10, 10)

        # later ones have changed everything, and each answer is what it was
        again = redeem(till, "k-1", "reserve", "x-1", reward="pay", amount=55, order_amount=2_000)
        assert outcome(again) == reserved
        assert outcome(till.get("/v1/redemptions/k-2")) == captured


@pytest.mark.parametrize(
    ("asked", "reason", "words", "instead"),
    [
        ({"action": "spend", "amount": 200}, "insufficient", "150 points available",
         "ask for 150 points or less, or wait until 50 points more are available"),
        ({"action": "spend", "reward": "cup"}, "unknown_reward", '"cup"', "name one of the catalogue's: mug, tea, pay"),
        ({"action": "spend", "reward": "pay", "amount": 5}, "below_minimum", "at least 10 points", "ask for more"),
        ({"action": "spend"}, "missing_amount", "neither a reward", "name a reward"),
        ({"action": "spend", "reward": "tea", "unit": "EUR"}, "unknown_unit", '"EUR"', "name points"),
        ({"action": "capture"}, "unknown_redemption", "no redemption", "name the redemption_id"),
    ],
)  # fmt: skip
def test_a_refusal_says_why_and_what_would_do(
    till: Api, settings: Settings, asked: dict[str, Any], reason: str, words: str, instead: str
) -> None:
    with running(settings):
        refused = outcome(redeem(till, "k-1", redemption_id="x-1", **asked))
    assert (refused["outcome"], refused["refusal"]["reason"]) == ("refused", reason)
    assert refused["available"] == (150 if refused["unit"] == "points" else 0)
    assert words in refused["refusal"]["detail"]
    assert instead in refused["refusal"]["instead"]


def test_refusals_of_later_actions_have_the_amounts_of_earlier_ones(till: Api, settings: Settings) -> None:
    with running(settings):
        redeem(till, "k-1", "reserve", "x-1", amount=50)
        more = outcome(redeem(till, "k-2", "capture", "x-1", amount=60))["refusal"]
        assert (more["reason"], more["instead"]) == ("exceeds_reserved", "capture 50 points or less")
        early = outcome(redeem(till, "k-3", "restore", "x-1"))["refusal"]
        assert (early["reason"], "void it" in early["instead"]) == ("not_captured", True)
        redeem(till, "k-4", "capture", "x-1", amount=40)
        back = outcome(redeem(till, "k-5", "restore", "x-1", amount=41))["refusal"]
        assert (back["reason"], back["instead"]) == ("exceeds_captured", "restore 40 points or less")
        twice = outcome(redeem(till, "k-6", "capture", "x-1"))["refusal"]
        assert (twice["reason"], twice["detail"]) == ("already_captured", 'redemption "x-1" is captured already')
        gone = [outcome(redeem(till, f"m-{name}", "spend", f"m-{name}", reward="tea")) for name in range(15)]
        assert [each["outcome"] for each in gone].count("accepted") == 11


def test_a_key_is_needed_and_bound_to_its_body(till: Api, settings: Settings) -> None:
    problem(redeem(till, None, "spend", "x-1", amount=10), "idempotency_key_missing")
    problem(redeem(till, "two words", "spend", "x-1", amount=10), "idempotency_key_missing")
    with running(settings):
        first = outcome(redeem(till, '"k-1"', "spend", "x-1", amount=10))
        assert first["key"] == "k-1"
        problem(redeem(till, "k-1", "spend", "x-1", amount=11), "id_conflict")
        problem(redeem(till, "p-ann", "spend", "x-1", amount=11), "id_conflict")  # an order has this event_id
        assert outcome(redeem(till, "k-1", "spend", "x-1", amount=10)) == first
    problem(till.get("/v1/redemptions/p-ann"), "not_found")
    problem(till.get("/v1/redemptions/two%20words"), "not_found")


def test_what_cannot_be_taken_is_refused_before_it_is_sent(till: Api) -> None:
    wrong = problem(redeem(till, "k-1", "borrow", "x-1"), "invalid")["errors"]
    assert [error["pointer"] for error in wrong] == ["/action"]
    problem(redeem(till, "k-1", "spend", "x-1", source="another"), "invalid")
    problem(redeem(till, "k-1", "spend", "x-1", occurred_at="2999-01-01T00:00:00Z"), "invalid")
    problem(redeem(till, "k-1", "spend", "x-1", member_id=None), "invalid")
    problem(till.get("/v1/redemptions/k-1"), "not_found")


def test_past_the_wait_it_is_pending_and_the_place_has_the_outcome_later(till: Api, settings: Settings) -> None:
    response = redeem(till, "k-1", "spend", "x-1", wait_s=0, amount=10)
    assert (response.status_code, response.json()["outcome"]) == (202, "pending")
    place = response.headers["location"]
    later = till.get(place)
    assert (later.status_code, later.json()["outcome"], later.headers["location"]) == (202, "pending", place)
    problem(till.get("/v1/redemptions/k-1"), "not_found")

    # sent once more meanwhile, it counts once
    assert redeem(till, "k-1", "spend", "x-1", wait_s=0, amount=10).status_code == 202
    assert catch_up(settings).duplicate == 1
    found = outcome(till.get(place))
    assert (found["outcome"], found["available"]) == ("accepted", 140)
    assert outcome(redeem(till, "k-1", "spend", "x-1", amount=10)) == found
    passed = place.replace("k-1", "k-2")
    problem(till.get(passed), "not_found")


def test_one_request_at_a_time_under_a_key(till: Api, settings: Settings) -> None:
    with ThreadPoolExecutor(1) as other:
        first = other.submit(redeem, till, "k-1", "spend", "x-1", amount=10)
        eventually(lambda: bool(till.service.arrivals.awaited), "the first request")
        second = redeem(till, "k-1", "spend", "x-1", amount=10)
        problem(second, "in_flight")
        assert int(second.headers["retry-after"]) > 0
        with running(settings):
            assert outcome(first.result())["available"] == 140


def test_what_was_set_aside_is_told_and_not_sent_again(till: Api, settings: Settings) -> None:
    """Break what reads the message, as a defect would: it goes to quarantine with the reason `failed`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumers.intake.admitted_from", broken)
        with running(settings):
            aside = outcome(redeem(till, "k-1", "spend", "x-1", amount=10))
    assert (aside["outcome"], aside["quarantine"]["reason"]) == ("set_aside", "failed")
    assert "a defect" in aside["detail"]
    assert (aside["redemption_id"], aside["recorded_at"]) == ("x-1", None)
    assert outcome(redeem(till, "k-1", "spend", "x-1", amount=10)) == aside
    assert outcome(till.get("/v1/redemptions/k-1")) == aside
    assert catch_up(settings).quarantined == 0, "it was not sent again"

    # once an operator lets it pass, it has the outcome that it would have had
    quarantine.release(settings, aside["quarantine"]["id"])
    assert outcome(till.get("/v1/redemptions/k-1"))["available"] == 140


def broken(*_: object, **__: object) -> None:
    """Fail as a defect does."""
    raise ValueError("a defect")


def test_an_erased_members_redemptions_are_gone(till: Api, settings: Settings) -> None:
    with running(settings):
        outcome(redeem(till, "k-1", "spend", "x-1", amount=10))
    shop.erase(settings.database_url, "ann")
    problem(till.get("/v1/redemptions/k-1"), "erased")
    problem(redeem(till, "k-2", "spend", "x-2", amount=10), "erased")


def test_a_held_member_is_told(till: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("engine.ledger.redemptions._reserve", broken)
        with running(settings):
            response = redeem(till, "k-1", "spend", "x-1", amount=10)
    assert (response.status_code, response.json()["outcome"]) == (202, "held")
    assert "an operator releases record" in response.json()["detail"]


def test_members_redeem_only_where_the_setting_says_so(
    settings: Settings, serving: Callable[..., Api], till: Api
) -> None:
    def token(api: Api) -> dict[str, str]:
        secret = api.service.callers.secret
        signed = member_tokens.issue(secret, MemberToken("ann", "app", int(time.time()) + 60))
        return {"Authorization": f"Bearer {signed}", "Idempotency-Key": "k-1", "Prefer": "wait=10"}

    body = {"action": "spend", "redemption_id": "x-1", "member_id": "ann", "occurred_at": AT, "amount": 10}
    problem(till.client.post("/v1/redemptions", json=body, headers=token(till)), "forbidden")
    open_ = serving(
        settings.database_url, bootstrap_servers=settings.bootstrap_servers, topic_prefix=settings.topic_prefix,
        api_members_redeem=True,
    )  # fmt: skip
    with running(settings):
        assert outcome(open_.client.post("/v1/redemptions", json=body, headers=token(open_)))["amount"] == 10
        other = {**body, "member_id": "bob"}
        problem(open_.client.post("/v1/redemptions", json=other, headers=token(open_)), "forbidden")
