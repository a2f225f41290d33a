"""The parts of pages that are made from code are what the code says now, and leave nothing unsaid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer

from cli.main import app
from tests.api import openapi_file
from tests.pages.commands_page import commands_of
from tests.pages.generate import PAGES, generated

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = dict(commands_of(typer.main.get_command(app), "guerdon"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_each_part_is_what_the_code_says_now(path: Path) -> None:
    page = path.read_text("utf-8")
    assert generated(page, PAGES[path]) == page, "run `python -m tests.pages.generate`"


def test_the_openapi_file_is_what_the_server_would_answer() -> None:
    said = openapi_file.FILE.read_text("utf-8")
    assert said == openapi_file.openapi_text(), "run `python -m tests.pages.generate`"


def test_a_page_without_the_marks_of_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="the page has no part between '<!-- views: made by"):
        generated("# Views\n", {"views": lambda: "| column |\n"})


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_does_and_each_of_its_words_too(name: str) -> None:
    command = COMMANDS[name]
    assert "Example" in command.help
    assert [each.name for each in command.params if not each.help] == []
