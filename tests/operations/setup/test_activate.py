"""Activating: only what this release judges, and new metrics only with a word about their past."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

import pytest
from typer import Typer
from typer.testing import CliRunner

from cli import programme as programme_commands
from engine.store.database import as_owner
from operations.replay.run import Request, replay
from operations.setup.programmes import activate
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from pathlib import Path

RULES = "rules:\n- {id: r, on: purchase, when: {history.n: {gte: 1}}, give: [{points: 1}]}\n"
HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\n"
PLAIN = HEAD + "rules:\n- {id: r, on: share, give: [{points: 1}]}\n"
SPLIT = "- {id: $id, on: share, cohort: {salt: $salt, treat: $treat}, give: [{points: 1}]}\n"
COUNTED = HEAD + "metrics: {n: {count: purchase}}\n" + RULES


def written(folder: Path, text: str) -> Path:
    path = folder / "programme.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.postgres
def test_new_metrics_ask_for_a_word_about_their_past(database_url: str, tmp_path: Path) -> None:
    assert activate(database_url, written(tmp_path, PLAIN))["version"] == 1
    with pytest.raises(InputError, match=r"history\.n .*--from-now"):
        activate(database_url, written(tmp_path, COUNTED))
    assert activate(database_url, written(tmp_path, COUNTED), from_now=True)["version"] == 2
    assert activate(database_url, written(tmp_path, COUNTED.replace("points: 1", "points: 2")))["version"] == 3
    with pytest.raises(InputError, match="--from-now"):
        activate(database_url, written(tmp_path, COUNTED.replace("count: purchase", "count: purchase, over: 7d")))


@pytest.mark.postgres
def test_a_first_version_has_no_past_to_miss(database_url: str, tmp_path: Path) -> None:
    assert activate(database_url, written(tmp_path, COUNTED))["version"] == 1


def split(treat: str, salt: str = "s", rule_id: str = "r") -> str:
    return HEAD + "rules:\n" + Template(SPLIT).substitute(id=rule_id, salt=salt, treat=treat)


@pytest.mark.postgres
def test_a_salt_keeps_its_split(database_url: str, tmp_path: Path) -> None:
    assert activate(database_url, written(tmp_path, split("50%")))["version"] == 1
    with pytest.raises(AnswerIsNo) as refused:
        activate(database_url, written(tmp_path, split("20%")))
    assert str(refused.value) == (
        'the cohort of rule r treats 20% of members, and version 1 treats 50% under the same salt "s": members would '
        "change arms; give the cohort another salt"
    )

    # the way out; a version without the salt in between does not make it free
    assert activate(database_url, written(tmp_path, split("20%", "s-2")))["version"] == 2
    with pytest.raises(AnswerIsNo, match="version 1 treats 50%"):
        activate(database_url, written(tmp_path, split("100%", rule_id="other")))
    assert activate(database_url, written(tmp_path, split("50%", rule_id="other")))["version"] == 3


@pytest.mark.postgres
def test_a_split_that_only_a_replay_had_is_free(database_url: str, tmp_path: Path) -> None:
    activate(database_url, written(tmp_path, PLAIN))
    replay(database_url, Request(written(tmp_path, split("50%"))))
    assert activate(database_url, written(tmp_path, split("20%")))["version"] == 3


@pytest.mark.postgres
def test_a_version_of_an_earlier_release_can_be_activated_again_to_record_who_enters(
    database_url: str, tmp_path: Path
) -> None:
    path = written(tmp_path, split("50%"))
    assert activate(database_url, path)["version"] == 1
    with pytest.raises(AnswerIsNo, match="very programme"):
        activate(database_url, path)
    with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE guerdon.programme_version SET enters_cohorts = false")
    assert activate(database_url, path)["version"] == 2
    with pytest.raises(AnswerIsNo, match="very programme"):
        activate(database_url, path)

    # without a cohort there is nothing to begin with
    assert activate(database_url, written(tmp_path, PLAIN))["version"] == 3
    with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE guerdon.programme_version SET enters_cohorts = false")
    with pytest.raises(AnswerIsNo, match="very programme"):
        activate(database_url, written(tmp_path, PLAIN))


def test_what_is_not_judged_is_refused_with_its_places(tmp_path: Path) -> None:
    rule = "- {id: r, on: purchase, give: [{points: 1}], limits: [{max: 1, per: campaign, every: 24h}]}\n"
    path = written(tmp_path, HEAD + "metrics: {m: {count: refund}}\nrules:\n" + rule)
    with pytest.raises(InputError) as refused:
        activate("postgresql://nobody@localhost:1/nothing", path)
    assert str(refused.value) == (
        f"{path}: this release does not judge 5:22 (a metric of refund events), "
        "7:86 (a limit per campaign that rolls); "
        "take these out and try again"
    )


def test_check_accepts_what_is_not_judged_and_says_so(tmp_path: Path) -> None:
    app = Typer()
    programme_commands.register(app)
    path = written(tmp_path, "metrics: {m: {count: refund}}\n" + PLAIN)
    result = CliRunner().invoke(app, ["programme", "check", str(path)])
    assert result.exit_code == 0
    assert ": not judged: a metric of refund events" in result.stderr
    assert "this release cannot activate it yet" in result.stdout
