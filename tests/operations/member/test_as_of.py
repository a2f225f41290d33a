"""`guerdon member --as-of --known-at` tells what was, what was known, and what will be, to people and as JSON."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.member.member import _tier_as_of
from engine.live.batch import Batch
from operations.replay.generations import discard, promote
from operations.replay.run import Request, replay
from projections.runner import finish
from schemas.errors import AnswerIsNo, InputError
from schemas.scalars import iso_from_instant
from tests.engine.store.test_ledgers import DAY_MS
from tests.operations.member.test_member import PROGRAMME
from tests.projections.test_as_of import instant_after
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.postgres


@pytest.fixture
def guerdon(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what runs a command as an operator does, on a database in which ann has bought on two days."""
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    activate(database_url, PROGRAMME)
    for n in range(2):
        bought = purchase(n, "ann", amount=4_000, occurred_at=START_MS + n * DAY_MS)
        commit(database_url, Batch([admitted(bought)]))
    finish(database_url, threading.Event())

    def run(*words: object) -> Any:
        done = CliRunner().invoke(app, [*map(str, words)])
        if isinstance(done.exception, Exception):
            raise done.exception
        return done.stdout

    return run


def day(number: float) -> str:
    return iso_from_instant(START_MS + int(number * DAY_MS))


def test_the_past_and_the_future_are_shown(guerdon: Callable[..., Any]) -> None:
    then = guerdon("member", "ann", "--as-of", day(0.5))
    assert f"ann as of {day(0.5)}, as known at 20" in then
    assert "by generation 1" in then
    assert f"tier silver since {day(0)}; qualifying 150, 850 to gold" in then
    assert f"warning: 40 points expire at {day(20)}" in then
    later = json.loads(guerdon("member", "ann", "--as-of", day(20.5), "--json"))
    assert {row["unit"]: (row["active"], row["expired"]) for row in later["balances"]} == {
        "points": (40, 40), "status": (300, 0),
    }  # fmt: skip
    assert (later["tier"]["tier"], later["tier"]["qualifying"]) == ("silver", 300)
    assert later["expiring"] == [{"unit": "points", "at": day(21), "amount": 40, "lapsed": False}]
    assert later["as_of"] == day(20.5)


def test_known_at_alone_is_what_was_told_then(guerdon: Callable[..., Any], database_url: str) -> None:
    known_at = instant_after(database_url).isoformat()
    commit(database_url, Batch([admitted(purchase(2, "ann", amount=9_000, occurred_at=START_MS + 2 * DAY_MS))]))
    answer = json.loads(guerdon("member", "ann", "--known-at", known_at, "--json"))
    assert answer["as_of"] == answer["known_at"]
    assert {row["unit"]: row["granted"] for row in answer["balances"]} == {"points": 80, "status": 300}
    answer = json.loads(guerdon("member", "ann", "--as-of", day(3), "--json"))
    assert {row["unit"]: row["granted"] for row in answer["balances"]} == {"points": 170, "status": 450}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--as-of", "yesterday"), "--as-of"),
        (("--as-of", "2026-01-01T00:00:00"), "--as-of"),
        (("--known-at", "2026-13-01T00:00:00Z"), "--known-at"),
    ],
)
def test_a_time_that_is_none_is_named(guerdon: Callable[..., Any], words: tuple[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        guerdon("member", "ann", *words)


def test_of_whom_nothing_was_known_is_said(guerdon: Callable[..., Any]) -> None:
    for words in (
        ("ann", "--as-of", day(-1)),
        ("ann", "--known-at", "2001-01-01T00:00:00Z"),
        ("bob", "--as-of", day(1)),
    ):
        with pytest.raises(AnswerIsNo, match=f'of a member "{words[0]}" nothing that counts by'):
            guerdon("member", *words)


def test_a_generation_that_is_gone_is_named_with_what_to_do(guerdon: Callable[..., Any], database_url: str) -> None:
    number = replay(database_url, Request())["generation"]
    promote(database_url, number)
    known_at = instant_after(database_url).isoformat()
    promote(database_url, 1)
    discard(database_url, number)
    with pytest.raises(AnswerIsNo, match=f"generation {number}, which was discarded; Ask as known at .* `guerdon gen"):
        guerdon("member", "ann", "--known-at", known_at)


def test_a_tier_that_cannot_be_told_is_not_made_up() -> None:
    unknown = dict.fromkeys(("tier", "since", "until", "qualifying", "next_tier", "to_next_tier"))
    assert _tier_as_of(unknown).startswith("the tier cannot be told")
    known = unknown | {"tier": "silver", "since": "2026-01-01T00:00:00Z", "next_tier": "gold"}
    assert _tier_as_of(known) == (
        "tier silver since 2026-01-01T00:00:00Z; by which number cannot be told (docs/as-of.md)"
    )
