"""The walk through a change on the page about replay: typed as it stands, each command prints what the page shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from operations.setup.initialise import initialise
from tests.pages.shown_output import Command, steps
from tests.pages.terminal import name_services
from tests.places import DOCS

if TYPE_CHECKING:
    from operations.settings import Settings
    from tests.pages.terminal import Terminal

PAGE = (DOCS / "replay.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## A change, from question to promotion and back\n.*?(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
STEPS = list(steps(SECTION[0] if SECTION else ""))
COMMANDS = [step for step in STEPS if isinstance(step, Command)]


@pytest.mark.kafka
def test_each_command_of_the_walk_prints_what_the_page_shows(
    settings: Settings, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_services(settings, monkeypatch)
    initialise(settings, 4)
    terminal.follow(STEPS)


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
