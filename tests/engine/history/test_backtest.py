"""A back-test says in memory what a replay of the same file would have said, and writes nothing."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

import engine.history.log_fold
from engine.programme.compile.module import compile_programme
from engine.store.database import transaction
from engine.store.programmes import load_judge
from operations.replay import backtest
from operations.replay.backtest import Question, backtested
from operations.replay.difference import compared
from operations.replay.run import Request, replay
from schemas.errors import AnswerIsNo, InputError
from schemas.scalars import iso_from_instant
from tests.cli.test_command_line import guerdon
from tests.engine.books import Refusing
from tests.strategies.replays import HOUR_MS, OTHER, events, everything, work
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.postgres

SINCE_MS = START_MS + 5 * HOUR_MS
SHARED = re.compile(r", limits: \[\{\w+: \d+, per: campaign[^]]*\]|, stock: \d+")
ALONE = SHARED.sub("", OTHER)
"""The same with nothing that members share, so that each shard is folded by itself."""
FIGURES = ("units", "rules", "campaigns", "tiers", "tier_changes", "distribution", "liability")


@pytest.fixture
def history(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    everything(database_url, monkeypatch)
    return database_url


def asked(url: str, file: Path, since_ms: int | None = None, cores: int = 1) -> tuple[dict[str, Any], list[Any]]:
    with backtested(url, Question(file, since_ms, cores)) as found:
        return found.document(), list(found.members())


def replayed(url: str, file: Path, since_ms: int | None = None) -> tuple[dict[str, Any], list[Any]]:
    generation = replay(url, Request(file, since_ms))["generation"]
    with compared(url, generation) as found:
        return found.document(), list(found.members())


def everything_stored(url: str) -> Iterator[tuple[str, int]]:
    with transaction(url) as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'guerdon' ORDER BY 1")
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT count(*) FROM guerdon.{table}")
            yield table, cursor.fetchone()[0]  # type: ignore[index]  # a count is always there


@pytest.mark.parametrize("body", [OTHER, ALONE], ids=["members share budgets and stock", "nothing is shared"])
@pytest.mark.parametrize("since_ms", [None, SINCE_MS], ids=["all of history", "since an instant"])
def test_it_says_what_a_replay_of_the_file_says(
    history: str, tmp_path: Path, body: str, since_ms: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ("per: campaign" in body, "stock" in body) == ((body == OTHER),) * 2
    monkeypatch.setattr(backtest, "ALONE_EVENTS", 0)
    file = tmp_path / "next.yaml"
    file.write_text(body, "utf-8")
    before = dict(everything_stored(history))
    document, members = asked(history, file, since_ms, cores=2)
    assert dict(everything_stored(history)) == before
    expected, expected_members = replayed(history, file, since_ms)
    assert {name: document[name] for name in FIGURES} == {name: expected[name] for name in FIGURES}
    assert members == expected_members
    assert {row["change"] > 0 for row in members if row["change"]} == {True, False}
    assert document["members"]["affected"] == len({row["member_id"] for row in members if _is_affected(row)})
    assert document["members_held"] == []


def _is_affected(row: dict[str, Any]) -> bool:
    return bool(row["change"]) or row["tier_before"] != row["tier_after"]


def fails_on_member_9(event: Any) -> bool:
    return bool(event.member_id == "member-9")


def test_the_programme_that_judged_all_the_time_makes_no_difference(database_url: str, tmp_path: Path) -> None:
    activate(database_url, ALONE)
    work(database_url, events(200))
    file = tmp_path / "same.yaml"
    file.write_text(ALONE, "utf-8")
    document, members = asked(database_url, file)
    assert (document["members"]["affected"], members) == (0, [])
    assert document["members"]["awarded_before"] == document["members"]["awarded_after"] > 0
    assert all(row["change"] == 0 and row["given_before"] == row["given_after"] for row in document["rules"])


def test_what_was_given_since_is_counted_by_rule_with_its_members(history: str, tmp_path: Path) -> None:
    """Against the reward log of a replay, counted one by one."""
    file = tmp_path / "next.yaml"
    file.write_text(OTHER, "utf-8")
    document, _ = asked(history, file, SINCE_MS)
    replay(history, Request(file, SINCE_MS))
    with transaction(history) as cursor:
        cursor.execute(
            """
            SELECT generation, rule_id, unit, amount, member_id FROM guerdon.reward_event
            WHERE occurred_at >= %s AND type <> 'reward.refused' AND reason IS DISTINCT FROM 'honoured'
              AND (debit = 'issued'
                   OR type::text IN ('coupon.issued', 'badge.awarded', 'gift.awarded', 'benefit.granted'))
            """,
            (iso_from_instant(SINCE_MS),),
        )
        found = cursor.fetchall()
    assert found
    for row in document["rules"]:
        for side, generation in (("before", 1), ("after", 2)):
            mine = [each for each in found if each[:3] == (generation, row["rule_id"], row["unit"])]
            told = [row[f"{name}_{side}"] for name in ("awards", "given", "members")]
            assert told == [len(mine), sum(each[3] for each in mine), len({each[4] for each in mine})]
    assert sum(row["awards_before"] + row["awards_after"] for row in document["rules"]) == len(found)


def test_a_member_whom_only_the_file_cannot_judge_is_named_and_the_others_are_judged(
    history: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "next.yaml"
    file.write_text(OTHER, "utf-8")
    monkeypatch.setattr(
        backtest,
        "compile_programme",
        lambda programme, version: Refusing(
            compile_programme(programme, version), lambda event: event.member_id == "member-9"
        ),
    )
    document, _ = asked(history, file)
    assert document["members_held"] == ["member-9"]
    monkeypatch.undo()
    with monkeypatch.context() as defect:
        defect.setattr(
            engine.history.log_fold,
            "load_judge",
            lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_member_9),
        )
        expected, _ = replayed(history, file)
    assert document["units"] == expected["units"]


def test_a_file_that_cannot_judge_this_history_is_refused_in_a_sentence(history: str, tmp_path: Path) -> None:
    file = tmp_path / "next.yaml"
    file.write_text(OTHER.replace("currency: USD", "currency: EUR"), "utf-8")
    with pytest.raises(AnswerIsNo, match="the log counts in USD and the file in EUR"):
        asked(history, file)
    file.write_text(OTHER.replace("rules:", "rulez:", 1), "utf-8")
    with pytest.raises(InputError, match="rulez"):
        asked(history, file)


@pytest.mark.parametrize("cores", [1, 2])
def test_who_interrupts_it_has_the_prompt_back_and_it_can_be_asked_again(
    history: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(backtest, "ALONE_EVENTS", 0)
    file = tmp_path / "next.yaml"
    file.write_text(ALONE, "utf-8")

    def interrupt(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), backtested(history, Question(file, None, cores), interrupt):
        raise AssertionError("it went on")
    document, _ = asked(history, file)
    assert document["members_held"] == []


def test_the_command_tells_people_and_machines(history: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", history)
    file, listed = tmp_path / "next.yaml", tmp_path / "members.csv"
    file.write_text(OTHER, "utf-8")
    since = iso_from_instant(SINCE_MS)
    told = guerdon("backtest", str(file), "--since", since, "--json", "--members", "--csv", str(listed))
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert (document["since"], document["base"], document["programme"]) == (since, 1, str(file))
    with listed.open(encoding="utf-8", newline="") as lines:
        assert [row["member_id"] for row in csv.DictReader(lines)] == [
            row["member_id"] for row in document["members_affected"]
        ]
    told = guerdon("backtest", str(file), "--since", since, "--members")
    assert told.returncode == 0, told.stderr
    assert f"judged by {file} from {since} on" in told.stdout
    assert "given before" in told.stdout
    told = guerdon("backtest", str(file), "--since", "yesterday")
    assert told.returncode == 2
    assert "--since" in told.stderr
