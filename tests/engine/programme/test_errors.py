"""The page of error codes: every code is on it, and every example on it draws its code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from engine.programme.file.load import load_file, load_programme
from engine.programme.file.problems import Code
from tests.places import DOCS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (DOCS / "programme" / "errors.md").read_text(encoding="utf-8")
SECTIONS = {
    match["code"]: match["text"]
    for match in re.finditer(r"### `(?P<code>\w+)`\n(?P<text>.*?)(?=\n##|\Z)", PAGE, re.DOTALL)
}
FIRST = "schema: guerdon/1\nprogramme: shop\ntimezone: UTC\ncurrency: USD\n"
WITHOUT_EXAMPLE = {Code.UNREADABLE, Code.TOO_LARGE}


def examples(code: Code) -> list[str]:
    """Return the examples of a code as whole files."""
    return [
        _whole(block["kind"], block["text"])
        for block in re.finditer(r"```yaml(?P<kind>[a-z ]*)\n(?P<text>.*?)```", SECTIONS[code], re.DOTALL)
    ]


def _whole(kind: str, text: str) -> str:
    if kind == " rule":
        return f"{FIRST}rules:\n- {text}"
    if kind == " part":
        return FIRST + text + ("" if "rules:" in text else "rules: []\n")
    assert not kind, f"an example cannot be headed{kind}"
    return text


def test_every_code_has_a_section_and_nothing_else_has() -> None:
    assert set(SECTIONS) == {code.value for code in Code}
    assert {code for code in Code if not examples(code)} == WITHOUT_EXAMPLE


@pytest.mark.parametrize(("code", "text"), [(code, text) for code in Code for text in examples(code)])
def test_an_example_draws_its_code(code: Code, text: str) -> None:
    problems = load_programme(text, "example.yaml").problems
    assert code in [problem.code for problem in problems]
    if "rules:" in text and code is not Code.YAML and code is not Code.ANCHOR:
        assert {problem.code for problem in problems} == {code}


def test_the_codes_without_an_example_are_drawn_too(tmp_path: Path) -> None:
    assert [problem.code for problem in load_file(tmp_path / "gone.yaml").problems] == [Code.UNREADABLE]
    assert [problem.code for problem in load_programme("x" * 1_000_001, "p.yaml").problems] == [Code.TOO_LARGE]
