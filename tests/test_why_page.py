"""The page about explanations: its example is what `simulate --why` prints, and its table names every reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from cli import simulate as simulate_command
from engine.programme.explain import REASONS
from operations.simulate import simulate
from schemas.errors import AnswerIsNo
from tests.conformance_cases import all_cases, write
from tests.test_conformance import NOT_YET

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.load_cases import Case

PAGE = (Path(__file__).parents[1] / "docs" / "programme" / "why.md").read_text(encoding="utf-8")
CASES = [case for case in all_cases() if case.id not in NOT_YET]


def block(language: str) -> str:
    """Return the page's only block of a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Return what simulates the page's example as a person does."""
    (tmp_path / "programme.yaml").write_text(block("yaml"), encoding="utf-8")
    (tmp_path / "events.jsonl").write_text(block("json"), encoding="utf-8")
    app = Typer()
    simulate_command.register(app)
    files = [str(tmp_path / "programme.yaml"), str(tmp_path / "events.jsonl")]
    return lambda *words: CliRunner().invoke(app, [*files, *words])


def test_the_example_is_what_is_printed(run: Callable[..., Result]) -> None:
    told = run("--why")
    assert told.exit_code == 0
    assert told.stdout.startswith(block("text") + "\n")
    assert "2 events accepted" in told.stdout


def test_every_reason_is_on_the_page_and_no_other() -> None:
    table = PAGE.split("| `reason` | told is |")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = [code for row in rows for code in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(REASONS)


def test_one_event_can_be_asked_for_and_then_is_all_that_is_printed(run: Callable[..., Result]) -> None:
    assert run("--event", "p-2").stdout == block("text").split("\n\n")[1]
    (only,) = json.loads(run("--event", "p-1", "--json").stdout)["why"]
    assert (only["event_id"], [rule["outcome"] for rule in only["rules"]]) == (
        "p-1", ["gave", "did_not_give", "did_not_give"],
    )  # fmt: skip
    unknown = run("--event", "p-3")
    assert isinstance(unknown.exception, AnswerIsNo)
    assert 'no event "p-3" was judged' in str(unknown.exception)


def test_without_the_flag_nothing_is_explained(run: Callable[..., Result]) -> None:
    assert "why" not in json.loads(run("--json").stdout)
    assert [event["event_id"] for event in json.loads(run("--json", "--why").stdout)["why"]] == ["p-1", "p-2"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_explaining_changes_nothing_of_what_a_case_gives(case: Case, tmp_path: Path) -> None:
    programme, events = write(case, tmp_path)
    plain = simulate(programme, [events]).document()
    explained = simulate(programme, [events], why=True).document()
    told = {
        (event["event_id"], award["reward_key"])
        for event in explained.pop("why")
        for rule in event["rules"]
        for award in (*rule["gave"], *rule["refused"])
    }
    assert explained == plain
    assert told == {
        (row["event_id"], row["reward_key"])
        for row in plain["reward_events"]
        if row["rule_id"] is not None
        and row["lot"] in (None, row["reward_key"])
        and row["type"] != "challenge.completed"
        and not row["event_id"].startswith("tick-")
    }
