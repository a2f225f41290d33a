"""Versions of an earlier release write no entry into a cohort: what they have judged is repeated byte for byte."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from engine.store.database import as_owner
from operations.replay.backtest import Question, backtested
from operations.replay.difference import compared
from operations.replay.run import Request, replay
from operations.simulate.from_log import simulate_log
from operations.verify.checks import verify
from operations.why.event import OTHERWISE, why_reward
from tests.strategies.replays import ERASED, WITH_EVERYTHING, differing, events, repeated, rows, work
from tests.system.load import activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

COHORTS = """\
- {id: trial, on: purchase, campaign: spring, cohort: {salt: one, treat: 50%}, give: [{points: 4}]}
- {id: same, on: share, cohort: {salt: one, treat: 50%}, limits: [{times: 1, per: member}], give: [{points: 3}]}
- {id: rare, on: purchase, when: {purchase.amount: {gte: 20.00}}, cohort: {salt: two, treat: 20%},
   challenge: {count: 2}, give: [{coupon: rare}]}
points: {validity: 12h}"""
PROGRAMME = WITH_EVERYTHING.replace("points: {validity: 12h}", COHORTS)
LATER = PROGRAMME.replace("{points: 50}", "{points: 60}")
SALTS = {"trial": "one", "same": "one", "rare": "two"}
TYPE, MEMBER, ITEM, RULE_ID, VERSION, KEY = 3, 4, 10, 11, 12, 21


def of_an_earlier_release(database_url: str) -> None:
    with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE guerdon.programme_version SET enters_cohorts = false")


@pytest.fixture
def upgraded(database_url: str) -> str:
    """Fill a database with a version of an earlier release, and then with one of this release."""
    lines = events(500)
    activate(database_url, PROGRAMME)
    of_an_earlier_release(database_url)
    work(database_url, lines[:250])
    activate(database_url, LATER)
    work(database_url, lines[250:], seed=9)
    return database_url


def entries(database_url: str, generation: int = 1) -> list[tuple[Any, ...]]:
    return [row for row in rows(database_url, generation) if row[TYPE] == "cohort.entered"]


def test_entries_begin_with_the_activation_and_are_repeated(upgraded: str) -> None:
    found = entries(upgraded)
    assert {row[VERSION] for row in found} == {2}
    assert set(Counter((row[MEMBER], SALTS[row[RULE_ID]]) for row in found).values()) == {1}
    assert {(SALTS[row[RULE_ID]], row[ITEM]) for row in found} == {
        ("one", "treated"), ("one", "control"), ("two", "treated"), ("two", "control"),
    }  # fmt: skip

    number = repeated(upgraded)["generation"]
    assert differing(upgraded, number) == 0
    assert rows(upgraded, number) == rows(upgraded, 1)
    assert [finding for finding in verify(upgraded) if finding["problem"]] == []


def test_an_entry_is_explained(upgraded: str) -> None:
    row = entries(upgraded)[0]
    document = why_reward(upgraded, row[KEY])
    sentence = f"the member entered the cohort of rule {row[RULE_ID]}, "
    (move,) = [each for each in document["moved"] if each["reward_key"] == row[KEY]]
    assert move["sentence"].startswith(sentence)
    assert OTHERWISE not in document["notes"]


def test_a_new_file_finds_who_would_have_entered_before_and_nobody_gains_or_loses_by_it(
    upgraded: str, tmp_path: Path
) -> None:
    # a file that is stored by an earlier release only, and one that differs from it by a setting of reports
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    before.write_text(PROGRAMME, encoding="utf-8")
    after.write_text(PROGRAMME + "margin: 25%\n", encoding="utf-8")
    silent, speaking = (replay(upgraded, Request(path))["generation"] for path in (before, after))

    # rows of erased members are copied, whatever judges
    assert {row[MEMBER] for row in entries(upgraded, silent)} <= set(ERASED)
    entered = {(row[MEMBER], SALTS[row[RULE_ID]]) for row in entries(upgraded, speaking)}
    assert len(entered) > len(entries(upgraded))

    with compared(upgraded, speaking, silent) as found:
        document, members = found.document(), list(found.members())
    assert document["reward_events"]["only_after"] > 0
    assert document["reward_events"]["only_before"] == document["reward_events"]["differ"] == 0
    assert "cohort" not in {unit["unit"] for unit in document["units"]}
    assert members == []
    with backtested(upgraded, Question(after)) as asked, compared(upgraded, speaking) as stored:
        assert asked.figures() == stored.figures()


def test_simulated_from_the_log_a_file_judges_as_its_stored_version_did(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "programme.yaml"
    path.write_text(PROGRAMME, encoding="utf-8")
    activate(database_url, PROGRAMME)
    of_an_earlier_release(database_url)
    work(database_url, events(200))
    kinds = [row["type"] for row in simulate_log(database_url, path).document()["reward_events"]]
    assert sorted(kinds) == sorted(row[TYPE] for row in rows(database_url, 1))
