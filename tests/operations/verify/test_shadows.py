"""A shadow's log is proved by itself, and what is wrong with it is not laid to the live generation."""

from __future__ import annotations

import pytest

from operations.replay.generations import promote
from operations.verify.checks import CHECKS, verify
from tests.operations.verify.conftest import take
from tests.operations.verify.test_positions import answer
from tests.operations.verify.test_verify import SHARD, tamper
from tests.strategies.replays import repeated

pytestmark = pytest.mark.postgres


def of(database_url: str, generation: int) -> list[str]:
    return [finding["problem"] for finding in verify(database_url, generation) if finding["problem"]]


def test_a_shadow_is_sound_by_itself_while_it_is_behind_and_after_it_took_the_live_ones_place(whole: str) -> None:
    repeated(whole)
    take(whole, range(10, 15), 10)  # the live one goes on, and the shadow has not seen it
    assert (of(whole, 1), of(whole, 2)) == ([], [])
    promote(whole, 2)
    take(whole, range(15, 20), 15)
    assert (of(whole, 1), of(whole, 2)) == ([], [])
    promote(whole, 1)
    assert (of(whole, 1), of(whole, 2)) == ([], [])


SHADOW = {
    "a row of its log": (
        "UPDATE guerdon.reward_event_g2 SET amount = amount + 1 WHERE pos = 4",
        f"reward log, shard {SHARD}, pos 4: the row is not what was written",
    ),
    "the last row of its log deleted": (
        "DELETE FROM guerdon.reward_event_g2 WHERE pos = 10",
        f"reward log, shard {SHARD}: pos 10 is missing",
    ),
    "a balance of its own": (
        "UPDATE guerdon.member_balance SET active = active + 1 WHERE build > 5",
        "member m1, points: the balance equations do not hold",
    ),
    "a fact of its own": (
        "INSERT INTO guerdon.generation_fact VALUES (2, %s, 12, 0, 'budget', '{}')",
        f"generation 2, shard {SHARD}, seq 12: there is a fact (budget), and judged is up to seq 11",
    ),
}


@pytest.mark.parametrize("what", SHADOW)
def test_what_is_wrong_with_a_shadow_is_named_and_not_laid_to_the_live_generation(
    what: str, whole: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statement, wanted = SHADOW[what]
    repeated(whole)
    take(whole, range(10, 15), 10)
    assert tamper(whole, statement, *[SHARD] * statement.count("%s")) == 1
    assert of(whole, 1) == []
    code, output = answer(whole, monkeypatch, capsys, "2")
    assert (code, output) == (1, f"guerdon: {wanted}; stop the workers and compare with a backup")
    code, output = answer(whole, monkeypatch, capsys, "1")
    assert code is None
    assert f"{len(CHECKS)}/{len(CHECKS)}" in output
