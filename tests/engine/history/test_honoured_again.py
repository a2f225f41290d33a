"""What became of a redemption is found again: after promotions, at releases, and in whatever repeats or explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import msgpack, structs

from engine.live.batch import Batch
from engine.live.release import release_member
from engine.member.pages import LedgerRedemption
from engine.store.database import transaction
from engine.store.programmes import load_judge
from operations.replay.generations import discard, promote
from operations.simulate.from_log import simulate_log
from operations.why.event import why_member
from schemas.partitioning import shard_of
from tests.engine.books import Refusing, fails_on_e2
from tests.engine.history.test_honoured import (
    DOUBLE,
    HALF,
    NO_MUG,
    OLD,
    assert_sound,
    balance,
    judged,
    lived,
    moved,
    redemption,
)
from tests.strategies.replays import repeated, rows
from tests.system.batches import admitted, commit, purchase
from tests.system.load import activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

DEARER = OLD.replace("rate: 10", "rate: 4").replace("{10: 1.00}", "{10: 2.00}")
"""A point pays twice as much, and a purchase gives 40 of them."""


def test_a_generation_that_honoured_is_repeated_and_simulated_as_it_is(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1), redemption(2, "spend", reward="mug"), purchase(3))
    generation = judged(database_url, tmp_path, HALF)
    promote(database_url, generation)
    again = repeated(database_url)
    assert again["shards_that_differ"] == 0
    assert rows(database_url, again["generation"]) == rows(database_url, generation)
    simulated = simulate_log(database_url, tmp_path / "next.yaml").document()["reward_events"]
    assert [(row["type"], row["amount"], row["reason"]) for row in simulated] == moved(database_url, generation)
    assert all(document["log_agrees"] for document in why_member(database_url, "m1"))
    promote(database_url, again["generation"])
    assert repeated(database_url)["shards_that_differ"] == 0


def test_what_is_decided_after_a_promotion_is_decided_anew_by_a_repetition(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repetition proves that a release judges as the one before: it takes nothing from the log that it need not."""
    lived(database_url, purchase(1), redemption(2, "reserve", amount=80), redemption(3, "void"))
    promote(database_url, judged(database_url, tmp_path, HALF))
    commit(database_url, Batch([admitted(structs.replace(redemption(4, "spend", amount=20), redemption_id="r2"))]))
    monkeypatch.setattr("engine.ledger.redemptions._price", lambda *_: (0, "insufficient"))
    assert repeated(database_url)["shards_that_differ"] == 1
    monkeypatch.undo()
    assert repeated(database_url)["shards_that_differ"] == 1


def test_the_version_that_accepted_it_is_known_after_promotions(database_url: str, tmp_path: Path) -> None:
    """The mug is in the catalogue of the first version only, whose generation is discarded before the last replay."""
    lived(database_url, purchase(1), redemption(2, "reserve", reward="mug"))
    second = judged(database_url, tmp_path, NO_MUG)
    promote(database_url, second)
    commit(database_url, Batch([admitted(redemption(3, "capture"))]))
    third = judged(database_url, tmp_path, NO_MUG.replace("rate: 5", "rate: 6"))
    promote(database_url, third)
    for number in (1, second):
        discard(database_url, number)
    fourth = judged(database_url, tmp_path, NO_MUG.replace("rate: 5", "rate: 7"))
    for number, each in ((third, 60), (fourth, 70)):
        assert ("points.granted", each, None) in moved(database_url, number)
        assert ("gift.awarded", 1, "redeemed") in moved(database_url, number)
        assert_sound(database_url, number)
    assert repeated(database_url)["shards_that_differ"] == 0


def test_back_and_forth_each_generation_honours_what_the_other_accepts(database_url: str, tmp_path: Path) -> None:
    lived(database_url, purchase(1))
    second = judged(database_url, tmp_path, DOUBLE)
    promote(database_url, second)
    spent = [redemption(4, "spend", amount=180), redemption(6, "spend", amount=15)]
    commit(database_url, Batch([admitted(spent[0])]))
    promote(database_url, 1)
    commit(database_url, Batch([admitted(purchase(5))]))
    commit(database_url, Batch([admitted(structs.replace(spent[1], redemption_id="r2"))]))
    assert balance(database_url, 1) == {"issued": -280, "spent": 195, "reversed": 80, "active": 5}
    assert repeated(database_url)["shards_that_differ"] == 0
    promote(database_url, second)
    assert balance(database_url, second) == {"issued": -400, "spent": 195, "active": 205}
    assert repeated(database_url)["shards_that_differ"] == 0
    for number in (1, second):
        assert_sound(database_url, number)


@pytest.mark.parametrize("is_activated", [True, False], ids=["by a version of since", "by the same version"])
def test_what_was_judged_at_a_release_is_found_at_its_own_place(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_activated: bool
) -> None:
    """Nobody is held by the file, so it comes to the redemption before the release at which it was accepted."""
    lived(database_url, purchase(1))
    pay = redemption(3, "reserve", reward="pay", amount=60, order_id="o9", order_amount=2_000)
    with monkeypatch.context() as defect:
        defect.setattr(
            "engine.live.load.load_judge",
            lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e2),
        )
        for event in (purchase(2), pay):
            commit(database_url, Batch([admitted(event)]))
    if is_activated:
        activate(database_url, DEARER)
    with transaction(database_url) as cursor:
        release_member(cursor, shard_of("m1"), "m1")
    assert worth(database_url, 1) == [("reserved", 60, 600)]
    poor = DEARER.replace("rate: 4", "rate: 2")
    for body in (DEARER, poor):
        generation = judged(database_url, tmp_path, body)
        assert worth(database_url, generation) == [("reserved", 60, 600)]
        assert_sound(database_url, generation)
    assert balance(database_url, generation) == {"issued": -60, "reserved": 60, "reversed": 20, "debt": -20}
    assert repeated(database_url)["shards_that_differ"] == 0
    assert all(document["log_agrees"] for document in why_member(database_url, "m1", generation=generation))


def test_who_is_held_by_both_is_told_at_the_release_what_was_decided_before(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file cannot judge the first purchase, where the live programme fails later, after it took the redemption."""
    lived(database_url, purchase(1), redemption(2, "spend", amount=60))
    with monkeypatch.context() as defect:
        defect.setattr(
            "engine.live.load.load_judge",
            lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e3),
        )
        commit(database_url, Batch([admitted(purchase(3))]))
    with transaction(database_url) as cursor:
        release_member(cursor, shard_of("m1"), "m1")
    with monkeypatch.context() as defect:
        defect.setattr("engine.history.log_fold.load_judge", _fails_once())
        generation = judged(database_url, tmp_path, HALF)
    assert ("points.adjusted", 10, "honoured") in moved(database_url, generation)
    assert ("reward.refused", 60, "insufficient") not in moved(database_url, generation)
    assert_sound(database_url, generation)


def fails_on_e3(event: Any) -> bool:
    return bool(event.event_id == "e3")


def _fails_once() -> Any:
    """Return a `load_judge` of rules that cannot judge the first purchase when they meet it first."""
    met: list[Any] = []

    def fails(event: Any) -> bool:
        if event.event_id == "e1" and not met:
            met.append(event)
            return True
        return False

    return lambda cursor, version: Refusing(load_judge(cursor, version), fails)


def worth(database_url: str, generation: int) -> list[tuple[str, int, int]]:
    """Return what is known of m1's redemptions in a generation: status, points, and the money that they are worth."""
    table = "member_ledger" if generation == 1 else f"member_ledger_g{generation}"
    with transaction(database_url) as cursor:
        cursor.execute(f"SELECT body FROM guerdon.{table} WHERE part LIKE 'redemption:%'")
        found = [msgpack.decode(bytes(body), type=LedgerRedemption) for (body,) in cursor.fetchall()]
    return [(each.status, each.amount, each.value_minor) for each in found]
