"""What the pages on golden examples and on generated Python show is what the commands print."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.pages.shown_output import Command, steps
from tests.places import DOCS, ROOT

if TYPE_CHECKING:
    import pytest

    from tests.pages.terminal import Terminal

PAGE = (DOCS / "programme" / "tests.md").read_text(encoding="utf-8")
GENERATED = (DOCS / "programme" / "generated.md").read_text(encoding="utf-8")


def test_the_page_shows_what_is_printed(terminal: Terminal) -> None:
    followed = list(steps(PAGE))
    assert sum(isinstance(step, Command) for step in followed) == 7
    terminal.follow(followed)


def test_the_page_on_generated_python_shows_parts_of_what_is_printed(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(r"^```sh\n(.*)\n```$", GENERATED, re.MULTILINE)
    monkeypatch.chdir(ROOT)
    printed = terminal.type(command).out
    shown = re.findall(r"^```text generated\n(.*?)^```$", GENERATED, re.DOTALL | re.MULTILINE)
    parts = [part for block in shown for part in block.split("…\n")]
    assert len(parts) == 5
    assert [part for part in parts if part not in printed] == []
