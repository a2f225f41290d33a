"""What the page on golden examples shows of `programme test` and `diff` is what the commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.pages.shown_output import Command, steps
from tests.places import DOCS

if TYPE_CHECKING:
    from tests.pages.terminal import Terminal

PAGE = (DOCS / "programme" / "tests.md").read_text(encoding="utf-8")


def test_the_page_shows_what_is_printed(terminal: Terminal) -> None:
    followed = list(steps(PAGE))
    assert sum(isinstance(step, Command) for step in followed) == 7
    terminal.follow(followed)
