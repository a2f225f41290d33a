"""`verify` names the first movement that takes what is not there, and the first row of a view that is not its log's."""

from __future__ import annotations

import threading
from hashlib import sha256

import pytest

from engine.store.database import transaction
from operations.verify.checks import verify
from projections.runner import finish
from schemas.partitioning import shard_of
from schemas.rewards import Posting, RewardEvent
from tests.strategies.movements import HOUR_MS, Entry
from tests.strategies.reward_histories import append
from tests.system.load import START_MS

pytestmark = pytest.mark.postgres

SHARD = shard_of("m")
LOT = sha256(b"lot").digest()
COUPON = sha256(b"coupon").digest()
LAPSES_MS = START_MS + 24 * HOUR_MS


def moved(type_: str, amount: int, debit: str | None, credit: str | None, key: bytes | None = None) -> RewardEvent:
    """Return a movement of the lot LOT; with `key`, its grant."""
    posting = Posting(type=type_, unit="points", debit=debit, credit=credit)
    own = key or sha256(f"{type_} {amount} {debit}".encode()).digest()
    return RewardEvent(posting, amount, own, START_MS, None, None if key else LOT, None, LAPSES_MS)


def coupon(verb: str, key: bytes | None = None, debit: str | None = None, credit: str | None = None) -> RewardEvent:
    """Return what happens to the coupon COUPON."""
    posting = Posting(type=f"coupon.{verb}", unit="coupon", item="five-off", debit=debit, credit=credit)
    return RewardEvent(posting, 1, key or sha256(verb.encode()).digest(), START_MS, None, None if key else COUPON)


def taken(pos: int, holds: str, unit: str = "points", lot: bytes = LOT) -> str:
    """Return what is said of a movement that leaves a lot with less than nothing."""
    where = f"reward log, shard {SHARD}, pos {pos}: lot {lot.hex()} of member m, {unit}"
    return f"{where}, would have {holds}: more was taken than it has"


def misplaced(pos: int, moves: str) -> str:
    """Return what is said of a movement from or to an account that is not its type's."""
    kind, _, way = moves.partition(" ")
    where = f"reward log, shard {SHARD}, pos {pos}: {kind} of member m"
    return f"{where} moves {way}, which no movement of its type does"


GRANT = moved("points.granted", 100, "issued", "active", LOT)
RESERVE = moved("points.reserved", 50, "active", "reserved")
ISSUE = coupon("issued", COUPON)
TIER = RewardEvent(Posting(type="tier.changed", unit="tier", item="gold", reason="reached"), 9, b"t" * 32, START_MS)

WRONG = {
    "more captured than was reserved": (
        [GRANT, RESERVE, moved("points.captured", 60, "reserved", "spent")],
        taken(3, "-10 reserved"),
    ),
    "spent before it was granted": ([RESERVE, GRANT], taken(1, "-50 active")),
    "a lot that nobody granted, though the member has enough": (
        [moved("points.granted", 100, "issued", "active", b"o" * 32), RESERVE],
        taken(2, "-50 active"),
    ),
    "a coupon that was used and then revoked": (
        [ISSUE, coupon("used"), coupon("revoked")],
        taken(3, "-1 held", "coupon", COUPON),
    ),
    "points that were granted as spent": (
        [GRANT, moved("points.granted", 5, "issued", "spent", b"o" * 32)],
        misplaced(2, "points.granted from issued to spent"),
    ),
    "points that came from nowhere": (
        [moved("points.granted", 5, None, "active", LOT)],
        misplaced(1, "points.granted from nowhere to active"),
    ),
    "a coupon that moves between accounts": (
        [coupon("issued", COUPON, "issued", "active")],
        misplaced(1, "coupon.issued from issued to active"),
    ),
    "debt beside something active": (
        [GRANT, moved("points.reversed", 30, "debt", "reversed")],
        "member m, points: the balance equations do not hold",
    ),
}


def problems(database_url: str) -> list[str]:
    return [finding["problem"] for finding in verify(database_url) if finding["problem"]]


@pytest.mark.parametrize("what", WRONG)
def test_a_movement_that_no_ledger_makes_is_named_though_every_hash_is_right(what: str, database_url: str) -> None:
    rewards, wanted = WRONG[what]
    append(database_url, [Entry("m", [reward]) for reward in rewards])
    finish(database_url, threading.Event())
    assert problems(database_url)[0] == wanted


CHANGES = {
    "another amount lapses": (
        "UPDATE guerdon.member_expiry SET active = active + 1",
        "member m, points: the projection says that 51 lapse at 2024-05-02T00:00:00.000Z and the log says 50; run",
    ),
    "nothing lapses": (
        "DELETE FROM guerdon.member_expiry",
        "member m, points: the projection says that 0 lapse at 2024-05-02T00:00:00.000Z and the log says 50; run",
    ),
    "a used coupon is active": (
        "UPDATE guerdon.member_reward SET status = 'active'",
        "member m, five-off: the projection says 1 coupon five-off active 2024-",
    ),
    "a coupon is gone": (
        "DELETE FROM guerdon.member_reward",
        "member m, five-off: the projection says nothing and the log says 1 coupon five-off used 2024-",
    ),
    "another tier before": (
        "UPDATE guerdon.tier_history SET previous = 'silver'",
        "member m, tier: the projection says silver to gold reached 2024-",
    ),
}


@pytest.fixture
def whole(database_url: str) -> str:
    append(database_url, [Entry("m", [GRANT, RESERVE, ISSUE, coupon("used"), TIER])])
    finish(database_url, threading.Event())
    assert problems(database_url) == []
    return database_url


@pytest.mark.parametrize("what", CHANGES)
def test_a_view_that_is_not_the_fold_of_its_log_is_named(what: str, whole: str) -> None:
    statement, wanted = CHANGES[what]
    with transaction(whole) as cursor:
        cursor.execute(statement)
        assert cursor.rowcount == 1
    (problem,) = problems(whole)
    assert problem.startswith(wanted)
