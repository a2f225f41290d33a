"""Activating: only what this release judges, and new metrics only with a word about their past."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer import Typer
from typer.testing import CliRunner

from cli import programme as programme_commands
from operations.setup.programmes import activate
from schemas.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

RULES = "rules:\n- {id: r, on: purchase, when: {history.n: {gte: 1}}, give: [{points: 1}]}\n"
HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\n"
PLAIN = HEAD + "rules:\n- {id: r, on: share, give: [{points: 1}]}\n"
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
