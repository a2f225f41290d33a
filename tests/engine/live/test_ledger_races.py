"""Where two workers, an operator and a member's own events meet in one ledger, as the live system has them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.live import load, release
from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.programmes import load_judge
from operations.verify.checks import verify
from projections.runner import finish
from schemas.events import Erasure, Event, Purchase, Redemption, Refund
from schemas.partitioning import shard_of
from tests.engine.books import Refusing
from tests.models.oracle import assert_judged
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import PROGRAMME_OF_LEDGER, START_MS, Load, activate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.postgres

HOUR_MS = 3_600_000
PROGRAMME = """
schema: guerdon/1
programme: p
timezone: UTC
currency: USD
refunds: {window: 30d}
catalogue: [{id: mug, points: 30, kind: gift, stock: 1000}, {id: pay, kind: money, points_per: {10: 1.00}}]
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""


def redeemed(number: int, member_id: str = "m1", action: str = "spend", at_ms: int = HOUR_MS, **fields: Any) -> Event:
    """Return a redemption of a mug, named by its number where `redemption_id` does not say otherwise."""
    head: dict[str, Any] = {
        "event_id": f"x{number}-{member_id}",
        "member_id": member_id,
        "occurred_at": START_MS + at_ms + number,
    }
    asked = {"redemption_id": f"x{number}", "reward": "mug"} | fields
    return Redemption(**head, action=action, **asked)  # type: ignore[arg-type]  # one of the five


def returned(number: int, order: int, at_ms: int = HOUR_MS, **fields: Any) -> Refund:
    head: dict[str, Any] = {"event_id": f"r{number}", "member_id": "m1", "occurred_at": START_MS + at_ms}
    return Refund(**(head | fields), order_id=f"o{order}", refund_id=f"r{number}")


def at_once(database_url: str, workers: Sequence[Sequence[Batch]]) -> list[str]:
    """Let each worker commit its batches while the others do, and return the points that all of them passed."""
    passed: list[str] = []

    def run(batches: Sequence[Batch]) -> None:
        with closing(LiveTransaction(database_url, SCHEMAS.lookup, observe=passed.append)) as worker:
            for batch in batches:
                worker.commit(batch)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(run, workers))
    return passed


def assert_sound(database_url: str) -> None:
    """Hold the log to what the oracle folds from it, and the views and chains to what `verify` asks of them."""
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
    with transaction(database_url) as cursor:
        assert_judged(cursor)


def told(database_url: str, member_id: str = "m1") -> list[tuple[str, int, str | None]]:
    """Return a member's reward events: type, amount and reason."""
    with transaction(database_url) as cursor:
        cursor.execute(
            "SELECT type, amount, reason FROM guerdon.identified_reward_event WHERE member_id = %s ORDER BY pos",
            (member_id,),
        )
        return cursor.fetchall()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_redemptions_of_the_same_members_at_four_workers_never_spend_more_than_there_is(
    database_url: str, batch_size: int
) -> None:
    """100 points each, 40 mugs of 30 points asked for: three are had, whoever asks and in whatever company."""
    activate(database_url, PROGRAMME)
    members = [f"member-{n}" for n in range(3)]
    commit(database_url, Batch([admitted(purchase(n, name, amount=10_000)) for n, name in enumerate(members)]))
    asked = [admitted(redeemed(n, members[n % 3])) for n in range(120)]
    batches = [Batch(asked[first : first + batch_size]) for first in range(0, len(asked), batch_size)]
    at_once(database_url, [batches[n::4] for n in range(4)])
    assert_sound(database_url)
    for name in members:
        kinds = Counter((kind, reason) for kind, _, reason in told(database_url, name))
        assert kinds["gift.awarded", "redeemed"] == 3
        assert kinds["reward.refused", "insufficient"] == 37


def test_a_load_scattered_over_three_workers_without_regard_to_members_leaves_what_the_oracle_says(
    database_url: str,
) -> None:
    """As a random partitioner delivers: each worker's batches hold events of every member, some of them twice."""
    activate(database_url, PROGRAMME_OF_LEDGER)
    load = Load(members=12, bad=False, ledger=True).fill(400)
    scatter = random.Random(5)  # noqa: S311  a test must repeat
    lanes: list[list[Any]] = [[], [], []]
    for message in load.messages:
        if message.event is not None:
            lanes[scatter.randrange(3)].append(admitted(message.event))
    sizes = (1, 7, 40)
    passed = at_once(
        database_url,
        [
            [Batch(lane[first : first + size]) for first in range(0, len(lane), size)]
            for lane, size in zip(lanes, sizes, strict=True)
        ],
    )
    counts = Counter(passed)
    assert counts["after commit"] == sum(-(-len(lane) // size) for lane, size in zip(lanes, sizes, strict=True))
    assert_sound(database_url)


def test_stock_that_two_workers_take_and_give_back_crosswise_is_counted_once(database_url: str) -> None:
    """One takes A and gives B back, the other takes B and gives A back: the rows are wanted in opposite orders."""
    two = PROGRAMME.replace(
        "catalogue: [", "catalogue: [{id: cap, points: 30, kind: gift, stock: 1000}, "
    )  # fmt: skip
    activate(database_url, two)
    members = ("member-a", "member-b")
    commit(database_url, Batch([admitted(purchase(n, name, amount=90_000)) for n, name in enumerate(members)]))
    workers = []
    for name, (takes, gives) in zip(members, (("mug", "cap"), ("cap", "mug")), strict=True):
        first = [redeemed(n, name, reward=gives, redemption_id=f"{name}-{n}") for n in range(10)]
        commit(database_url, Batch([admitted(each) for each in first]))
        workers.append(
            [
                Batch(
                    [
                        admitted(redeemed(100 + n, name, reward=takes, at_ms=2 * HOUR_MS)),
                        admitted(
                            redeemed(200 + n, name, "restore", 2 * HOUR_MS, reward=None, redemption_id=f"{name}-{n}")
                        ),
                    ]
                )
                for n in range(10)
            ]
        )
    at_once(database_url, workers)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT reward, used FROM guerdon.stock ORDER BY reward")
        assert cursor.fetchall() == [("cap", 10), ("mug", 10)]
    assert_sound(database_url)


def test_erasure_while_redemptions_are_under_way_leaves_nothing_open(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    commit(database_url, Batch([admitted(purchase(1, amount=50_000))]))
    commit(database_url, Batch([admitted(redeemed(1, action="reserve"))]))
    gone = Erasure(member_id="m1", event_id="gone", occurred_at=START_MS + 2 * HOUR_MS)
    asked = [Batch([admitted(redeemed(n))]) for n in range(2, 12)]
    at_once(database_url, [asked[:5], [Batch([admitted(gone)])], asked[5:]])
    assert_sound(database_url)
    with transaction(database_url) as cursor:
        found = one(cursor, "SELECT active, pending, reserved FROM reward.member_balance WHERE unit = 'points'")
        (used,) = one(cursor, "SELECT used FROM guerdon.stock WHERE reward = 'mug'")
    assert tuple(map(int, found)) == (0, 0, 0)
    awarded = sum(kind == "gift.awarded" for kind, _, _ in told(database_url))
    assert used == awarded, "what was reserved and never handed out is in stock again"


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_a_refund_in_the_batch_of_its_purchase_finds_it_before_and_after(database_url: str, batch_size: int) -> None:
    activate(database_url, PROGRAMME)
    events: list[Event] = [
        returned(1, 1, 0, amount=400),  # before its purchase: it waits
        purchase(1, occurred_at=START_MS + 1),
        returned(2, 1, 2, amount=100),
        purchase(2, occurred_at=START_MS + 3),
        returned(3, 2, 4),
        returned(3, 2, 4, event_id="again"),
    ]
    taken = [admitted(event) for event in events]
    for first in range(0, len(taken), batch_size):
        commit(database_url, Batch(taken[first : first + batch_size]))
    assert told(database_url) == [
        ("reward.refused", 400, "refund_unmatched"),
        ("points.granted", 10, None),
        ("points.reversed", 4, "refund"),
        ("points.reversed", 1, "refund"),
        ("points.granted", 10, None),
        ("points.reversed", 10, "refund"),
        ("reward.refused", 0, "already_refunded"),
    ]
    assert_sound(database_url)


def test_a_reservation_is_captured_by_the_version_after_the_one_that_took_it(database_url: str) -> None:
    """The catalogue changes in between: what was reserved is handed out, and what is voided is in stock again."""
    activate(database_url, PROGRAMME)
    commit(database_url, Batch([admitted(purchase(1, amount=50_000))]))
    commit(database_url, Batch([admitted(redeemed(n, action="reserve")) for n in (1, 2)]))
    activate(database_url, PROGRAMME.replace("points: 30, kind: gift, stock: 1000", "points: 99, kind: gift, stock: 1"))
    for number, (action, which) in enumerate((("capture", "x1"), ("void", "x2")), 10):
        done = redeemed(number, action=action, at_ms=2 * HOUR_MS, redemption_id=which, reward=None)
        commit(database_url, Batch([admitted(done)]))
    commit(database_url, Batch([admitted(redeemed(20, at_ms=3 * HOUR_MS))]))
    assert told(database_url)[3:] == [
        ("points.captured", 30, None),
        ("gift.awarded", 1, "redeemed"),
        ("points.voided", 30, None),
        ("reward.refused", 0, "out_of_stock"),
    ]
    assert_sound(database_url)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the engine fail on purchases of order o1 from now on, and return what mends it."""

    def fails(event: Any) -> bool:
        return isinstance(event, Purchase) and event.order_id == "o1"

    for module in (load, release):
        monkeypatch.setattr(module, "load_judge", lambda cursor, version: Refusing(load_judge(cursor, version), fails))
    return monkeypatch.undo


def test_what_waited_for_a_held_member_is_refunded_spent_and_restored_in_its_order(
    database_url: str, failing: Callable[[], None]
) -> None:
    """The purchase cannot be judged; refunds and redemptions that came after it wait, and find it when it is."""
    activate(database_url, PROGRAMME)
    commit(database_url, Batch([admitted(returned(7, 1, 0, amount=5_000))]))
    commit(database_url, Batch([admitted(purchase(1, amount=30_000))]))
    waiting: list[Event] = [
        redeemed(1, redemption_id="a"),
        returned(8, 1, 2 * HOUR_MS, amount=22_000),
        redeemed(2, action="restore", at_ms=3 * HOUR_MS, redemption_id="a", reward=None),
        purchase(2, occurred_at=START_MS + 4 * HOUR_MS),
    ]
    commit(database_url, Batch([admitted(event) for event in waiting]))
    assert [kind for kind, _, _ in told(database_url)] == ["reward.refused"]
    failing()
    with transaction(database_url) as cursor:
        assert release_member(cursor, shard_of("m1"), "m1") == 9
    found = told(database_url)[1:]
    assert found == [
        ("points.granted", 300, None),
        ("points.reversed", 50, "refund"),
        ("points.reserved", 30, None),
        ("points.captured", 30, None),
        ("gift.awarded", 1, "redeemed"),
        ("points.reversed", 220, "refund"),
        ("points.restored", 30, None),
        ("gift.revoked", 1, "restored"),
        ("points.granted", 10, None),
    ]
    assert_sound(database_url)
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT used FROM guerdon.stock WHERE reward = 'mug'") == (0,)
