"""`simulate --from-log` judges what is recorded, and says what the views say."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import operations.simulate.from_log
from engine.programme.compile.module import compile_programme
from engine.store.database import transaction
from operations.replay.run import Request, replay
from operations.rows import dictionaries
from operations.simulate.from_log import simulate_log
from projections.runner import finish
from schemas.errors import AnswerIsNo
from tests.cli.test_command_line import guerdon
from tests.engine.books import Refusing
from tests.engine.history.test_replay_members import PROGRAMME, lived
from tests.operations.why.test_ledger import told_keys
from tests.strategies.replays import OTHER, WITH_EVERYTHING, events, everything, rows, work
from tests.system.load import activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

# The views as commands read them, with true ids: analysts see erased members under pseudonyms.
VIEWS = {
    "reward_events": "reward_event",
    "balances": "member_balance",
    "tiers": "member_tier",
    "tier_history": "tier_history",
    "referrals": "referral",
    "rewards": "member_reward",
    "codes": "member_code",
}
CLOCKED = ("as_of", "next_expiry_at", "next_expiry_amount")
"""What a view tells as of the last fold of a shard, and a simulation as of its one clock."""


def file_of(folder: Path, body: str) -> Path:
    file = folder / "programme.yaml"
    file.write_text(body, "utf-8")
    return file


def viewed(database_url: str) -> dict[str, set[str]]:
    finish(database_url, threading.Event())
    with transaction(database_url) as cursor:
        return {
            name: comparable(dictionaries(cursor, f"SELECT * FROM guerdon.identified_{view}"))
            for name, view in VIEWS.items()
        }


def comparable(found: list[dict[str, Any]]) -> set[str]:
    """Return rows as text; a view keeps no order, and no two rows are the same."""
    told = [json.dumps({k: v for k, v in sorted(row.items()) if k not in CLOCKED}) for row in found]
    assert len(set(told)) == len(told)
    return set(told)


@pytest.mark.parametrize("history", ["referrals and contests", "everything else"])
def test_the_programme_that_judged_the_log_says_what_the_views_say(
    history: str, database_url: str, tmp_path: Path
) -> None:
    if history == "everything else":
        body = WITH_EVERYTHING
        activate(database_url, body)
        work(database_url, events(600))
    else:
        body = PROGRAMME
        lived(database_url)
    document = simulate_log(database_url, file_of(tmp_path, body)).document()
    seen = viewed(database_url)
    for name in VIEWS:
        assert comparable(document[name]) == seen[name], name
    filled = {name for name in VIEWS if document[name]}
    assert filled >= ({"referrals", "codes"} if body == PROGRAMME else {"tiers", "tier_history", "rewards"})
    assert len(document["reward_events"]) > 300


def test_another_programme_decides_as_its_replay_does(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(database_url, monkeypatch)
    file = file_of(tmp_path, OTHER)
    found = simulate_log(database_url, file).document()["reward_events"]
    generation = replay(database_url, Request(file))["generation"]
    told = [(row["shard"], row["pos"], row["seq"], row["type"], row["amount"], row["reward_key"]) for row in found]
    stored = [(*row[:4], row[6], row[-2]) for row in rows(database_url, generation)]
    assert sorted(told) == stored


def test_what_is_folded_again_for_a_member_who_cannot_be_judged_counts_once(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, WITH_EVERYTHING)
    work(database_url, events(60))
    file = file_of(tmp_path, OTHER)
    whole = simulate_log(database_url, file)

    def fails(event: Any) -> bool:
        return bool(event.member_id == "member-9")

    def failing(programme: Any, version: int) -> Any:
        return Refusing(compile_programme(programme, version), fails)

    monkeypatch.setattr(operations.simulate.from_log, "compile_programme", failing)
    found = simulate_log(database_url, file)
    assert (found.accepted, found.clock_ms) == (whole.accepted, whole.clock_ms)
    others = [each for each in whole.document()["balances"] if each["member_id"] != "member-9"]
    assert {row["member_id"] for row in found.document()["balances"]} == {row["member_id"] for row in others}
    places = [(each.shard, each.pos) for each in found.recorded]
    assert len(set(places)) == len(places)


def test_a_contest_whose_ends_the_log_does_not_know_is_refused(database_url: str, tmp_path: Path) -> None:
    lived(database_url)
    with pytest.raises(AnswerIsNo, match="the log does not say when they ended"):
        simulate_log(database_url, file_of(tmp_path, PROGRAMME.replace("period: day", "period: month")))


def test_the_command_explains_an_event_of_the_log_and_refuses_files_beside_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, WITH_EVERYTHING)
    work(database_url, events(60))
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    file = str(file_of(tmp_path, WITH_EVERYTHING))
    told = guerdon("simulate", file, "--from-log", "--json", "--why")
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    (purchase, *_) = [each for each in document["why"] if each["type"] == "purchase"]
    assert {rule["rule"] for rule in purchase["rules"]} >= {"scarce", "keen"}
    log = Counter((row["event_id"], row["reward_key"]) for row in document["reward_events"])
    assert told_keys(document) == log, "an event, a tick or a contest is not told of, or of another"
    told = guerdon("simulate", file, "--from-log", "--event", purchase["event_id"])
    assert told.returncode == 0, told.stderr
    assert "scarce" in told.stdout
    told = guerdon("simulate", file, "events.jsonl", "--from-log")
    assert (told.returncode, "leave out files and --until" in told.stderr) == (2, True)
    told = guerdon("simulate", file)
    assert (told.returncode, "--from-log" in told.stderr) == (2, True)
