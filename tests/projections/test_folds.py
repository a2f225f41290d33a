"""The folds in SQL, the folds in Python and the equations of the ledger agree on any valid history of movements."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine.store.cursor import one
from engine.store.database import transaction
from operations.setup import projections
from operations.verify.checks import verify
from projections import runner
from projections.balance_fold import fold_balances
from projections.item_fold import fold_items
from projections.rebuild import rebuild
from projections.runner import EVERY, finish
from projections.tier_fold import fold_tier_changes
from tests.programme_text import written
from tests.strategies.movements import Entry, histories
from tests.strategies.reward_histories import append
from tests.system.load import PROGRAMME, activate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres

LEVELS = "[{id: regular, from: 0}, {id: silver, from: 10}, {id: gold, from: 50}]"
TIERED = written(
    "${programme}tiers: {metric: status, window: lifetime, levels: $levels}\n", programme=PROGRAMME, levels=LEVELS
)
BALANCES = """
SELECT member_id, unit, granted, pending, active, reserved, spent, expired, settled, reversed, debt, available,
       guerdon.ms(next_expiry_at), next_expiry_amount
FROM reward.member_balance WHERE member_id = ANY(%s) ORDER BY member_id, unit
"""
REWARDS = """
SELECT member_id, unit, item, amount, status, guerdon.ms(granted_at), guerdon.ms(expires_at)
FROM reward.member_reward WHERE member_id = ANY(%s) AND code IS NULL
"""
TIERS = """
SELECT member_id, tier, previous, reason, guerdon.ms(occurred_at), guerdon.ms(recorded_at)
FROM reward.tier_history WHERE member_id = ANY(%s)
"""
UNEQUAL = """
SELECT * FROM reward.member_balance
WHERE member_id = ANY(%s) AND (
   granted <> pending + active + reserved + spent + expired + settled OR reversed <> settled + debt
   OR available <> active - debt OR (debt > 0 AND active <> 0)
   OR least(granted, pending, active, reserved, spent, expired, settled, reversed, debt) < 0
)
"""
_examples = itertools.count()


def views(cursor: Cursor, members: Sequence[str]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the rows of the views for `members`."""
    answers = []
    for query in (BALANCES, REWARDS, TIERS):
        cursor.execute(query, (list(members),))
        answers.append(cursor.fetchall())
    balances, rewards, tiers = answers
    return balances, sorted(rewards, key=repr), sorted(tiers, key=repr)


def folded(entries: Sequence[Entry], recorded: Sequence[int]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the same rows from the folds in memory."""
    rows = [(entry.member_id, reward) for entry in entries for reward in entry.rewards]
    balances = [(*owner, *structs.astuple(balance)) for owner, balance in sorted(fold_balances(rows).items())]
    changes = fold_tier_changes(
        (entry.member_id, reward, at_ms, "regular")
        for entry, at_ms in zip(entries, recorded, strict=True)
        for reward in entry.rewards
    )
    items = [structs.astuple(item) for item in fold_items(rows).values()]
    return balances, sorted(items, key=repr), sorted(map(tuple, changes), key=repr)


@pytest.fixture
def tiered(database_url: str) -> str:
    activate(database_url, TIERED)
    return database_url


def hold(tiered: str, data: st.DataObject) -> None:
    """Log a history in up to four transactions, and hold the views and the folds in memory to say the same of it."""
    members = tuple(f"m{next(_examples)}-{letter}" for letter in "abc")
    history = data.draw(histories(members))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=3)))
    recorded: list[int] = []
    for begin, end in itertools.pairwise((0, *cuts, len(history))):
        recorded += append(tiered, history[begin:end])
        finish(tiered, threading.Event())
    with transaction(tiered) as cursor:
        assert views(cursor, members) == folded(history, recorded)
        cursor.execute(UNEQUAL, (list(members),))
        assert cursor.fetchall() == []


@pytest.mark.parametrize(("positions_max", "examples"), [(2, 10), (50_000, 50)])
def test_the_views_the_folds_and_rebuilt_views_say_the_same_of_any_valid_history(
    positions_max: int, examples: int, tiered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POSITIONS_MAX", positions_max)
    settings(max_examples=examples, deadline=None)(given(st.just(tiered), st.data())(hold))()
    assert [finding for finding in verify(tiered) if finding["problem"]] == []
    with transaction(tiered) as cursor:
        (members,) = one(cursor, "SELECT array_agg(DISTINCT member_id) FROM reward.reward_event")
        incremental = views(cursor, members)
    assert all(incremental), "a projection that nothing was folded into proves nothing"

    for name in EVERY:
        assert projections.difference(tiered, name) is None
        rebuild(tiered, name)
        assert projections.difference(tiered, name) is None
    with transaction(tiered) as cursor:
        assert views(cursor, members) == incremental
        cursor.execute("SELECT projection, sum(lag) FROM reward.freshness GROUP BY projection ORDER BY projection")
        assert cursor.fetchall() == [(name, 0) for name in sorted(EVERY)]
