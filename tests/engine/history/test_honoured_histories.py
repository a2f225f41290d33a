"""What was redeemed stays redeemed in random histories, whichever generation judges, follows, repeats or is live."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.store.database import transaction
from operations.replay.backtest import Question, backtested
from operations.replay.difference import compared
from operations.replay.generations import promote
from operations.simulate.from_log import simulate_log
from schemas.events import Purchase, Redemption, Refund
from tests.engine.history.test_honoured import OLD, assert_sound, judged, moved
from tests.strategies.replays import HOUR_MS, repeated, rows
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.events import Event

pytestmark = pytest.mark.postgres

BODY = OLD.replace("validity: 30d", "validity: 20h").replace(
    "catalogue:", "refunds: {negative: unlimited}\ncatalogue:"
) + ("- {id: cash, on: purchase, give: [{cash: {rate: 10%, of: purchase.amount}}]}\n")
OTHERS = (
    BODY.replace("rate: 10, per", "rate: 3, per").replace("rate: 10%", "rate: 2%"),
    BODY.replace("rate: 10, per", "rate: 25, per").replace("points: 80", "points: 30"),
    BODY.replace("rate: 10, per", "rate: 4, per").replace("validity: 20h", "validity: 7h"),
)
"""Less of both units, more of one with a cheaper mug, and points that lapse sooner."""


def history(chance: random.Random, count: int, hour: int) -> list[Event | int]:
    """Return purchases, redemptions and refunds from an hour on, some late, with the times (ms) of ticks among them."""
    found: list[Event | int] = []
    bought: list[Purchase] = []
    now_ms = START_MS + hour * HOUR_MS
    for number in range(count):
        now_ms += chance.randrange(3 * HOUR_MS)
        at_ms = now_ms - chance.choice((0, 0, 0, 0, chance.randrange(4 * HOUR_MS)))
        member_id, name, kind = chance.choice(("m1", "m2")), f"{hour}-{number}", chance.random()
        order_id = f"o{hour}-{member_id}-{number % 7}"
        if kind < 0.3:
            amount = chance.randrange(100, 1_500)
            bought.append(
                purchase(0, member_id, event_id=f"p{name}", order_id=order_id, amount=amount, occurred_at=at_ms)
            )
            found.append(bought[-1])
        elif kind < 0.7:
            found.append(_redemption(chance, f"x{name}", (member_id, hour), order_id, at_ms))
        elif kind < 0.9 and bought:
            of = chance.choice(bought)
            found.append(
                Refund(
                    event_id=f"f{name}", member_id=of.member_id, occurred_at=at_ms, order_id=of.order_id,
                    refund_id=f"f{name}", amount=chance.choice((None, 50, 200)),
                )
            )  # fmt: skip
        else:
            found.append(now_ms)
    return found


def _redemption(chance: random.Random, event_id: str, whose: tuple[str, int], order_id: str, at_ms: int) -> Redemption:
    action: Any = chance.choice(("reserve", "spend", "capture", "capture", "void", "restore"))
    asked: dict[str, Any] = chance.choice(
        (
            {"reward": "mug"},
            {"reward": "pay", "order_id": order_id, "order_amount": 1_000},
            {"amount": chance.randrange(1, 40)},
            {"amount": chance.randrange(1, 60), "unit": "USD"},
        )
    )
    if action not in ("reserve", "spend"):
        asked = chance.choice(({}, {"amount": chance.randrange(1, 40)}))
    return Redemption(
        event_id=event_id, member_id=whose[0], occurred_at=at_ms, action=action,
        redemption_id=f"{whose[0]}-{whose[1]}-{chance.randrange(5)}", **asked,
    )  # fmt: skip


def take(database_url: str, found: list[Event | int]) -> None:
    for each in found:
        if isinstance(each, int):
            commit(database_url, Batch(clock=ClockMove(each, everywhere=True, hourly=False)))
        else:
            commit(database_url, Batch([admitted(each)]))


def redeemed(database_url: str, generation: int) -> list[Any]:
    """Return how much each event has reserved in a generation, and what it has handed out."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT event_id, type::text, sum(amount)::bigint FROM guerdon.reward_event
            WHERE generation = %s AND type IN ('points.reserved', 'cash.reserved', 'gift.awarded')
            GROUP BY 1, 2 ORDER BY 1, 2
            """,
            (generation,),
        )
        return cursor.fetchall()


@pytest.mark.parametrize("seed", [3, 4])
def test_what_was_redeemed_stays_redeemed_and_every_fold_says_the_same(
    database_url: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  a test must repeat
    activate(database_url, BODY)
    take(database_url, history(chance, 40, 0))
    shadows = [judged(database_url, tmp_path, body) for body in OTHERS]
    for number, body in zip(shadows, OTHERS, strict=True):
        assert_sound(database_url, number)
        assert redeemed(database_url, number) == redeemed(database_url, 1) != []
        file = tmp_path / "next.yaml"
        file.write_text(body, "utf-8")
        with backtested(database_url, Question(file)) as tested, compared(database_url, number) as difference:
            told, expected = tested.document(), difference.document()
        assert (told["units"], told["rules"]) == (expected["units"], expected["rules"])
        simulated = simulate_log(database_url, file).document()["reward_events"]
        assert sorted((row["shard"], row["pos"], row["reward_key"]) for row in simulated) == [
            (*row[:2], row[-2]) for row in rows(database_url, number)
        ]
    assert any(reason == "honoured" for number in shadows for _, _, reason in moved(database_url, number))
    chosen = chance.choice(shadows)
    for hour, number in ((100, chosen), (180, 1), (230, chosen)):
        promote(database_url, number)
        take(database_url, history(chance, 20, hour))
        assert repeated(database_url)["shards_that_differ"] == 0
        assert_sound(database_url, number)
    assert redeemed(database_url, judged(database_url, tmp_path, OTHERS[0])) == redeemed(database_url, chosen)
    promote(database_url, 1)
    assert redeemed(database_url, 1) == redeemed(database_url, chosen)
