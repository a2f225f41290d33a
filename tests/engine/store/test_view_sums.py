"""No view or function overflows, however many of the largest amounts it adds up, and no index takes a text whole."""

from __future__ import annotations

import random
import string
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.intake.batch import ClockMove, SetAside
from engine.live.batch import Batch
from engine.live.tier_reports import report_again
from engine.live.transaction import LiveTransaction
from engine.store.database import ANALYST, transaction
from operations.intake.quarantine import shown
from operations.member.view import member
from operations.rows import dictionaries
from operations.settings import load_settings
from operations.setup import projections
from operations.verify.checks import verify
from projections.runner import PROJECTIONS, finish
from schemas.events import INT64_MAX, Purchase, Share, Signup
from schemas.partitioning import shard_of
from schemas.rejection import Reason
from tests.engine.ledger.test_referrals import HEAD
from tests.system.batches import ENCODER, SCHEMAS, admitted, commit
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

TIMES = 3
ALL = TIMES * INT64_MAX
DAY_MS = 86_400_000
PROGRAMME = (
    HEAD
    + """\
referral: {claim_window: 7d}
tiers: {metric: status, window: rolling 30d, levels: [{id: low, from: 0}, {id: high, from: 100}, {id: top, from: MAX}]}
contests:
- {id: race, metric: points, period: month, winners: 1}
rules:
- {id: points, on: purchase, give: [{points: {rate: 1, per: 0.01, of: purchase.amount}}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 0.01, of: purchase.amount}}]}
- {id: cash, on: purchase, give: [{cash: {rate: 100%, of: purchase.amount}}]}
- {id: friend, on: referral, when: {referral.event: purchase},
   give: [{points: {rate: 1, per: 0.01, of: referral.amount}}, {cash: {rate: 100%, of: referral.amount}}]}
"""
).replace("MAX", str(INT64_MAX))
SUMS = ("leaderboard", "lot", "member", "member_balance", "member_day", "member_tier", "referrer")
"""The views that add up; every other view has a row an event."""

LETTERS = "".join(random.Random(2).choices(string.ascii_letters, k=9_000))  # noqa: S311  a test's own


@pytest.fixture
def rich(database_url: str) -> str:
    """Return a database in which bob, whom ann referred, has bought for the largest amount, again and again."""
    activate(database_url, PROGRAMME)
    signups = [
        Signup(event_id="s1", member_id="ann", occurred_at=START_MS),
        Signup(event_id="s2", member_id="bob", occurred_at=START_MS + 1, referrer_id="ann"),
        Share(event_id="h", member_id="bob", occurred_at=START_MS + 2, object="o", channel="link", verified=True),
    ]
    orders = [
        Purchase(
            event_id=f"p{number}", member_id="bob", occurred_at=START_MS + 3, order_id=f"o{number}", currency="USD",
            amount=INT64_MAX,
        )
        for number in range(TIMES)
    ]  # fmt: skip

    # record them, and move the clock by a day
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        worker.commit(Batch([admitted(event) for event in (*signups, *orders)]))
        later = ClockMove(START_MS + 4, everywhere=True, hourly=False, reached_ms=START_MS + DAY_MS)
        while worker.commit(Batch(clock=later)).ticks:
            pass
    finish(database_url, threading.Event())
    return database_url


def read(database_url: str, query: str, *parameters: object) -> list[dict[str, Any]]:
    """Return rows as an analyst reads them."""
    with transaction(database_url, role=ANALYST) as cursor:
        return dictionaries(cursor, query, parameters)


def test_every_view_adds_up_more_than_a_bigint_holds(rich: str) -> None:
    with transaction(rich) as cursor:
        cursor.execute("SELECT viewname FROM pg_views WHERE schemaname = 'reward' ORDER BY 1")
        views = [name for (name,) in cursor.fetchall()]
    rows = {view: read(rich, f"SELECT * FROM reward.{view}") for view in views}
    assert all(rows[view] for view in SUMS)

    # balances, referrers, leaderboard, tiers
    granted = {(row["member_id"], row["unit"]): row["granted"] for row in rows["member_balance"]}
    owners = [("ann", "points"), ("ann", "USD"), ("bob", "points"), ("bob", "USD"), ("bob", "status")]
    assert granted == dict.fromkeys(owners, ALL)
    (referrer,) = rows["referrer"]
    assert (referrer["points"], referrer["cash"]) == (ALL, ALL)
    board = {(row["metric"], row["period"][:3], row["member_id"]): row["value"] for row in rows["leaderboard"]}
    for who in ("ann", "bob"):
        assert [board["points", period, who] for period in ("day", "mon", "all")] == [ALL] * 3
    spent = {row["member_id"]: (row["net"], row["gross"]) for row in rows["member"]}
    assert spent == {"ann": (0, 0), "bob": (ALL, ALL)}
    lots = [row for row in rows["lot"] if (row["member_id"], row["unit"]) == ("bob", "points")]
    assert sum(row["left"] for row in lots) == ALL
    (day,) = [row for row in rows["member_day"] if row["member_id"] == "bob"]
    assert (day["net"], day["granted"]) == (ALL, ALL)
    (tier,) = [row for row in rows["member_tier"] if row["member_id"] == "bob"]
    assert (tier["tier"], tier["qualifying"]) == ("top", INT64_MAX), "the number of a tier saturates"


def test_balances_and_tiers_as_of_any_instant_do_too(rich: str) -> None:
    at, later = START_MS + 3, START_MS + DAY_MS
    for until_ms in (at, later):
        balances = read(
            rich,
            "SELECT unit, granted, available FROM reward.balance_as_of('bob', to_timestamp(%s / 1000.0))",
            until_ms,
        )
        both = {row["unit"]: (row["granted"], row["available"]) for row in balances}
        assert both == dict.fromkeys(("points", "status", "USD"), (ALL, ALL))
        (tier,) = read(
            rich, "SELECT tier, qualifying FROM reward.tier_as_of('bob', to_timestamp(%s / 1000.0))", until_ms
        )
        assert tier == {"tier": "top", "qualifying": INT64_MAX}


def test_commands_and_proofs_hold(rich: str) -> None:
    assert [finding for finding in verify(rich) if finding["problem"]] == []
    for name in PROJECTIONS:
        assert projections.difference(rich, name) is None
        projections.rebuild(rich, name)
    assert {row["set_aside"] for row in projections.listed(rich)} == {0}
    balances = {row["unit"]: row["granted"] for row in member(rich, "ann")["balances"]}
    assert balances == {"points": ALL, "USD": ALL}
    assert report_again(rich, shard_of("bob"), START_MS + 90 * DAY_MS) == 1


@pytest.mark.parametrize("kind", [Signup, Purchase])
def test_an_id_of_9000_letters_that_is_set_aside_is_no_key_of_an_index(
    kind: type[Signup | Purchase], database_url: str, tmp_path: Path
) -> None:
    """Before, the row of the quarantine could not be written, nor the member's key, and the batch came for ever."""
    activate(database_url, PROGRAMME)
    event = (
        Signup(event_id="s", member_id=LETTERS, occurred_at=START_MS, birthday="1979-08-23")
        if kind is Signup
        else Purchase(event_id="p", member_id=LETTERS, occurred_at=START_MS, order_id="o", currency="USD", amount=1)
    )
    value = ENCODER.encode(event)
    aside = SetAside(
        stage="admit",
        reason=Reason.OUT_OF_RANGE,
        message="member_id is too long",
        topic="t",
        partition=0,
        offset=0,
        payload=value,
        event=event,
        schema_id=0,
    )
    commit(database_url, Batch([], [aside]))
    with transaction(database_url) as cursor:
        (row,) = dictionaries(
            cursor, "SELECT id, member_id, payload IS NOT NULL AS has_payload FROM guerdon.quarantine"
        )
    assert row["has_payload"]
    assert row["member_id"].startswith(LETTERS[:100])
    assert len(row["member_id"]) == 200
    if kind is Signup:
        event_shown = shown(load_settings(database_url=database_url, home=tmp_path), row["id"])["event"]
        assert event_shown == "out_of_range: Expected `str` of length <= 200 - at `$.member_id`"
