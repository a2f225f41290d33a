"""`guerdon referral` and what `guerdon member` says of referrals, as an operator sees them."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from cli.member import member as member_command
from cli.member import referral as referral_commands
from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from projections.runner import finish
from schemas.errors import AnswerIsNo, InputError
from tests.cli.test_command_line import guerdon
from tests.engine.ledger.test_referrals import programme
from tests.engine.live.test_referrals import order, signup, taken_in
from tests.system.batches import SCHEMAS
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.postgres
DEVICE: dict[str, Any] = {"identity": {"device": "d"}}


def settle(made: LiveTransaction, database_url: str) -> None:
    """Let both shards take in what was forwarded, and the views follow."""
    now = ClockMove(START_MS, everywhere=True, hourly=False, reached_ms=4_000_000_000_000)
    while made.commit(Batch(clock=now)).ticks:
        pass
    finish(database_url, threading.Event())


@pytest.fixture
def worker(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveTransaction]:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    monkeypatch.setenv("GUERDON_REFERRAL_LINK", "https://shop.example/r/{code}")
    activate(database_url, programme("{flag: [same_device]}"))
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as made:
        taken_in(made, signup(1, "ann", **DEVICE), signup(2, "bob", 1, referrer_id="ann", **DEVICE), order(3, "bob", 2))
        settle(made, database_url)
        yield made


def command(*words: str) -> Any:
    app = Typer()
    referral_commands.register(app)
    member_command.register(app)
    return CliRunner().invoke(app, list(words))


def listed(*options: str) -> list[tuple[str, str]]:
    rows = json.loads(command("referral", "list", "--json", *options).stdout)
    return [(row["referee_id"], row["status"]) for row in rows]


def test_a_flagged_referral_is_listed_released_and_voided(worker: LiveTransaction, database_url: str) -> None:
    assert listed("--flagged") == [("bob", "flagged")]
    assert "released the referral of bob" in command("referral", "release", "bob", "--why", "one tablet").stdout
    settle(worker, database_url)
    assert (listed("--flagged"), listed()) == ([], [("bob", "qualified")])
    again = command("referral", "release", "bob")
    assert isinstance(again.exception, AnswerIsNo)
    assert "not flagged" in str(again.exception)
    assert command("referral", "void", "bob", "--why", "one person").exit_code == 0
    settle(worker, database_url)
    assert listed() == [("bob", "voided")]
    assert isinstance(command("referral", "void", "bob", "--why", "again").exception, AnswerIsNo)


def test_a_list_that_may_not_be_whole_says_so(worker: LiveTransaction, database_url: str) -> None:
    taken_in(worker, signup(4, "cat", 3, referrer_id="ann"))
    settle(worker, database_url)
    assert [referee for referee, _ in listed("--last", "1")] == ["cat"]
    assert "raise --last to see them" in command("referral", "list", "--last", "1").stderr
    assert command("referral", "list").stderr == ""


def test_what_cannot_be_decided_is_told_with_the_way_out(worker: LiveTransaction) -> None:
    assert worker is not None
    nobody = command("referral", "void", "ann", "--why", "x").exception
    assert isinstance(nobody, AnswerIsNo)
    assert "nobody referred them" in str(nobody)
    silent = command("referral", "void", "bob").exception
    assert isinstance(silent, InputError)
    assert "--why is missing" in str(silent)


def test_member_shows_code_and_link_and_both_sides_of_a_referral(worker: LiveTransaction) -> None:
    assert worker is not None
    referrer = command("member", "ann")
    assert "https://shop.example/r/" in referrer.stdout
    assert "referred 1: 1 qualified, 0 voided" in referrer.stdout
    assert "referred by ann: flagged (same_device)" in command("member", "bob").stdout


def test_an_opening_that_brings_a_code_of_another_member_is_refused(worker: LiveTransaction, tmp_path: Path) -> None:
    assert worker is not None
    brought = {"action": "opening", "referral_code": "OLD-7"}
    for member_id, code in (("cat", 0), ("dan", 2)):
        (tmp_path / "o.jsonl").write_text(json.dumps({"member_id": member_id, **brought}), encoding="utf-8")
        result = guerdon("adjust", "--file", str(tmp_path / "o.jsonl"))
        assert result.returncode == code, result.stderr
    assert "another member's already" in result.stderr
