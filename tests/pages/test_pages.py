"""Pages say what is: each command that they name exists, and a test makes each output that they show."""

from __future__ import annotations

import ast
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from cli.main import app
from tests.places import ORDER, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")])
BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(guerdon [^`\n]+(?:\n[^`\n]+)?)`")
OPTION = re.compile(r"(?<![\w-])(--?[a-z][\w-]*)")
COMMANDS: Any = typer.main.get_command(app)

TYPED = {"README.md", "docs/api.md", "docs/replay.md", "docs/verify.md", "docs/programme/tests.md"}
"""Pages whose console blocks are typed by a test of theirs: test_readme, test_programme_pages and three `test_page`."""
COMPARED = {
    "text outcome": "pages/test_guide", "text log": "pages/test_ledger_page", "text": "operations/why/test_page",
    "text floors": "pages/test_places_named",
    "text demo": "operations/setup/test_demo", "text archive": "operations/archive/test_page",
    "text folder": "operations/export/test_export",
    "text bytes": "pages/test_generated", "text generated": "pages/test_programme_pages",
}  # fmt: skip
"""Kinds of blocks that show an output, and the test that makes it."""
SOURCES = {"sh", "sql", "yaml", "json", "python", "javascript", "java", "mermaid"}
"""Kinds of blocks that show no output, by their first word."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def named(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of ours that a page names, in a block or in a sentence."""
    lines = [line for block in BLOCK.finditer(text) for line in block["text"].replace("\\\n", " ").splitlines()]
    commands = [line.strip().removeprefix("$ ") for line in lines]
    found = [line for line in commands if line.startswith("guerdon ")]
    for line in found:
        yield words_of(line)
    yield from quoted(BLOCK.sub("", text))


def quoted(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of ours that a text has between backticks."""
    for line in INLINE.findall(text):
        yield words_of(" ".join(line.split()))


def words_of(line: str) -> list[str]:
    return shlex.split(line.replace("…", " "), comments=True)[1:]


def unknown_in(words: list[str]) -> str | None:
    """Return what of a command line there is not: a command, or one of its options."""
    command = COMMANDS
    for word in words:
        if not hasattr(command, "commands") or word.startswith("-"):
            break
        if word not in command.commands:
            return word
        command = command.commands[word]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    takes_all = command.context_settings.get("ignore_unknown_options", False)
    options = [match[1] for word in words if (match := OPTION.match(word))]
    return next((option for option in options if option not in known | {"--help"} and not takes_all), None)


@pages
def test_each_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    wrong = [(words, unknown) for words in named(page.read_text("utf-8")) if (unknown := unknown_in(words))]
    assert wrong == []


@pages
def test_each_output_that_a_page_shows_is_made_by_a_test(page: Path) -> None:
    for block in BLOCK.finditer(page.read_text("utf-8")):
        kind = block["kind"]
        if kind == "console":
            assert str(page.relative_to(ROOT)) in TYPED, f"nothing types the commands of {page}"
        elif kind.split(" ")[0] not in SOURCES:
            assert kind in COMPARED, f'nothing makes this block "{kind}" of {page}: {block["text"][:60]}'
            assert (ROOT / "tests" / f"{COMPARED[kind]}.py").exists()
        else:
            assert not block["text"].startswith("$ "), f"a command with its output is a console block: {page}"


@pytest.mark.parametrize("room", ORDER)
def test_each_command_that_a_message_or_a_docstring_names_exists_with_its_options(room: str) -> None:
    wrong = [
        (str(path.relative_to(ROOT)), words)
        for path in sorted((ROOT / room).rglob("*.py"))
        for text in texts_in(path.read_text("utf-8"))
        for words in quoted(text)
        if unknown_in(words)
    ]
    assert wrong == []


def texts_in(source: str) -> Iterator[str]:
    """Yield each text of a module; what a text inserts is three dots."""
    tree = ast.parse(source)
    inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
            yield node.value


def test_a_command_and_an_option_that_there_are_not_are_found() -> None:
    assert unknown_in(["verify", "2", "--json"]) is None
    assert unknown_in(["verifies"]) == "verifies"
    assert unknown_in(["programme", "chek", "x.yaml"]) == "chek"
    assert unknown_in(["programme", "check", "x.yaml", "--jsn"]) == "--jsn"
    assert unknown_in(["psql", "--csv"]) is None
    assert list(texts_in('raise E(f"run `guerdon activate {file}` " "now")')) == ["run `guerdon activate …` now"]
    assert [unknown_in(words) for words in quoted("run `guerdon activate …` now")] == ["activate"]
