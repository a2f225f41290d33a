"""`guerdon member` tells what somebody at a counter wants to know of one member."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.member.member import _expiry, _seconds, _tier
from engine.live.batch import Batch
from projections.runner import finish
from schemas.errors import AnswerIsNo, InputError
from tests.system.batches import admitted, commit, purchase
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAMME = """\
schema: guerdon/1
programme: counter
timezone: America/New_York
currency: USD
points: {validity: 20d}
tiers:
  metric: status
  window: lifetime
  levels: [{id: regular, from: 0}, {id: silver, from: 100}, {id: gold, from: 1000}]
rules:
- {id: spend, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}, {status: 150}],
   limits: [{times: 100, per: member}]}
- {id: first, on: purchase, give: [{badge: first-order}, {coupon: {template: five-off, valid: 30d}}],
   limits: [{times: 1, per: member}]}
"""


@pytest.fixture
def guerdon(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what runs a command as an operator does, on a database in which ann has bought for 40.00 just now."""
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    activate(database_url, PROGRAMME)
    commit(database_url, Batch([admitted(purchase(1, "ann", amount=4_000, occurred_at=int(time.time() * 1000)))]))
    finish(database_url, threading.Event())

    def run(*words: object) -> Any:
        done = CliRunner().invoke(app, [*map(str, words)])
        if isinstance(done.exception, Exception):
            raise done.exception
        return done.stdout

    return run


@pytest.mark.postgres
def test_tier_rewards_balances_and_what_expires_soon_are_shown(guerdon: Callable[..., Any]) -> None:
    shown = guerdon("member", "ann")
    assert "tier silver since 20" in shown
    assert "; qualifying 150, 850 to gold" in shown
    assert "warning: 40 points expire at 20" in shown
    assert "first-order" in shown
    assert "five-off" in shown
    assert "reserved" not in shown
    assert "debt" not in shown


@pytest.mark.postgres
def test_the_document_holds_the_same_by_the_names_of_the_views(guerdon: Callable[..., Any]) -> None:
    found = json.loads(guerdon("member", "ann", "--json"))
    assert (found["tier"]["tier"], found["tier"]["qualifying"], found["tier"]["to_next_tier"]) == ("silver", 150, 850)
    assert {row["item"]: row["status"] for row in found["rewards"]} == {"first-order": "active", "five-off": "active"}
    (expiry,) = found["expiring"]
    assert (expiry["unit"], expiry["amount"], expiry["lapsed"]) == ("points", 40, False)
    assert {row["unit"]: row["available"] for row in found["balances"]} == {"points": 40, "status": 150}


@pytest.mark.postgres
def test_how_soon_is_asked_for(guerdon: Callable[..., Any]) -> None:
    assert "warning" not in guerdon("member", "ann", "--expiring-within", "19d")
    assert "warning" in guerdon("member", "ann", "--expiring-within", "3w")
    with pytest.raises(InputError, match="--expiring-within: 'soon' is no duration; write hours, days or weeks"):
        guerdon("member", "ann", "--expiring-within", "soon")


@pytest.mark.postgres
def test_nobody_is_shown_under_another_spelling(guerdon: Callable[..., Any]) -> None:
    with pytest.raises(AnswerIsNo, match='no event of a member "Ann" was recorded'):
        guerdon("member", "Ann")


@pytest.mark.parametrize(("text", "seconds"), [("12h", 43_200), ("30d", 2_592_000), ("8w", 4_838_400), ("0d", 0)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "30", "30m", "1.5d", "-1d", "30 d", "100000d", "३d"])
def test_any_other_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no duration"):
        _seconds(text)


TIER: dict[str, Any] = {
    "tier": "gold", "since": "2026-01-01T00:00:00Z", "until": None, "qualifying": 1_234, "next_tier": None,
    "to_next_tier": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "tier gold since 2026-01-01T00:00:00Z; qualifying 1,234"),
        (
            {"until": "2027-01-01T00:00:00Z", "next_tier": "ruby", "to_next_tier": 3_766},
            "tier gold since 2026-01-01T00:00:00Z until 2027-01-01T00:00:00Z at least; qualifying 1,234, 3,766 to ruby",
        ),
        ({"since": None, "qualifying": None}, "tier gold; qualifying 0"),
    ],
)
def test_a_tier_is_one_sentence(more: dict[str, Any], sentence: str) -> None:
    assert _tier(TIER | more) == sentence


def test_what_has_lapsed_is_not_said_to_expire() -> None:
    expiry = {"unit": "points", "amount": 1_200, "at": "2026-01-01T00:00:00Z"}
    assert _expiry(expiry | {"lapsed": False}) == "warning: 1,200 points expire at 2026-01-01T00:00:00Z"
    assert _expiry(expiry | {"lapsed": True}) == "warning: 1,200 points have lapsed since 2026-01-01T00:00:00Z"
