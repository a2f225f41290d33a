"""The walk through a change on the page about replay: typed as it stands, each command prints what the page shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from cli.main import app
from operations.initialise import initialise
from tests.shown_output import Command, File, is_shown, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from operations.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## A change, from question to promotion and back\n.*?(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
STEPS = list(steps(SECTION[0] if SECTION else ""))
COMMANDS = [step for step in STEPS if isinstance(step, Command)]
PATIENCE_S = 60


@pytest.fixture
def typed(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Return what types a command in a folder, lets it end well, and returns what it prints on standard output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUERDON_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("GUERDON_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("GUERDON_GROUP_ID", settings.group_id)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def type_(line: str) -> str:
        name, *words = shlex.split(line)
        assert name == "guerdon"
        if words[0] == "run":  # it takes over the signals of its process
            command = [sys.executable, "-m", "cli", *words]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, f"{line}: {done.output}"
        return done.stdout

    return type_


@pytest.mark.kafka
def test_each_command_of_the_walk_prints_what_the_page_shows(
    settings: Settings, tmp_path: Path, typed: Callable[[str], str]
) -> None:
    initialise(settings, 4)
    for step in STEPS:
        if isinstance(step, File):
            (tmp_path / step.name).write_text(step.text, encoding="utf-8")
            continue
        printed = typed(step.line)
        assert is_shown(step.output, printed), f"`{step.line}` printed:\n{printed}\nand the page shows:\n{step.output}"


def test_the_walk_goes_from_the_question_to_promotion_and_back() -> None:
    way = iter([command.line for command in COMMANDS])
    for wanted in (
        "guerdon backtest next.yaml --since", "guerdon replay next.yaml --from", "guerdon diff 2 --members",
        "guerdon why p-2 --generation 2", "guerdon verify 2", "guerdon promote 2 --as adjust --dry-run",
        "guerdon promote 2 --as swap", "guerdon member", "guerdon publish later.jsonl", "guerdon run", "guerdon member",
        "guerdon promote 1 --as swap", "guerdon member", "guerdon verify",
    ):  # fmt: skip
        assert any(line.startswith(wanted) for line in way), f"{wanted} is missing, or not in its place"
    assert [command.line for command in COMMANDS if not command.output.strip()] == []


PRINTED = """\
5 events folded in 0.4 s, at 2026-11-25T11:04:35.701Z
units

  unit     before   after   rules
 ───────────────────────────────────────────
  points      162     152   app +5, share -15
  cash          0       0   -

rules

  rule id   unit
 ────────────────
  app       points

liability: -10 points
"""
SHOWN = """\
5 events folded in 12.0 s,
at … units

  unit     after   rules
 ─────────────────────────────────
  points     152   app +5, share -15
  …

…
liability: -10 points
"""


def test_a_page_may_leave_out_columns_rows_parts_and_how_long_it_took() -> None:
    assert is_shown(SHOWN, PRINTED)
    assert is_shown(PRINTED, PRINTED)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("5 events", "6 events"), (" 152 ", " 153 "), ("share -15", "share -14"), ("after", "later"), ("-10", "-11"),
        ("at …", "at"), ("…\nliability", "liability"), ("  …\n", ""), ("…\nliability: -10 points\n", ""),
        ("  points     152   app +5, share -15\n  …\n", "  …\n  points     152   app +5, share -15\n"),
    ],
)  # fmt: skip
def test_what_is_shown_and_was_not_printed_is_found(right: str, wrong: str) -> None:
    assert right in SHOWN
    assert not is_shown(SHOWN.replace(right, wrong), PRINTED)


def test_a_block_that_nothing_executes_is_found() -> None:
    with pytest.raises(ValueError, match='nothing executes this block "sh"'):
        list(steps("```sh\nguerdon up\n```\n"))
