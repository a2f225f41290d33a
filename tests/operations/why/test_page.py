"""The page about explanations: its example is what `simulate --why` prints, and its table names every reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner, Result

from cli import simulate as simulate_command
from cli.why import print_explanations
from engine.explain.event import REASONS
from operations.simulate.run import simulate
from schemas.errors import AnswerIsNo
from tests.conformance.cases import all_cases, write
from tests.operations.why.test_ledger import told_keys
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.programme.file.cases import Case

PAGE = (DOCS / "programme" / "why.md").read_text(encoding="utf-8")
EXAMPLES = 2
CASES = list(all_cases())


def block(language: str, example: int = 0) -> str:
    """Return the block of a language of one of the page's two examples."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == EXAMPLES
    return str(found[example])


def runs(folder: Path, example: int) -> Callable[..., Result]:
    """Return what simulates one of the page's examples as a person does."""
    (folder / "programme.yaml").write_text(block("yaml", example), encoding="utf-8")
    (folder / "events.jsonl").write_text(block("json", example), encoding="utf-8")
    app = Typer()
    simulate_command.register(app)
    files = [str(folder / "programme.yaml"), str(folder / "events.jsonl")]
    return lambda *words: CliRunner().invoke(app, [*files, *words])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Return what simulates the page's first example as a person does."""
    return runs(tmp_path, 0)


@pytest.mark.parametrize("example", range(EXAMPLES))
def test_the_example_is_what_is_printed(tmp_path: Path, example: int) -> None:
    told = runs(tmp_path, example)("--why")
    assert told.exit_code == 0
    assert told.stdout.startswith(block("text", example) + "\n")
    assert f"{len(block('json', example).splitlines())} events accepted" in told.stdout


def test_on_a_terminal_no_line_is_wider_than_it_and_a_sentence_goes_on_below_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = json.loads(runs(tmp_path, 1)("--json", "--why").stdout)["why"]
    shown = StringIO()
    monkeypatch.setattr(
        "rich.console.Console", partial(Console, file=shown, width=80, force_terminal=True, color_system=None)
    )
    print_explanations(told)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert '  redemption "r-1": spend for "pay": 600 points available; in steps of 100' in lines
    assert "    points for 1.00: at most 600 points as available, 500 points as 50% of" in lines
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(map(str, block("text", 1).split())).split())


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
def test_explaining_changes_nothing_of_what_a_case_gives_and_tells_of_all_of_it(case: Case, tmp_path: Path) -> None:
    programme, events = write(case, tmp_path)
    plain = simulate(programme, [events]).document()
    explained = simulate(programme, [events], why=True).document()
    told = told_keys(explained)
    explained.pop("why")
    assert explained == plain
    assert told == Counter((row["event_id"], row["reward_key"]) for row in plain["reward_events"])
