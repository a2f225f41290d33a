"""The README's tour: typed from the first line to the last, each command tells what the README shows."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pages.shown_output import Command, steps
from tests.places import EXAMPLES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.pages.terminal import Terminal

README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = re.search(r"^## A tour of five minutes\n.*?(?=^## )", README, re.DOTALL | re.MULTILINE)
STEPS = list(steps(TOUR[0] if TOUR else ""))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> Iterator[Path]:
    """Return the data folder of somebody who has named no servers; what the tour has started there is ended."""
    for name in ("GUERDON_DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "GUERDON_TOPIC_PREFIX", "GUERDON_GROUP_ID"):
        monkeypatch.delenv(name, raising=False)
    # Not pytest's tmp_path: PostgreSQL, where root starts it, runs as another user, who may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="guerdon-tour-"))
    folder.chmod(0o711)
    monkeypatch.setenv("GUERDON_HOME", str(folder))
    yield folder
    terminal.type("guerdon down --volumes")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.kafka
@pytest.mark.usefixtures("home")
def test_each_command_of_the_tour_tells_what_the_readme_shows(terminal: Terminal) -> None:
    (terminal.folder / "examples").symlink_to(EXAMPLES)
    terminal.follow(STEPS)


def test_the_tour_shows_what_a_newcomer_came_for() -> None:
    shown = "\n".join(f"{step.line}\n{step.output}" for step in STEPS if isinstance(step, Command))
    for wanted in (
        "guerdon up",
        "tier silver",
        "qualified",
        "cake",
        "guerdon why",
        "SELECT",
        "backtest",
        "quarantine",
        "down",
    ):
        assert wanted in shown, f"the tour does not show {wanted}"
